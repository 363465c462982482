"""Connects a cluster source with its emulation, and prints edits and matrices; shared by `emulate` and `demo`."""

from __future__ import annotations

import json
import readline
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from rich.console import Console

from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.cli.caveats import caveats
from romana_ovs.cli.common import warn
from romana_ovs.cli.drawing import draw_matrix, group_names
from romana_ovs.cli.progress import activity
from romana_ovs.model.connection import PortRef
from romana_ovs.model.errors import InputError, RomanaError
from romana_ovs.model.objects import Protocol
from romana_ovs_emulate.cli.measured import EmulationState, ProbeResults, between, unmeasured
from romana_ovs_emulate.cli.options import asked_datapath
from romana_ovs_emulate.cluster_source import ClusterSource, ManifestFolder
from romana_ovs_emulate.controller import Event, Programmed, State
from romana_ovs_emulate.edits import Edit, Edits, refusal_lines
from romana_ovs_emulate.emulation import Emulation, Plan
from romana_ovs_emulate.fabric import Fabric
from romana_ovs_emulate.probe import measure
from romana_ovs_emulate.prompt import PROMPT
from romana_ovs_emulate.reporter import Reporter

SHOWN_DIFFERENCES = 50


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
    """On SIGTERM and SIGHUP exit with cleanup, as on Ctrl-C."""

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
    """A cluster source and its emulation, not yet started (`emulation` is a context manager)."""

    source: ClusterSource
    emulation: Emulation
    edits: Edits
    screen: Console

    @classmethod
    def prepare(
        cls,
        folder: Path,
        nodes: int | None,
        fabric: Fabric,
        *,
        ports: Sequence[PortRef] = (),
        state: Path | None = None,
        as_json: bool = False,
        recursive: bool = False,
        datapath: str | None = None,
    ) -> Session:
        """A session for a folder; without a `datapath` its settings name it.

        Raises InputError when the folder cannot be used.
        """
        manifests = ManifestFolder(folder, nodes, recursive=recursive)
        warn(manifests.first)
        plan = _plan(manifests, fabric, ports, state)
        settings = plan.settings[0] if plan.settings else None
        plan = replace(plan, datapath=asked_datapath(datapath, settings))
        return cls.over(manifests, plan, ports=ports, as_json=as_json)

    @classmethod
    def over(
        cls,
        source: ClusterSource,
        plan: Plan,
        *,
        ports: Sequence[PortRef] = (),
        as_json: bool = False,
        reporter: Callable[[Emulation], Reporter] | None = None,
    ) -> Session:
        """A session for any source, emulated by `plan`; `reporter` makes the reporter."""
        screen = Console(stderr=True, highlight=False)
        session: Session

        def listener(event: Event) -> None:
            session.on_event(event, ports)

        def progress(step: str) -> None:
            screen.print(f"[dim]{step} ...[/]")

        emulation = Emulation(
            plan, progress=progress, listener=listener, on_error=lambda text: session.report_error(text)
        )
        if reporter is not None:
            emulation.reporter = reporter(emulation)
        source.addresses = emulation.addresses
        edits = Edits(
            source.cluster_and_matrix,
            settled=lambda: emulation.settled,
            on_edit=lambda edit: _show_edit(edit, as_json=as_json),
            on_refusal=lambda problems: _show_refusal(problems, as_json=as_json),
        )
        session = cls(source, emulation, edits, screen)
        return session

    def on_event(self, event: Event, ports: Sequence[PortRef]) -> None:
        """Handle an event of the controller: serve new ports, report edits."""
        try:
            if isinstance(event, Programmed):
                self.emulation.serve(self.source.served(ports))
            self.edits.on_event(event)
        except RomanaError as error:
            self.report_error(str(error))

    def catch_up(self) -> None:
        """Report an edit that the controller may have programmed before `source` has it."""
        try:
            self.edits.catch_up()
        except RomanaError as error:
            self.report_error(str(error))

    def report_error(self, text: str) -> None:
        """Print an error."""
        self.screen.print(text, style="red", markup=False)

    def measure(self, ports: Sequence[PortRef]) -> ProbeResults:
        """Every pair of running pods on `ports`, beside what is expected of all pods. Raises SetupError."""
        emulation = self.emulation
        expected, running = self.source.expected(ports), emulation.pods
        state = EmulationState(emulation.nodes.keys(), emulation.pod_failures, emulation.state.problems)
        missing = tuple(unmeasured(self.source.read(), expected.pods, running, state))
        for one in missing:
            self.screen.print(f"not measured: {one}", style="yellow", markup=False, soft_wrap=True)
        paths = len(running) * (len(running) - 1) * len(expected.ports)
        with activity(f"probing {paths} paths"):
            measurement = measure(
                running,
                expected.ports,
                expected=between(expected, running),
                flush_sctp=emulation.flush_sctp,
            )
        return ProbeResults(expected, measurement, missing)

    def settle(self, pods: int = 0) -> State:
        """Wait until every pod runs, at least `pods`, and every switch is up to date. Raises SetupError."""
        emulation = self.emulation
        with activity(lambda: f"{len(emulation.pods)} of {max(pods, len(emulation.state.pods))} pods run"):
            return emulation.settle(pods=pods)


def _plan(manifests: ManifestFolder, fabric: Fabric, ports: Sequence[PortRef], state: Path | None) -> Plan:
    cluster = manifests.first.cluster
    settings = manifests.folder / "romana.conf"
    return Plan(
        source=manifests.folder.resolve(),
        nodes=tuple(sorted(cluster.nodes)),
        count=manifests.count,
        addresses=AddressPlan.of(cluster.settings),
        fabric=fabric,
        ports=manifests.served(ports),
        settings=(settings.resolve(),) if settings.is_file() else (),
        state_file=state.resolve() if state else None,
        recursive=manifests.recursive,
    )


def show_matrix(session: Session, asked: Sequence[str]) -> None:
    """Measure and draw for the prompt: the ports asked for, else those of the containers. Raises InputError."""
    ports = (
        parse_ports(",".join(asked))
        if asked
        else tuple(PortRef.parse(port) for port in session.source.expected().ports)
    )
    session.emulation.serve(session.source.served(ports))
    draw(session, session.measure(ports))
    for caveat in caveats(session.source.read()):
        print(f"\n{caveat}")


def draw(session: Session, results: ProbeResults) -> None:
    """Draw the measured matrix, and the expected one when they differ; say what was not measured."""
    console = Console(highlight=False)
    groups = group_names(session.source.read().cluster)
    console.print("Measured with real packets:", style="bold")
    draw_matrix(results.measured, console=console, groups=groups)
    differences = results.differences
    if differences:
        console.print("\nExpected by the reference evaluation:", style="bold")
        draw_matrix(results.expected, console=console, groups=groups)
        console.print(f"\n{len(differences)} differences:", style="bold red")
        for one in differences[:SHOWN_DIFFERENCES]:
            console.print(f"  {one}", markup=False, soft_wrap=True)
        if len(differences) > SHOWN_DIFFERENCES:
            console.print(f"  and {len(differences) - SHOWN_DIFFERENCES} more; --json has all of them")
    _draw_conclusion(console, results)


def _draw_conclusion(console: Console, results: ProbeResults) -> None:
    """Say what was not measured, and whether the rest is as expected."""
    measured, pairs = results.pairs
    if results.unmeasured:
        count = len(results.unmeasured)
        console.print("\nNot everything runs, so not everything was measured:", style="bold red")
        for one in results.unmeasured[:SHOWN_DIFFERENCES]:
            console.print(f"  {one}", markup=False, soft_wrap=True)
        if count > SHOWN_DIFFERENCES:
            console.print(f"  and {count - SHOWN_DIFFERENCES} more; --json has all of them")
        outcome = "" if results.differences or not measured else "; these are as the reference evaluation expects"
        console.print(f"{measured} of {pairs} pairs were measured{outcome}.")
    elif not pairs:
        console.print("\nThere is no pair of pods, so nothing was measured.", style="yellow")
    elif not results.differences:
        console.print("\nThis is exactly what the reference evaluation expects.", style="green")


def _show_edit(edit: Edit, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"event": "edit", **edit.to_json()}), flush=True)
        return
    _print_above_prompt(edit.lines(), style="cyan")


def _show_refusal(problems: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"event": "refused", "problems": list(problems)}), flush=True)
        return
    _print_above_prompt(refusal_lines(problems), style="yellow")


def _print_above_prompt(lines: Sequence[str], *, style: str) -> None:
    """Print lines while a prompt is shown, and the prompt again."""
    screen = Console(highlight=False)
    prompting = sys.stdin.isatty() and screen.is_terminal
    if prompting:
        screen.print()
    for line in lines:
        screen.print(line, style=style, markup=False, soft_wrap=True)
    if prompting:
        sys.stdout.write(f"{PROMPT}{readline.get_line_buffer()}")
    sys.stdout.flush()
