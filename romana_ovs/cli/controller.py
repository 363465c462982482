"""`romana-ovs controller`: the Ryu application, with ryu-manager's own options."""

from __future__ import annotations

import argparse

HELP = "the Ryu application; takes ryu-manager's own options, such as --config-file"
PASSES_OPTIONS = True


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds nothing: every option is ryu-manager's."""


def run(args: argparse.Namespace) -> int:
    """0 after SIGTERM or SIGINT, 1 when it ended by itself. Raises InputError when its settings are no good."""
    from romana_ovs import runtime  # it patches what it imports, and no other command may pay for that

    return runtime.run(args.rest)
