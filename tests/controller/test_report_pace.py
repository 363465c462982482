"""What a controller tells of its nodes, and when."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

from romana_ovs.controller.api_reconciler import REPORT_SECONDS, ApiReconciler
from romana_ovs.controller.published_store import RESOURCES
from romana_ovs.engine.node_agent import Acknowledgement
from romana_ovs.engine.node_agents import NodeAgents, PendingAck
from romana_ovs.kube.api.messages import ListCompleted, ListStarted, ObjectsObserved, Update
from romana_ovs.kube.api.resources import NODE_REPORTS
from romana_ovs.kube.api.write_executor import WriteRequest, WriteResult
from romana_ovs.kube.cache.cluster_cache import ClusterCache
from romana_ovs.kube.decode.objects import ObjectId
from romana_ovs.model import objects
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.settings import Settings


@dataclass
class Node:
    """The duties of node n1 with a clock of the test's own, and an API server that takes everything at once."""

    now: float = 100.0
    told: list[dict[str, Any]] = field(default_factory=list)
    alarms: list[float] = field(default_factory=list)
    versions: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.parts = NodeAgents(Settings())
        self.duties = ApiReconciler(
            Settings(),
            self.parts,
            ClusterCache(Settings()),
            self,
            registers=False,
            clock=lambda: self.now,
        )
        for resource in RESOURCES:
            self.duties.observe_messages([ListStarted(str(resource)), ListCompleted(str(resource))])
        self.duties.step(Cluster().with_object(objects.Node("n1")), {"n1"})
        self.duties.report()

    def schedule_round(self, after: float) -> None:
        self.alarms.append(self.now + after)

    def wake(self, after: float) -> None:
        pass

    def send(self, message: object) -> None:
        if isinstance(message, WriteRequest):
            [write] = message.writes
            assert write.body is not None
            self.told.append(write.body["status"])
            update = Update(ObjectId("NodeReport", "", "n1"), version=str(next(self.versions)), raw=write.body)
            self.duties.observe_messages([ObjectsObserved(str(NODE_REPORTS), (update,)), WriteResult(message.number)])

    def on_programmed(self, acknowledged: int, policies: str) -> None:
        """The switch of n1 has something, and there is a look at what to tell."""
        self.parts.on_programmed("n1", PendingAck(Acknowledgement(acknowledged, 0), policies))
        self.duties.report()

    def pass_to(self, now: float) -> None:
        """Let time pass, with every alarm that rings meanwhile."""
        while (due := min(self.alarms, default=now + 1)) <= now:
            self.alarms.remove(due)
            self.now = due
            self.duties.report()
        self.now = now


def test_what_waits_is_told_whatever_is_told_in_between() -> None:
    """Policies alone wait a moment; a report that cannot wait comes before them, and puts them off."""
    node = Node()
    node.now += 0.2
    node.on_programmed(0, "first")
    assert node.told[-1]["policiesDigest"] == "" and node.alarms == [node.now + REPORT_SECONDS]
    node.now += 0.3
    node.on_programmed(7, "first")
    assert node.told[-1]["acknowledgedRevision"] == 7 and node.told[-1]["policiesDigest"] == ""
    node.pass_to(node.now + 3 * REPORT_SECONDS)
    assert node.told[-1]["policiesDigest"] == "first"
    assert node.alarms == []
