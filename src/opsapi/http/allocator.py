"""Keeps the C library from handing memory back to the kernel after each large answer.

An answer of 100 KB is allocated and freed within a request. By default glibc trims the heap's end as soon as 128 KB of
it are free, so that the next such answer faults every page in again: more CPU than encoding it takes.
"""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
"""From malloc.h."""
KEPT_BYTES = 16 * 2**20
_MAPPED_FROM = 4 * 2**20
_GROWN_BY = 2**20


def keep_freed_memory() -> bool:
    """Keeps up to 16 MiB of freed memory; false where the C library is not glibc, which is no fault."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    wanted = ((_M_MMAP_THRESHOLD, _MAPPED_FROM), (_M_TRIM_THRESHOLD, KEPT_BYTES), (_M_TOP_PAD, _GROWN_BY))
    return all(mallopt(option, value) == 1 for option, value in wanted)
