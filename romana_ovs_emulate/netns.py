"""Enters network namespaces. Agents import it, so it imports the standard library only."""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


def enter(netns: str) -> None:
    """Move the calling thread into a named network namespace (setns(2)). Raises OSError."""
    descriptor = os.open(netns, os.O_RDONLY)
    try:
        if _LIBC.setns(descriptor, CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), netns)
    finally:
        os.close(descriptor)
