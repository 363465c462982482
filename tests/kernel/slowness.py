"""Measures how slow this machine is, as a program in the virtual machine: prints ROMANA_PATIENCE for it.

Its argument is the patience for a usual machine of this kind. One that takes longer than usual to start programs gets
more in proportion; the exit code is 75 (EX_TEMPFAIL, sysexits.h) where it is too slow for tests.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

STARTS = 9
USUAL_SECONDS = 0.3
"""What starting an interpreter takes under emulation on two busy cores (0.30 to 0.46 s at a load of 10)."""
MOST = 4.0
"""A machine that is slower than usual by more is too slow."""


def measured_seconds() -> float:
    """The median time that starting a Python interpreter takes."""
    times = []
    for _ in range(STARTS):
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        times.append(time.monotonic() - began)
    return statistics.median(times)


def main(words: list[str]) -> int:
    """Print the patience; the exit code."""
    ratio = max(1.0, measured_seconds() / USUAL_SECONDS)
    print(f"{float(words[0]) * ratio:.1f}")
    return os.EX_OK if ratio <= MOST else os.EX_TEMPFAIL


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
