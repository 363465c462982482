"""Remembers a pod's previous labels until its node has acknowledged a revision after the change.

A pod that was deleted by force, or has its name on another node by now, may go on running on a node that is cut off.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from romana_ovs.engine.endpoints import NumberedPod
from romana_ovs.model.labels import Labels
from romana_ovs.registry_types.report import Report

MAX_PER_NODE = 1024
"""Previous pods kept for one node; with more, the node counts as `incomplete`."""

ClassInputs = tuple[int, str, Labels]
"""The inputs of a pod's class: the number of its segment, its namespace, its labels."""


class UnacknowledgedPods:
    """The previous states of pods, by node, each until the node has acknowledged a later revision."""

    def __init__(self, begun: int) -> None:
        """The first revision of this term is `begun`: of changes before it nothing is known."""
        self._begun = begun
        self._pods: dict[str, dict[ClassInputs, tuple[NumberedPod, int]]] = {}
        self._unknown: dict[str, int] = {}

    def add(self, previous: NumberedPod, since: int) -> None:
        """Add the `previous` state of a pod that changed in revision `since`."""
        pods = self._pods.setdefault(previous.pod.node, {})
        pods[previous.segment_number, previous.pod.namespace, previous.pod.labels] = (previous, since)
        if len(pods) > MAX_PER_NODE:
            del self._pods[previous.pod.node]
            self._unknown[previous.pod.node] = since

    def expire(self, reports: Mapping[str, Report], lagging: Collection[str]) -> None:
        """Forgets what nodes that are not `lagging` have acknowledged, and all nodes without a report."""
        for node in list(self._pods):
            acknowledged = reports[node].acknowledged if node in reports and node not in lagging else 0
            kept = {inputs: entry for inputs, entry in self._pods[node].items() if entry[1] > acknowledged}
            if kept and node in reports:
                self._pods[node] = kept
            else:
                del self._pods[node]
        self._unknown = {node: since for node, since in self._unknown.items() if self._lags(node, since, reports)}

    def of(self, node: str) -> Iterable[NumberedPod]:
        """The previous states of the pods of `node`, as far as they are known."""
        return [previous for previous, _ in self._pods.get(node, {}).values()]

    def incomplete(self, node: str, reports: Mapping[str, Report]) -> bool:
        """Whether pods of `node` may have previous states that are not known here."""
        return self._lags(node, max(self._begun, self._unknown.get(node, 0)), reports)

    @staticmethod
    def _lags(node: str, since: int, reports: Mapping[str, Report]) -> bool:
        return node in reports and reports[node].acknowledged < since
