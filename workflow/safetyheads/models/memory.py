"""How this process gets memory for tensors on the CPU from the system.

Measured on two threads of an AMD EPYC, with the model of `benchmarks/scoring.py --size bench`, two interleaved runs:
scoring takes 30.4 and 30.6 s with it, 37.2 and 34.4 s without (15 % of the time); generation is the same.
"""

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # names and numbers of mallopt(3)
_NEVER = 2**31 - 1


def save_page_faults() -> None:
    """Let this process keep the memory of freed tensors for the next ones, and take it in large pages. Only on Linux.

    By default a large block that is freed goes back to the system. When it is needed again, the system clears it in
    pages of 4 KiB, which takes more than a tenth of the time of a forward pass. Keeping it does not raise the peak.
    Must be called before the first tensor is made, because torch reads its setting then.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # asks for transparent huge pages
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _NEVER)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)
