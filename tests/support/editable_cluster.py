"""An emulated cluster whose manifests and settings tests replace while it runs."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.model.connection import PortRef
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.matrix import Matrix
from romana_ovs_emulate.cluster_source import ManifestFolder
from romana_ovs_emulate.controller import Event, Programmed
from romana_ovs_emulate.emulation import Emulation, Plan
from romana_ovs_emulate.fabric import Fabric
from romana_ovs_emulate.nodes import Node
from romana_ovs_emulate.patience import patience
from romana_ovs_emulate.probe import Measurement, measure
from tests.support.datapath import datapath_type

NODES = 3
LOOK = 0.6
"""Seconds that a closed path is watched: hundreds of times what an open one takes. Open ones get a second chance."""
PATIENCE = patience(60.0)
"""Seconds until what takes a second on an idle machine counts as never."""


class EditableCluster:
    """Context manager: three nodes joined by `fabric`, serving `ports` in every pod, running `manifests`.

    Nothing may be said against what it shows, unless `warned`.
    """

    def __init__(
        self,
        folder: Path,
        fabric: Fabric,
        *,
        ports: tuple[str, ...],
        settings: str,
        manifests: str,
        warned: bool = False,
    ) -> None:
        self._folder = folder
        self._warned = warned
        self.ports = ports
        self._settings = settings
        self.shown = ""
        self._write(settings, manifests)
        cluster = ManifestFolder(folder, NODES).first.cluster
        self._changed = threading.Condition()
        self._programmed = -1
        plan = Plan(
            source=folder,
            nodes=tuple(sorted(cluster.nodes)),
            count=NODES,
            addresses=AddressPlan.of(cluster.settings),
            fabric=fabric,
            ports=ports,
            settings=(folder / "romana.conf",),
            datapath=datapath_type(),
        )
        self.emulation = Emulation(plan, listener=self._hear)

    def __enter__(self) -> Self:
        self.emulation.__enter__()
        try:
            self._until(-1, "the cluster never settles")
        except BaseException:
            self.emulation.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.emulation.close()

    def show(self, settings: str, manifests: str) -> None:
        """Replace everything, and return when it is programmed. Other settings need another start of the controller."""
        if settings != self._settings:
            self.emulation.stop_controller()
            self._write(settings, manifests)
            self._settings = settings
            self.start_controller()
        else:
            before = self.emulation.state.generation
            self._write(settings, manifests)
            self._until(before, "the change is never programmed")

    def restart_controller(self) -> None:
        """End the controller and start it over what the switches have; returns when it has found all as it wants it."""
        self.emulation.stop_controller()
        self.start_controller()

    def start_controller(self) -> None:
        """Start the ended controller; returns when everything is programmed."""
        self._programmed = -1
        self.emulation.start_controller()
        self._until(-1, "the controller never settles")

    def expected(self) -> Matrix:
        """What a fresh reading of the manifests expects."""
        ports = [PortRef.parse(port) for port in self.ports]
        return ManifestFolder(self._folder, NODES, self.emulation.addresses).expected(ports)

    def measure(self, expected: Matrix) -> Measurement:
        """Every pair of pods by every port, with real packets."""
        emulation = self.emulation
        return measure(emulation.pods, self.ports, expected=expected, flush_sctp=emulation.flush_sctp, seconds=LOOK)

    def pod(self, key: str) -> str:
        """The address of a pod."""
        return self.emulation.pods[PodKey(key)].place.address

    def flows(self) -> dict[str, list[str]]:
        """What each node's switch has, without counters, sorted."""
        return {
            name: sorted(node.ofctl("dump-flows", "--no-stats").splitlines())
            for name, node in self.emulation.nodes.items()
        }

    def _write(self, settings: str, manifests: str) -> None:
        (self._folder / "romana.conf").write_text(settings)
        fresh = self._folder / ".fresh"
        fresh.write_text(manifests)
        fresh.rename(self._folder / "all.yaml")

    def _hear(self, event: Event) -> None:
        with self._changed:
            if isinstance(event, Programmed):
                self._programmed = event.generation
            self._changed.notify_all()

    def _until(self, later_than: int, complaint: str) -> None:
        """Return once a generation later than that is programmed and all its pods run."""
        emulation = self.emulation

        def done() -> bool:
            generation = emulation.state.generation
            return later_than < generation <= self._programmed and emulation.settled

        with self._changed:
            came = self._changed.wait_for(done, PATIENCE)
        state = emulation.state
        assert came, (
            f"{complaint}: generation {state.generation}, programmed {self._programmed}, "
            f"problems {state.problems}, refused {state.refused}\n{emulation.controller.log_tail()}"
        )
        assert self._warned or not state.refused, state.refused


def identity_of(node: Node, address: str) -> int:
    """The identity of a pod, as its own node's tables say."""
    shown = node.ofctl("dump-flows", "--no-stats")
    found = re.search(rf"nw_src={re.escape(address)} actions=.*set_field:(0x[0-9a-f]+)->reg1\b", shown)
    assert found is not None
    return int(found[1], 16)
