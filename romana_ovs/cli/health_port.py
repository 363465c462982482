"""Declares and checks the option `--health-port` of the processes that kubelet probes."""

from __future__ import annotations

import argparse

from romana_ovs.health import HOST, MAX_PORT
from romana_ovs.model.errors import InputError


def add_health_port(parser: argparse.ArgumentParser) -> None:
    """Add the option, as `args.health_port`."""
    parser.add_argument(
        "--health-port",
        type=int,
        metavar="PORT",
        help=f"serve /livez and /readyz over HTTP on this port of {HOST} (default: nowhere)",
    )


def check_health_port(port: int | None) -> None:
    """Raises InputError for a number that is no port."""
    if port is not None and not 1 <= port <= MAX_PORT:
        raise InputError.because(f"--health-port: {port} is not from 1 to {MAX_PORT}")
