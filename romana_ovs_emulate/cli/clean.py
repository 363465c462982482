"""Implements `romana-ovs clean`: removes the remains of killed runs, and nothing else."""

from __future__ import annotations

import argparse
import json
import os

from romana_ovs.model.errors import SetupError
from romana_ovs_emulate import runs

HELP = "remove what a killed run left behind, and nothing else"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare no arguments: `clean` never touches live runs, so it has no options."""


def run(args: argparse.Namespace) -> int:
    """Remove dead runs. Returns exit code 0. Raises SetupError without root."""
    if os.geteuid() != 0:
        raise SetupError("clean needs root (it removes network namespaces and ends processes): run it with sudo")
    removed = runs.clean(runs.RUNS_FOLDER)
    if args.json:
        print(
            json.dumps(
                {
                    "removed": [
                        {"run": one.run, "processes": one.processes, "namespaces": list(one.namespaces)}
                        for one in removed
                    ]
                }
            )
        )
    elif not removed:
        print("Nothing to remove.")
    else:
        for one in removed:
            print(f"Removed run {one.run}: {one.processes} processes, {len(one.namespaces)} network namespaces.")
    return 0
