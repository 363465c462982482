"""Implements `romana-ovs matrix DIR`: who may connect to whom, by evaluation alone, without root or a switch."""

from __future__ import annotations

import argparse
import sys

from romana_ovs.cli.addresses import AddressMap, saved_state
from romana_ovs.cli.caveats import caveats, problems_json
from romana_ovs.cli.common import add_folder, exit_code, load_folder, print_json, warn_of_left_out
from romana_ovs.cli.left_out import left_out_json
from romana_ovs.cli.progress import activity
from romana_ovs.model.connection import PortRef
from romana_ovs.model.errors import InputError
from romana_ovs.policy.matrix import container_ports, depends_on_addresses, reachability

HELP = "the expected reachability of every pair of pods, by evaluation alone"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `matrix`."""
    add_folder(parser)
    parser.add_argument(
        "--ports", metavar="PORTS", help="these ports (80/tcp,81/udp,icmp,...) instead of those the containers declare"
    )


def run(args: argparse.Namespace) -> int:
    """Returns exit code 0. Raises InputError when the folder or the ports cannot be used."""
    chosen = None if args.ports is None else parse_ports(args.ports)
    state = saved_state(args.state)
    loaded = load_folder(args)
    ports = container_ports(loaded.cluster) if chosen is None else chosen
    addresses = AddressMap.of(loaded.cluster, state).pods if depends_on_addresses(loaded.cluster) else {}
    with activity(f"evaluating {len(loaded.cluster.pods)} pods on {len(ports)} ports"):
        matrix = reachability(loaded.cluster, addresses, ports)
    warn_of_left_out(loaded)
    if args.json:
        print_json(matrix.to_json() | left_out_json(loaded) | problems_json(loaded))
    elif not ports:
        print("No container of these pods declares a port, so there is nothing to show: name some with --ports 80/tcp.")
    else:
        # Imported here: slow, and not needed for JSON.
        from rich.console import Console

        from romana_ovs.cli.drawing import draw_matrix, group_names

        draw_matrix(matrix, console=Console(file=sys.stdout, highlight=False), groups=group_names(loaded.cluster))
    if not args.json:
        for caveat in caveats(loaded):
            print(f"\n{caveat}")
    return exit_code(0, loaded, strict=args.strict)


def parse_ports(text: str) -> tuple[PortRef, ...]:
    """The ports of `80/tcp,81/udp,icmp`, each once. Raises InputError for an invalid port, or without any."""
    ports = tuple(dict.fromkeys(PortRef.parse(word, field="--ports") for word in text.split(",") if word.strip()))
    if not ports:
        raise InputError.because("no port is given: write them as 80/tcp,81/udp", field="--ports")
    return ports
