"""How the C library gives memory back to the system."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""The names of glibc's malloc.h."""

LARGEST = 32 * 2**20
"""Bytes; glibc takes no larger threshold."""


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, for its next tensors.

    A training frees and allocates the same tensors at every step. By default glibc returns
    large ones to the system, which then clears every page anew when it is touched: up to a
    fifth of the time of full fine-tuning (docs/decisions/0007). Other C libraries have no such
    setting, and nothing is done.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(M_MMAP_THRESHOLD, LARGEST)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_TOP_PAD, 2 * LARGEST)
