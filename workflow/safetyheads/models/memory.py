"""The memory that tensors on the CPU come from."""

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # names and numbers of mallopt(3)
_NEVER = 2**31 - 1


def save_page_faults() -> None:
    """Let this process keep the memory of freed tensors for the next ones, and take it in large pages (Linux).

    By default large blocks go back to the system, which clears them 4 KiB at a time when they are needed again: about a
    tenth of the time of a forward pass. The peak stays what it is. Call it before the first tensor is made: torch reads
    its setting then.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # transparent huge pages, where the system has them on request
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _NEVER)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)
