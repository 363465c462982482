"""Shows the demonstration of tenants, tiers and a policy on a cluster of real nodes (`make demo-cluster`)."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from romana_ovs.model.errors import InputError, SetupError
from romana_ovs_emulate.cli.demo import NODES, Demo, demo_folder, print_result
from romana_ovs_emulate.cli.session import ended_by_signals
from romana_ovs_emulate.cluster.cluster import SETTINGS, Cluster, ClusterOptions
from romana_ovs_emulate.cluster.demo_stage import cluster_stage, settings_text

INTERRUPTED = 130
MIN_NODES = 2


def main(argv: Sequence[str] = ()) -> int:
    """Returns exit code 0, 1 when a measurement is not as expected, or 2 after an error message."""
    parser = argparse.ArgumentParser(prog="make demo-cluster", description=__doc__)
    parser.add_argument("--nodes", type=int, default=NODES, metavar="N", help="how many nodes (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="steps and figures as one line of JSON")
    args = parser.parse_args(argv)
    if args.nodes < MIN_NODES:
        parser.error(f"--nodes: {args.nodes} is less than {MIN_NODES}")
    try:
        with ended_by_signals():
            return _show(args.nodes, as_json=args.json)
    except (InputError, SetupError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED


def _show(nodes: int, *, as_json: bool) -> int:
    began = time.monotonic()
    screen = Console(quiet=as_json, highlight=False)
    progress = Console(stderr=True, highlight=False)
    with tempfile.NamedTemporaryFile("w", prefix="romana-ovs-demo-", suffix=".conf") as file:
        file.write(settings_text(demo_folder(), SETTINGS))
        file.flush()
        settings = Path(file.name)
        options = ClusterOptions(nodes=nodes, settings=settings)
        with (
            Cluster(options, lambda text: progress.print(text, markup=False)) as cluster,
            cluster_stage(cluster, settings, demo_folder()) as stage,
        ):
            demo = Demo(stage, screen)
            demo.play(time.monotonic() - began)
            print_result(demo, as_json=as_json)
    return 1 if demo.faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
