"""Implements `romana-ovs flows DIR --node NAME`: prints the compiled tables of one node.

The text loads with `ovs-ofctl -O OpenFlow15 add-flows BRIDGE FILE`. With `--json`:
`[{"table", "table_id", "priority", "match", "actions", "cookie", "origin", "meter"}]`, where `match` and `actions` are
in the syntax of ovs-ofctl, `origin` names what the flow exists for (a policy and its rule, a pod, or a part of the
pipeline), and `meter` is empty or the meter that a switch applies before the actions, in the syntax of `add-meter`.
"""

from __future__ import annotations

import argparse

from romana_ovs.cli.addresses import saved_state
from romana_ovs.cli.common import add_folder, exit_code, load_folder, print_json, warn_of_left_out
from romana_ovs.cli.offline import compile_node_tables, offline_engine

HELP = "print one node's compiled tables"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `flows`."""
    add_folder(parser)
    parser.add_argument("--node", required=True, metavar="NAME", help="the node whose tables are printed")


def run(args: argparse.Namespace) -> int:
    """Returns exit code 0. Raises InputError when the folder or the state cannot be used, or there is no such node."""
    from romana_ovs.pipeline.listing import loadable, rows

    loaded = load_folder(args)
    engine, facts = offline_engine(loaded.cluster, saved_state(args.state))
    program = compile_node_tables(engine, facts, args.node)
    if args.json:
        print_json(rows(program.flows.values(), program.meters))
    else:
        print(loadable(program.flows.values(), program.meters), end="")
    if args.strict:
        warn_of_left_out(loaded)
    return exit_code(0, loaded, strict=args.strict)
