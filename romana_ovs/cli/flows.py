"""Implements `romana-ovs flows DIR --node NAME`: prints the compiled tables of one node.

The text loads with `ovs-ofctl -O OpenFlow15 add-flows BRIDGE FILE`. With `--json`:
`[{"table", "table_id", "priority", "match", "actions", "cookie", "origin", "meter"}]`, where `match` and `actions` are
in ovs-ofctl's words, `origin` says why the flow exists (a policy and its rule, or a feature of ours), and `meter` is
empty or the meter that a switch has before the actions, as `add-meter` takes it.
"""

from __future__ import annotations

import argparse

from romana_ovs.cli.addresses import saved_state
from romana_ovs.cli.common import add_folder, load_folder, print_json
from romana_ovs.cli.offline import compiled, settled

HELP = "print one node's compiled tables"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `flows`."""
    add_folder(parser)
    parser.add_argument("--node", required=True, metavar="NAME", help="the node whose tables are printed")


def run(args: argparse.Namespace) -> int:
    """0. Raises InputError when the folder or the state cannot be used, or there is no such node."""
    from romana_ovs.pipeline.listing import loadable, rows

    loaded = load_folder(args)
    world, facts = settled(loaded.cluster, saved_state(args.state))
    program = compiled(world, facts, args.node)
    if args.json:
        print_json(rows(program.flows.values(), program.meters))
    else:
        print(loadable(program.flows.values(), program.meters), end="")
    return 0
