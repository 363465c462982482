"""`romana-ovs controller`: the Ryu application, with ryu-manager's own options."""

from __future__ import annotations

import argparse

from romana_ovs.model.errors import InputError

HELP = "the Ryu application; takes ryu-manager's own options, such as --config-file"
PASSES_OPTIONS = True


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what says which cluster is followed and which part of the work is done; the rest is ryu-manager's."""
    parser.add_argument("--kubeconfig", metavar="FILE", help="follow this API server (in-cluster: that of our own pod)")
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--node", metavar="NAME", help="drive this node's bridge alone, watching its own pods only")
    part.add_argument("--registry", action="store_true", help="give out numbers for all nodes, and drive no bridge")


def run(args: argparse.Namespace) -> int:
    """0 after SIGTERM or SIGINT, 1 when it ended by itself. Raises InputError when its settings are no good."""
    for option, text in (("--kubeconfig", args.kubeconfig), ("--node", args.node)):
        if text == "":
            # It would count as not given, and something else would be followed, or driven, than was meant.
            raise InputError.because(f"{option} is empty")
    from romana_ovs import runtime  # it patches what it imports, and no other command may pay for that

    given = {"kubeconfig": args.kubeconfig, "node": args.node, "registry_only": "yes" if args.registry else None}
    return runtime.run(args.rest, {name: text for name, text in given.items() if text is not None})
