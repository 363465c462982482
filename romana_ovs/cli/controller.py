"""Implements `romana-ovs controller`: the Ryu application, with the options of ryu-manager."""

from __future__ import annotations

import argparse

from romana_ovs.cli.health_port import add_health_port, check_health_port
from romana_ovs.model.errors import InputError

HELP = "the Ryu application; takes ryu-manager's own options, such as --config-file"
PASSES_OPTIONS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options for the cluster and the role; all others are ryu-manager's."""
    parser.add_argument(
        "--kubeconfig",
        metavar="FILE",
        help="watch this API server; FILE `in-cluster`: with the service account of the pod",
    )
    add_health_port(parser)
    role = parser.add_mutually_exclusive_group()
    role.add_argument("--node", metavar="NAME", help="program only this node's bridge, and watch only its pods")
    role.add_argument(
        "--registry", action="store_true", help="act as the registry for all nodes, and program no bridge"
    )


def run(args: argparse.Namespace) -> int:
    """Returns exit code 0 after SIGTERM or SIGINT, 1 after an internal error.

    Raises InputError for invalid settings.
    """
    for option, text in (("--kubeconfig", args.kubeconfig), ("--node", args.node)):
        if text == "":
            # An empty option would count as absent: the controller would use another cluster or drive other bridges.
            raise InputError.because(f"{option} is empty")
    check_health_port(args.health_port)
    from romana_ovs import runtime  # imported here: it patches modules, which no other command needs

    given = {"kubeconfig": args.kubeconfig, "node": args.node, "registry_only": "yes" if args.registry else None}
    return runtime.run(args.rest, {name: text for name, text in given.items() if text is not None}, args.health_port)
