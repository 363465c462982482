"""Who is told of the nodes and pods of an emulation: an API server, or nobody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from romana_ovs.model.objects import PodKey
from romana_ovs_emulate.nodes import Node
from romana_ovs_emulate.pods import PodPlace
from romana_ovs_emulate.runs import Run


class Reporter(Protocol):
    """Who tells an API server of the nodes and pods of an emulation; its methods are called from several threads."""

    def start(self, run: Run, nodes: Mapping[str, Node]) -> None:
        """The nodes of `run` are up. Raises SetupError."""

    def ending(self, key: PodKey, uid: str = "") -> bool:
        """Whether the pod of this UID (empty: whichever has the name) is to end, whatever the controller says."""

    def ran(self, running: Mapping[PodKey, PodPlace]) -> None:
        """These pods run, with their ports on their bridges."""

    def failed(self, reasons: Mapping[PodKey, str]) -> None:
        """These pods, and no others, cannot be started, and why."""

    def close(self) -> None:
        """The emulation ends. Idempotent."""


class NoReporter:
    """Nobody is told: the cluster comes from a folder."""

    def start(self, run: Run, nodes: Mapping[str, Node]) -> None:
        """Nothing to do."""

    def ending(self, key: PodKey, uid: str = "") -> bool:
        """No pod ends but by the folder."""
        return False

    def ran(self, running: Mapping[PodKey, PodPlace]) -> None:
        """Nothing to do."""

    def failed(self, reasons: Mapping[PodKey, str]) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""
