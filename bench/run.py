"""Measures the figures of `bench/results.md`: `bench/run.py [SECTION ...] [--quick]`; `--help` names the sections."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    # Started by its path, this file has `bench/` first on the import path, instead of the folder above.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    runpy.run_module("bench.figures", run_name="__main__", alter_sys=True)
