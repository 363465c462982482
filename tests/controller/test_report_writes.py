"""When a controller writes the reports of its nodes, and what is in them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

from romana_ovs.controller.api_reconciler import REPORT_SECONDS, ApiReconciler
from romana_ovs.controller.published_store import RESOURCES
from romana_ovs.controller.reconciler import Inputs
from romana_ovs.engine.node_agent import PendingAck
from romana_ovs.kube.api.messages import ListCompleted, ListStarted, ObjectsObserved, Update
from romana_ovs.kube.api.object_decoder import decoder, object_meta
from romana_ovs.kube.api.resources import CLUSTER, NODE_REPORTS, NODES
from romana_ovs.kube.api.write_executor import WriteRequest, WriteResult
from romana_ovs.kube.decode.objects import ObjectId
from romana_ovs.model.settings import Settings


@dataclass
class Node:
    """The controller of node n1 with a clock of the test's own, and an API server that takes everything at once."""

    now: float = 100.0
    reported: list[dict[str, Any]] = field(default_factory=list)
    next_check: float | None = None
    versions: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.reconciler = ApiReconciler(Settings(), None, runs_registry=False)
        listing: list[object] = []
        for resource in (*CLUSTER, *RESOURCES):
            updates = (update_of_node("n1"),) if resource == NODES else ()
            listing += [
                ListStarted(str(resource)),
                ObjectsObserved(str(resource), updates),
                ListCompleted(str(resource)),
            ]
        self.step(*listing)

    def step(self, *news: object, acks: tuple[tuple[str, PendingAck], ...] = ()) -> None:
        """One step, and those that follow from what is written in it."""
        outcome = self.reconciler.step(Inputs(news, acks, driven=frozenset({"n1"})), self.now)
        self.next_check = outcome.next_check
        for message in outcome.messages:
            if isinstance(message, WriteRequest):
                [write] = message.writes
                assert write.body is not None
                self.reported.append(write.body["status"])
                update = Update(ObjectId("NodeReport", "", "n1"), version=str(next(self.versions)), raw=write.body)
                self.step(ObjectsObserved(str(NODE_REPORTS), (update,)), WriteResult(message.number))

    def on_programmed(self, acknowledged: int, policies: str) -> None:
        """The switch of n1 has confirmed a view."""
        self.step(acks=(("n1", PendingAck(acknowledged, 0, policies)),))

    def pass_to(self, now: float) -> None:
        """Let time pass, with every step that is asked for in it."""
        while self.next_check is not None and self.next_check <= now:
            self.now = self.next_check
            self.step()
        self.now = now


def update_of_node(name: str) -> Update:
    raw = {"kind": "Node", "metadata": {"name": name, "uid": name, "resourceVersion": "1"}}
    head = object_meta(raw, NODES)
    assert head is not None
    return decoder(NODES, Settings())(raw, head)


def test_a_pending_report_is_sent_whatever_comes_between() -> None:
    """Policies alone wait a moment; a report that cannot wait comes before them, and puts them off."""
    node = Node()
    node.now += 0.2
    node.on_programmed(0, "first")
    assert node.reported[-1]["policiesDigest"] == "" and node.next_check == 100.0 + REPORT_SECONDS
    node.now += 0.3
    node.on_programmed(7, "first")
    assert node.reported[-1]["acknowledgedRevision"] == 7 and node.reported[-1]["policiesDigest"] == ""
    node.pass_to(node.now + 3 * REPORT_SECONDS)
    assert node.reported[-1]["policiesDigest"] == "first"
    assert node.next_check is None
