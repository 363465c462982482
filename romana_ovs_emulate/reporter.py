"""Declares how an emulation reports its nodes and pods to an API server, and a reporter that does nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from romana_ovs.model.objects import PodKey
from romana_ovs_emulate.nodes import Node
from romana_ovs_emulate.pods import PodPlacement
from romana_ovs_emulate.runs import Run


class Reporter(Protocol):
    """Reports the nodes and pods of an emulation; its methods are called from several threads."""

    def start(self, run: Run, nodes: Mapping[str, Node]) -> None:
        """The nodes of `run` are up. Raises SetupError."""

    def is_terminating(self, key: PodKey, uid: str = "") -> bool:
        """Whether the pod of this UID (empty: whichever has the name) is terminating, as the API server says."""

    def report_running(self, running: Mapping[PodKey, PodPlacement]) -> None:
        """These pods run, with their ports on their bridges."""

    def report_failed(self, reasons: Mapping[PodKey, str]) -> None:
        """These pods, and no others, cannot be started, and why."""

    def close(self) -> None:
        """The emulation ends. Idempotent."""


class NoReporter:
    """Reports nothing: the cluster is a folder of manifests."""

    def start(self, run: Run, nodes: Mapping[str, Node]) -> None:
        """Nothing to do."""

    def is_terminating(self, key: PodKey, uid: str = "") -> bool:
        """False: pods end when they leave the folder."""
        return False

    def report_running(self, running: Mapping[PodKey, PodPlacement]) -> None:
        """Nothing to do."""

    def report_failed(self, reasons: Mapping[PodKey, str]) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""
