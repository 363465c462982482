"""Runs the measurements, each in a process of its own, and writes the results to `bench/results.md`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.allocation import ROOT, SIZES
from bench.report import SECTIONS, results
from bench.switch import DATAPATH, datapath_type
from romana_ovs.cli.progress import activity
from romana_ovs.model.errors import SetupError
from romana_ovs_emulate.system import require_machine

RESULTS = ROOT / "bench" / "results.md"
CHILD_SECONDS = 240
FILLING_SECONDS = 240
"""How much longer the measurement with an API server may take, in seconds: objects are created one by one."""
CASES = ("tenant", "tier", "dns")


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured: pods of the large cluster, changes of each kind, turns and their seconds, five-tuples.

    `changing` is for how many seconds an API server's cluster changes, `read` how many pods a folder has.
    """

    sizes: tuple[int, ...]
    rounds: int
    turns: int
    seconds: float
    tuples: int
    changing: float
    read: int


FULL = Size(tuple(SIZES), rounds=100, turns=16, seconds=1.0, tuples=1_000, changing=20.0, read=3_000)
QUICK = Size((100,), rounds=2, turns=1, seconds=1.0, tuples=25, changing=1.0, read=100)


def child(module: str, *words: object, seconds: float = CHILD_SECONDS) -> dict[str, Any]:
    """The JSON that a measurement prints within `seconds`. Raises SystemExit with its error output."""
    argv = [sys.executable, "-m", module, *map(str, words)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(argv[1:])} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measured(section: str, size: Size) -> dict[str, Any]:
    """The figures of one section."""
    largest = max(size.sizes)
    if section == "flows":
        return {case: [child("bench.flows", pods, case) for pods in size.sizes] for case in CASES}
    if section == "latency":
        return child("bench.latency", largest, size.rounds)
    if section == "restart":
        return child("bench.restart", largest)
    if section == "reading":
        return child("bench.reading", size.read)
    if section == "kubernetes":
        return child("bench.kubernetes", largest, size.changing, seconds=CHILD_SECONDS + FILLING_SECONDS)
    if section == "traffic":
        return child("bench.traffic", largest, size.turns, size.seconds)
    return child("bench.megaflows", largest, size.tuples)


def machine() -> dict[str, str]:
    """The machine, without names."""
    version = subprocess.run(["ovs-vswitchd", "--version"], capture_output=True, text=True, check=True).stdout
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
    return {
        "cores": str(os.cpu_count()),
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
        "ovs": version.split()[3],
        "datapath": datapath_type().value,
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def _with_iperf() -> None:
    """Install iperf3 if possible; without it bench/peer.py sends."""
    if shutil.which("iperf3") is None and shutil.which("apt-get") is not None:
        print("installing iperf3", flush=True)
        subprocess.run(
            ["apt-get", "install", "-qy", "--no-install-recommends", "iperf3"],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )


def main(words: list[str]) -> int:
    """Measure the sections named in `words` (all without one); the exit status."""
    parser = argparse.ArgumentParser(prog="bench/run.py", description="Measures, and writes bench/results.md.")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; all without one")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether it works, not how fast it is")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the results go (default: bench/results.md)")
    parser.add_argument("--datapath", choices=("netdev", "system"), help=f"default: {DATAPATH}, else netdev")
    options = parser.parse_args(words)
    if options.datapath:
        os.environ[DATAPATH] = options.datapath
    unknown = sorted(set(options.sections) - set(SECTIONS))
    if unknown:
        parser.error(f"no such section: {', '.join(unknown)}")
    size = QUICK if options.quick else FULL
    chosen = [name for name in SECTIONS if not options.sections or name in options.sections]
    try:
        require_machine()
        datapath_type()
    except SetupError as error:
        print(error, file=sys.stderr)
        return 2
    if "traffic" in chosen:
        _with_iperf()
    figures: dict[str, Any] = {"machine": machine()}
    for number, name in enumerate(chosen, start=1):
        start = time.monotonic()
        section = f"[{number}/{len(chosen)}] {name} ..."
        if not sys.stderr.isatty():
            print(section, end=" ", flush=True)
        with activity(section):
            figures[name] = measured(name, size)
        print(f"{section} " if sys.stderr.isatty() else "", f"{time.monotonic() - start:.0f} s", sep="", flush=True)
    text = results(figures)
    options.output.write_text(text)
    print(f"\n{text.partition('## Aims')[2].partition('## ')[0].strip()}\n\nAll figures: {_shown(options.output)}")
    return 0


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
