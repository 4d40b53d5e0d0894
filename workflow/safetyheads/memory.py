"""The memory that tensors on the CPU come from."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # names and numbers of mallopt(3)
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Let this process keep the memory of freed tensors for the next ones (glibc; elsewhere nothing happens).

    By default large blocks go back to the system, which clears them page by page when they are needed again: about a
    tenth of the time of a forward pass. The peak stays what it is.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _NEVER)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)
