"""The figures of `bench/results.md`: `bench/run.py [SECTION ...] [--quick]`; `--help` names the sections."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    # Whoever starts this file by its path has `bench/` in front of the path, not what holds it.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    runpy.run_module("bench.figures", run_name="__main__", alter_sys=True)
