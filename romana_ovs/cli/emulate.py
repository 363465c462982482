"""`romana-ovs emulate DIR`: a folder of manifests on an emulated cluster of real Open vSwitch bridges."""

from __future__ import annotations

import argparse
import json
import readline
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rich.console import Console

from romana_ovs.addressing.plan import Plan as AddressPlan
from romana_ovs.cli.common import warn
from romana_ovs.cli.drawing import draw_matrix, group_names
from romana_ovs.emulate.controller import Event, Programmed
from romana_ovs.emulate.edits import Edit, Edits, refusal_lines
from romana_ovs.emulate.emulation import Emulation, Plan
from romana_ovs.emulate.fabric import Fabric
from romana_ovs.emulate.manifests import Manifests
from romana_ovs.emulate.probe import Difference, Measurement, measure
from romana_ovs.emulate.prompt import PROMPT, Prompt
from romana_ovs.model.connection import PortRef
from romana_ovs.model.errors import InputError, RomanaError
from romana_ovs.model.objects import Protocol
from romana_ovs.policy.matrix import Matrix

HELP = "run a folder of manifests on an emulated cluster of real Open vSwitch bridges"
SHOWN_DIFFERENCES = 50


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what `emulate` takes."""
    parser.add_argument("folder", metavar="DIR", type=Path, help="the folder of manifests; edits of it apply live")
    parser.add_argument("--nodes", type=int, metavar="N", help="how many nodes there are (default 2)")
    parser.add_argument("--fabric", choices=[fabric.value for fabric in Fabric], default=Fabric.LINK.value,
                        help="how nodes are joined (default link)")
    parser.add_argument("--probe", metavar="PORTS", help="measure these ports (80/tcp,81/udp,...) and end")
    parser.add_argument("--state", type=Path, metavar="FILE", help="keep addresses and numbers in this file")


def run(args: argparse.Namespace) -> int:
    """0, or 1 when a probe finds a difference. Raises InputError and SetupError."""
    ports = parse_ports(args.probe) if args.probe is not None else ()
    if args.nodes is not None and args.nodes < 1:
        raise InputError.because(f"--nodes is {args.nodes}; it must be at least 1")
    session = Session.prepare(args.folder, args.nodes, Fabric(args.fabric), ports=ports, state=args.state,
                              as_json=args.json)
    with ended_by_signals():
        if ports:
            return _probe(session, ports, as_json=args.json)
        return _stay(session)


def parse_ports(text: str) -> tuple[PortRef, ...]:
    """The ports of `80/tcp,81/udp`. Raises InputError."""
    ports = tuple(dict.fromkeys(PortRef.parse(word) for word in text.split(",") if word.strip()))
    for port in ports:
        if not isinstance(port.protocol, Protocol):
            raise InputError.because(f"{port} cannot be probed: only tcp, udp and sctp ports can")
    if not ports:
        raise InputError.because("no port is given: write them as 80/tcp,81/udp")
    return ports


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into an orderly end, as Ctrl-C is one."""
    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True, slots=True)
class Session:
    """A folder and the cluster that emulates it, not yet started (`emulation` is the context manager)."""

    manifests: Manifests
    emulation: Emulation
    edits: Edits
    screen: Console

    @classmethod
    def prepare(
        cls, folder: Path, nodes: int | None, fabric: Fabric, *, ports: Sequence[PortRef] = (),
        state: Path | None = None, as_json: bool = False,
    ) -> Session:
        """A session for a folder. Raises InputError when the folder cannot be used."""
        manifests = Manifests(folder, nodes)
        screen = Console(stderr=True, highlight=False)
        warn(manifests.first)
        session: Session

        def listener(event: Event) -> None:
            session.hear(event, ports)

        def progress(step: str) -> None:
            screen.print(f"[dim]{step} ...[/]")

        emulation = Emulation(_plan(manifests, fabric, ports, state), progress=progress, listener=listener)
        manifests.addresses = emulation.addresses
        edits = Edits(
            manifests.cluster_and_matrix, settled=lambda: emulation.settled,
            edited=lambda edit: _show_edit(edit, as_json=as_json),
            refused=lambda problems: _show_refusal(problems, as_json=as_json),
        )
        session = cls(manifests, emulation, edits, screen)
        return session

    def hear(self, event: Event, ports: Sequence[PortRef]) -> None:
        """Follow an event: new ports are served, edits are told."""
        try:
            if isinstance(event, Programmed):
                self.emulation.serve(self.manifests.served(ports))
            self.edits.take(event)
        except RomanaError as error:
            self.screen.print(str(error), style="red", markup=False)

    def measure(self, ports: Sequence[PortRef]) -> tuple[Matrix, Measurement]:
        """(expected, measured) of every pair of pods that run by `ports`; says which do not. Raises SetupError."""
        everyone, running = self.manifests.expected(ports), self.emulation.pods
        for pod in everyone.pods:
            if pod not in running:
                self.screen.print(f"{pod} does not run, so it is not measured", style="yellow", markup=False)
        expected = Matrix.of(running, everyone.ports, (
            one for one in everyone.openings() if one.source in running and one.destination in running))
        forget = self.emulation.forget_sctp
        return expected, measure(running, everyone.ports, expected=expected, forget_sctp=forget)


def _plan(manifests: Manifests, fabric: Fabric, ports: Sequence[PortRef], state: Path | None) -> Plan:
    cluster = manifests.first.cluster
    settings = manifests.folder / "romana.conf"
    return Plan(
        source=manifests.folder.resolve(), nodes=tuple(sorted(cluster.nodes)), count=manifests.count,
        addresses=AddressPlan.of(cluster.settings), fabric=fabric, ports=manifests.served(ports),
        settings=(settings.resolve(),) if settings.is_file() else (), state_file=state.resolve() if state else None,
    )


def _probe(session: Session, ports: Sequence[PortRef], *, as_json: bool) -> int:
    with session.emulation as emulation:
        emulation.settle()
        session.screen.print("[dim]measuring ...[/]")
        expected, measured = session.measure(ports)
    differences = measured.differences(expected)
    if as_json:
        print(json.dumps({
            "expected": expected.to_json(), "measured": measured.matrix.to_json(),
            "differences": [one.to_json() for one in differences],
        }))
    else:
        _draw(session, expected, measured.matrix, differences)
    return 1 if differences else 0


def _stay(session: Session) -> int:
    """Run the prompt until the user leaves."""
    with session.emulation as emulation:
        state = emulation.settle()
        session.edits.begin()
        pods, nodes = len(emulation.pods), len(emulation.nodes)
        session.screen.print(f"{pods} pods run on {nodes} nodes; {len(state.refused)} objects are refused.")
        for node in emulation.nodes.values():
            session.screen.print(f"{node.name}: {node.dump_flows}", markup=False, soft_wrap=True)
        folder = session.manifests.folder
        session.screen.print(f"Edit {folder} and see; help tells what can be typed.", markup=False, soft_wrap=True)
        Prompt(emulation, show_matrix=lambda asked: show_matrix(session, asked)).run()
    return 0


def show_matrix(session: Session, asked: Sequence[str]) -> None:
    """Measure and draw for the prompt: the ports asked for, else those of the containers. Raises InputError."""
    ports = parse_ports(",".join(asked)) if asked else tuple(
        PortRef.parse(port) for port in session.manifests.expected().ports)
    session.emulation.serve(session.manifests.served(ports))
    expected, measured = session.measure(ports)
    _draw(session, expected, measured.matrix, measured.differences(expected))


def _draw(session: Session, expected: Matrix, measured: Matrix, differences: Sequence[Difference]) -> None:
    console = Console(highlight=False)
    groups = group_names(session.manifests.read().cluster)
    console.print("Measured with real packets:", style="bold")
    draw_matrix(measured, console=console, groups=groups)
    if not differences:
        console.print("\nThis is exactly what the reference evaluation expects.", style="green")
        return
    console.print("\nExpected by the reference evaluation:", style="bold")
    draw_matrix(expected, console=console, groups=groups)
    console.print(f"\n{len(differences)} differences:", style="bold red")
    for one in differences[:SHOWN_DIFFERENCES]:
        console.print(f"  {one}", markup=False, soft_wrap=True)
    if len(differences) > SHOWN_DIFFERENCES:
        console.print(f"  and {len(differences) - SHOWN_DIFFERENCES} more; --json has all of them")


def _show_edit(edit: Edit, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"event": "edit", **edit.to_json()}), flush=True)
        return
    _interrupt(edit.lines(), style="cyan")


def _show_refusal(problems: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"event": "refused", "problems": list(problems)}), flush=True)
        return
    _interrupt(refusal_lines(problems), style="yellow")


def _interrupt(lines: Sequence[str], *, style: str) -> None:
    """Print lines in the middle of a prompt, and the prompt again."""
    screen = Console(highlight=False)
    prompting = sys.stdin.isatty() and screen.is_terminal
    if prompting:
        screen.print()
    for line in lines:
        screen.print(line, style=style, markup=False, soft_wrap=True)
    if prompting:
        sys.stdout.write(f"{PROMPT}{readline.get_line_buffer()}")
    sys.stdout.flush()
