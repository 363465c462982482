"""Implements `romana-ovs emulate`: runs a folder of manifests, or an API server's cluster, on emulated nodes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from romana_ovs.cli.caveats import caveats, problems_json
from romana_ovs.cli.common import add_recursive, add_strict, exit_code, read_argument, warn_of_left_out
from romana_ovs.cli.left_out import left_out_json
from romana_ovs.config import FILE_NAME
from romana_ovs.kube.manifests.files import STDIN
from romana_ovs.kube.manifests.store import DEFAULT_NODES
from romana_ovs.model.connection import PortRef
from romana_ovs.model.errors import InputError
from romana_ovs_emulate.cli.options import add_datapath, add_fabric, asked_datapath
from romana_ovs_emulate.cli.session import Session, draw, ended_by_signals, parse_ports, show_matrix
from romana_ovs_emulate.fabric import Fabric
from romana_ovs_emulate.prompt import Prompt

HELP = "run a folder of manifests on an emulated cluster of real Open vSwitch bridges"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `emulate`."""
    parser.add_argument(
        "folder",
        metavar="DIR",
        type=Path,
        nargs="?",
        help="the folder of manifests, whose edits apply live; with --probe also - for stdin",
    )
    add_recursive(parser)
    parser.add_argument(
        "--kubeconfig",
        type=Path,
        metavar="FILE",
        help="in place of DIR: emulated nodes for the cluster of this API server",
    )
    parser.add_argument(
        "--config-file",
        type=Path,
        metavar="FILE",
        help="with --kubeconfig: the settings (for a folder they are in DIR/romana.conf)",
    )
    parser.add_argument("--nodes", type=int, metavar="N", help="how many nodes there are (default 2)")
    add_fabric(parser)
    add_datapath(parser)
    parser.add_argument("--probe", metavar="PORTS", help="measure these ports (80/tcp,81/udp,...) and end")
    parser.add_argument("--state", type=Path, metavar="FILE", help="keep addresses and numbers in this file")
    add_strict(parser)


def run(args: argparse.Namespace) -> int:
    """Returns exit code 0, or 1 when a probe does not measure all or finds a difference.

    Raises InputError and SetupError.
    """
    ports = parse_ports(args.probe) if args.probe is not None else ()
    if args.nodes is not None and args.nodes < 1:
        raise InputError.because(f"--nodes is {args.nodes}; it must be at least 1")
    if args.folder == STDIN and not ports:
        raise InputError.because("manifests from standard input need --probe, as the prompt reads standard input, too")
    with ended_by_signals(), _kept(args.folder) as folder:
        session = _session(args, folder, ports)
        if ports:
            code = _probe(session, ports, as_json=args.json)
            return exit_code(code, session.source.read(), strict=args.strict)
        return _stay(session)


@contextmanager
def _kept(folder: Path | None) -> Iterator[Path | None]:
    """`folder`, or a temporary one with what a pipe or standard input has, as the controller reads it, too."""
    if folder is None or not (folder == STDIN or folder.is_fifo()):
        yield folder
        return
    data = read_argument(str(folder))
    with TemporaryDirectory(prefix="romana-ovs-") as kept:
        (Path(kept) / "stdin.yaml").write_bytes(data)
        yield Path(kept)


def _session(args: argparse.Namespace, folder: Path | None, ports: Sequence[PortRef]) -> Session:
    if (args.folder is None) is (args.kubeconfig is None):
        raise InputError.because("give either a folder of manifests or --kubeconfig")
    if folder is not None:
        if args.config_file is not None:
            raise InputError.because(f"--config-file goes with --kubeconfig; DIR has its settings in {FILE_NAME}")
        return Session.prepare(
            folder,
            args.nodes,
            Fabric(args.fabric),
            ports=ports,
            state=args.state,
            as_json=args.json,
            recursive=args.recursive,
            datapath=args.datapath,
        )
    from romana_ovs_emulate.cli import (
        api_session,  # imported here: only API servers need the client of Kubernetes, which is slow to import
    )

    request = api_session.EmulateRequest(
        kubeconfig=args.kubeconfig,
        nodes=args.nodes or DEFAULT_NODES,
        fabric=Fabric(args.fabric),
        settings=args.config_file,
        state=args.state,
        ports=ports,
        as_json=args.json,
        datapath=asked_datapath(args.datapath, args.config_file),
    )
    return api_session.prepare(request)[1]


def _probe(session: Session, ports: Sequence[PortRef], *, as_json: bool) -> int:
    with session.emulation:
        session.settle()
        session.screen.print("[dim]measuring ...[/]")
        results = session.measure(ports)
    loaded = session.source.read()
    if as_json:
        print(
            json.dumps(
                {
                    "expected": results.expected.to_json(),
                    "measured": results.measured.to_json(),
                    "differences": [one.to_json() for one in results.differences],
                    "unmeasured": [one.to_json() for one in results.unmeasured],
                    **left_out_json(loaded),
                    **problems_json(loaded),
                    "datapath": session.emulation.datapath.value,
                }
            )
        )
    else:
        draw(session, results)
        for caveat in caveats(loaded):
            print(f"\n{caveat}")
    warn_of_left_out(loaded)
    return 0 if results.successful else 1


def _stay(session: Session) -> int:
    """Run the prompt until the user leaves. Returns exit code 0."""
    with session.emulation as emulation:
        state = session.settle()
        session.edits.start()
        warn_of_left_out(session.source.read())
        pods, nodes = len(emulation.pods), len(emulation.nodes)
        session.screen.print(f"{pods} pods run on {nodes} nodes; {len(state.refused)} objects are invalid.")
        for node in emulation.nodes.values():
            session.screen.print(f"{node.name}: {node.dump_flows}", markup=False, soft_wrap=True)
        hint = f"Edit {session.source.edit_hint} and see; help lists the commands."
        session.screen.print(hint, markup=False, soft_wrap=True)
        Prompt(emulation, show_matrix=lambda asked: show_matrix(session, asked)).run()
    return 0
