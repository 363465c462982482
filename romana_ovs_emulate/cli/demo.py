"""Implements `romana-ovs demo`: the first public demonstration on real bridges with real servers, measured."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from romana_ovs.cli.drawing import draw_matrix
from romana_ovs.data_files import data_file
from romana_ovs.model.errors import InputError, SetupError
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.matrix import Matrix, PodPath, difference
from romana_ovs_emulate.cli.demo_stage import (
    PORTS,
    DemoStage,
    Layout,
    StageSession,
    folder_stage,
    kubernetes_stage,
)
from romana_ovs_emulate.cli.options import add_datapath, add_fabric
from romana_ovs_emulate.cli.session import ended_by_signals, show_matrix
from romana_ovs_emulate.controller import Programmed
from romana_ovs_emulate.fabric import Fabric
from romana_ovs_emulate.patience import patience
from romana_ovs_emulate.prompt import Prompt
from romana_ovs_emulate.revocation import RevocationTimes, open_connection

HELP = "the demonstration of tenants, tiers and a policy, measured with real servers on an emulated cluster"
FRONTEND = PodKey("default/nginx-frontend")
BACKEND = PodKey("default/nginx-backend")
POLICY_PORT = "80/tcp"
NODES = 3
"""With two, round-robin placement puts frontend and backend on one node; policies should be shown across nodes."""
CUT_LIMIT_MS = patience(1000.0)
"""An open connection must be cut in both directions within this time of the change, in milliseconds."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `demo`."""
    parser.add_argument(
        "--nodes",
        type=int,
        metavar="N",
        default=NODES,
        help=f"how many nodes there are (default {NODES}: frontend and backend are then apart)",
    )
    parser.add_argument(
        "--kubernetes", action="store_true", help="on a real Kubernetes API server, with objects that kubectl creates"
    )
    parser.add_argument("--keep", action="store_true", help="leave the cluster up, with a prompt")
    add_fabric(parser)
    add_datapath(parser)


def run(args: argparse.Namespace) -> int:
    """Returns exit code 0, or 1 when a measurement is not as expected. Raises InputError and SetupError."""
    if args.nodes < 1:
        raise InputError.because(f"--nodes is {args.nodes}; it must be at least 1")
    stage_of = kubernetes_stage if args.kubernetes else folder_stage
    layout = Layout(args.nodes, Fabric(args.fabric), args.datapath)
    with ended_by_signals(), stage_of(demo_folder(), layout) as stage:
        began = time.monotonic()
        with stage.session.emulation as emulation:
            stage.settle()
            screen = Console(quiet=args.json, highlight=False)
            demo = Demo(stage, screen)
            demo.play(time.monotonic() - began)
            print_result(demo, as_json=args.json)
            if args.keep and not args.json:
                message = f"\nThe cluster stays up. {stage.leave_message} (help, exit)"
                screen.print(message, markup=False, soft_wrap=True)
                stage.session.edits.start()
                Prompt(emulation, show_matrix=lambda asked: show_matrix(stage.session, asked)).run()
    return 1 if demo.faults else 0


def demo_folder() -> Path:
    """The folder of the demonstration's manifests. Raises SetupError when it is missing."""
    return data_file("demo")


@dataclass(frozen=True, slots=True)
class Step:
    """One step: the measured matrix, and what opened and closed since the step before."""

    name: str
    matrix: Matrix
    opened: Sequence[PodPath]
    closed: Sequence[PodPath]

    def to_json(self) -> dict[str, object]:
        """As JSON values, in the form of docs/design.md section 8."""
        return {
            "name": self.name,
            "matrix": self.matrix.to_json(),
            "opened": [one.to_json() for one in self.opened],
            "closed": [one.to_json() for one in self.closed],
        }


@dataclass(slots=True)
class Demo:
    """Runs the steps on a running cluster; `faults` are sentences about what is not as expected."""

    stage: DemoStage
    screen: Console
    steps: list[Step] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    figures: dict[str, object] = field(default_factory=dict)

    @property
    def session(self) -> StageSession:
        """The session of the stage."""
        return self.stage.session

    def play(self, start_seconds: float) -> None:
        """Run all four steps. Raises SetupError when the cluster itself fails."""
        emulation = self.session.emulation
        self.figures["start_seconds"] = round(start_seconds, 2)
        packets = emulation.state.packet_ins
        if not {FRONTEND, BACKEND} <= emulation.pods.keys():
            raise SetupError(f"the demonstration needs the pods {FRONTEND} and {BACKEND}")
        self._step("a", "Tenants are apart: t2 cannot reach t1, nor t1 t2", self._check_tenants_separate)
        self._step("b", "Tiers are apart: t1's frontend cannot reach t1's backend", self._check_tiers_separate)
        applied = self._change(self.stage.apply)
        self._step(
            "c",
            "The policy is applied: frontend reaches backend on TCP 80, nothing else opens",
            self._check_only_path_opened,
        )
        removed, cut = self._remove()
        self._step(
            "d", "The policy is removed: the path closes, an open connection is cut", self._check_only_path_closed
        )
        self._check_cut(cut)
        packets = emulation.state.packet_ins - packets
        if packets:
            self.faults.append(f"{packets} packets were sent to the controller, should be none")
        self.figures.update(
            {
                "flows": {name: dict(node.flows) for name, node in sorted(emulation.state.nodes.items())},
                "applied_milliseconds": round(applied.milliseconds, 1),
                "removed_milliseconds": round(removed.milliseconds, 1),
                "flow_mods": {"applied": dict(applied.sent), "removed": dict(removed.sent)},
                "cut_milliseconds": {"client": _rounded(cut.client), "server": _rounded(cut.server)},
                "packets_to_controller": packets,
            }
        )

    def _step(self, letter: str, title: str, checks: Callable[[Step], Iterator[str]]) -> None:
        """Measure, compare with the reference evaluation and the checks of the step, and draw."""
        results = self.session.measure(PORTS)
        measured = results.measured
        before = self.steps[-1].matrix if self.steps else Matrix.of(measured.pods, measured.ports, ())
        opened, closed = difference(before, measured)
        step = Step(f"{letter}: {title}", measured, opened, closed)
        faults = [f"{one}" for one in (*results.differences, *results.unmeasured)] + list(checks(step))
        self.screen.print(f"\n({letter}) {title}", style="bold", markup=False, soft_wrap=True)
        changes = (opened, closed) if self.steps else ((), ())
        draw_matrix(measured, console=self.screen, opened=changes[0], closed=changes[1])
        for word, paths in zip(("opened", "closed"), changes, strict=True):
            for one in paths:
                self.screen.print(f"  {word}: {_listed([one])}", markup=False, soft_wrap=True)
        if self.steps and not opened and not closed:
            self.screen.print("  nothing opened or closed since the step before")
        for fault in faults:
            self.screen.print(f"  WRONG: {fault}", style="bold red", markup=False, soft_wrap=True)
        self.steps.append(step)
        self.faults += [f"step {letter}: {fault}" for fault in faults]

    def _tenant(self, pod: PodKey) -> str:
        cluster = self.session.source.read().cluster
        return cluster.tenant_of(cluster.pods[pod])

    def _check_tenants_separate(self, step: Step) -> Iterator[str]:
        tenants = {pod: self._tenant(pod) for pod in step.matrix.pods}
        if len(set(tenants.values())) < 2:
            yield "there are not two tenants"
        paths = list(step.matrix.open_paths())
        for one in paths:
            if tenants[one.source] != tenants[one.destination]:
                yield f"{one.source} of {tenants[one.source]} reaches {one.destination} on {one.port}"
        if not paths:
            yield "no path is open, so the measurement proves nothing"

    def _check_tiers_separate(self, step: Step) -> Iterator[str]:
        for port in step.matrix.ports:
            if step.matrix.allows(FRONTEND, BACKEND, port):
                yield f"{FRONTEND} reaches {BACKEND} on {port}"

    def _check_only_path_opened(self, step: Step) -> Iterator[str]:
        wanted = PodPath(FRONTEND, BACKEND, POLICY_PORT)
        if list(step.opened) != [wanted]:
            yield f"opened {_listed(step.opened)}, should be {_listed([wanted])}"
        if step.closed:
            yield f"closed {_listed(step.closed)}, should be nothing"

    def _check_only_path_closed(self, step: Step) -> Iterator[str]:
        wanted = PodPath(FRONTEND, BACKEND, POLICY_PORT)
        if list(step.closed) != [wanted]:
            yield f"closed {_listed(step.closed)}, should be {_listed([wanted])}"
        if step.opened:
            yield f"opened {_listed(step.opened)}, should be nothing"

    def _change(self, edit: Callable[[], None]) -> Programmed:
        """Make an edit and wait until it is programmed in every switch."""
        generation = self.session.emulation.state.generation
        edit()
        return self.session.emulation.programmed_after(generation)

    def _remove(self) -> tuple[Programmed, RevocationTimes]:
        """Remove the policy while a connection that it allows pushes data both ways."""
        pods = self.session.emulation.pods
        with open_connection(pods[FRONTEND], pods[BACKEND], 80, "tcp") as connection:
            changed = time.monotonic()
            removed = self._change(self.stage.remove)
            return removed, connection.await_revocation(changed)

    def _check_cut(self, cut: RevocationTimes) -> None:
        times = {
            end: "never" if ms is None else f"after {ms:.0f} ms"
            for end, ms in (("the client's", cut.server), ("the server's", cut.client))
        }
        outcome = ", ".join(f"{end} data stopped {when}" for end, when in times.items())
        self.screen.print(f"  the open connection: {outcome}", soft_wrap=True)
        if not cut.within(CUT_LIMIT_MS):
            self.faults.append(f"step d: the open connection was not cut within {CUT_LIMIT_MS:.0f} ms: {outcome}")


def print_result(demo: Demo, *, as_json: bool) -> None:
    """Print the figures and whether all is as expected, or everything as JSON."""
    if as_json:
        steps = [step.to_json() for step in demo.steps]
        datapath = demo.session.emulation.datapath.value
        print(json.dumps({"steps": steps, "figures": demo.figures, "faults": demo.faults, "datapath": datapath}))
        return
    figures = demo.figures
    flows = figures["flows"]
    total = flows.items() if isinstance(flows, dict) else ()
    counts = ", ".join(f"{name} {kinds.get('total')}" for name, kinds in total)
    demo.screen.print(
        f"\nFlows per node: {counts}. {demo.stage.change} to programmed: {figures['applied_milliseconds']} ms applied, "
        f"{figures['removed_milliseconds']} ms removed. Packets sent to the controller: "
        f"{figures['packets_to_controller']}.",
        style="bold",
        soft_wrap=True,
    )
    if not demo.faults:
        demo.screen.print("Every step is as expected.", style="green")
    for fault in demo.faults:
        print(f"WRONG: {fault}", file=sys.stderr)


def _listed(paths: Sequence[PodPath]) -> str:
    return ", ".join(f"{one.source} -> {one.destination} {one.port}" for one in paths) or "nothing"


def _rounded(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else round(milliseconds, 1)
