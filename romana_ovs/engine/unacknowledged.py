"""Remembers a pod's previous labels until its node has acknowledged a revision after the change.

A pod that was deleted by force, or has its name on another node by now, may go on running on a node that is cut off.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from romana_ovs.engine.endpoints import Identified
from romana_ovs.model.labels import Labels
from romana_ovs.policy.published import Report

MAX_PER_NODE = 1024
"""For one node; beyond that it may take its pods for anything."""

ClassInputs = tuple[int, str, Labels]
"""All of a pod that decides its class: the number of its segment, its namespace, its labels."""


class UnacknowledgedPods:
    """The former pods of every node, each until the node has acknowledged what was published since."""

    def __init__(self, begun: int) -> None:
        """Nothing is known of what was before revision `begun`."""
        self._begun = begun
        self._held: dict[str, dict[ClassInputs, tuple[Identified, int]]] = {}
        self._unknown: dict[str, int] = {}

    def note(self, was: Identified, since: int) -> None:
        """The pod is no longer what it `was`, as of revision `since`."""
        held = self._held.setdefault(was.pod.node, {})
        held[was.number, was.pod.namespace, was.pod.labels] = (was, since)
        if len(held) > MAX_PER_NODE:
            del self._held[was.pod.node]
            self._unknown[was.pod.node] = since

    def follow(self, reports: Mapping[str, Report], away: Collection[str]) -> None:
        """Forgets what nodes have heard of. Who has no report goes by nothing that is published."""
        for node in list(self._held):
            heard = reports[node].acknowledged if node in reports and node not in away else 0
            kept = {look: each for look, each in self._held[node].items() if each[1] > heard}
            if kept and node in reports:
                self._held[node] = kept
            else:
                del self._held[node]
        self._unknown = {node: since for node, since in self._unknown.items() if self._lags(node, since, reports)}

    def of(self, node: str) -> Iterable[Identified]:
        """The former pods of `node`, as far as they are known."""
        return [was for was, _ in self._held.get(node, {}).values()]

    def incomplete(self, node: str, reports: Mapping[str, Report]) -> bool:
        """Whether `node` may take its pods for what is not known here."""
        return self._lags(node, max(self._begun, self._unknown.get(node, 0)), reports)

    @staticmethod
    def _lags(node: str, since: int, reports: Mapping[str, Report]) -> bool:
        return node in reports and reports[node].acknowledged < since
