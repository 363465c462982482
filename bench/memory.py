"""Reads how much memory this process uses."""

from __future__ import annotations

import os
from pathlib import Path

MEBIBYTE = 1 << 20


def resident_mib() -> float:
    """What of this process is in memory now, in MiB (proc(5), statm)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MEBIBYTE
