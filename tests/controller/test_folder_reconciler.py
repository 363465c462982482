"""A folder of manifests, step by step: what waits for switches, and what no longer does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from romana_ovs.controller.folder_reconciler import FolderReconciler
from romana_ovs.controller.manifests import FolderRead
from romana_ovs.controller.reconciler import Inputs, Outcome
from romana_ovs.kube.manifests.folder import FolderReader
from romana_ovs.model.errors import InputError
from romana_ovs.model.settings import Settings
from romana_ovs.switch.bridges import Bridge
from tests.support.manifests import TWO_NODES, placed_pod

FROM_ROLE_A = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: a}
spec:
  podSelector: {}
  ingress: [{from: [{podSelector: {matchLabels: {role: a}}}]}]
"""
"""Asks for a label that nothing has told apart before."""
BOTH = frozenset({"node1", "node2"})
NO_BRIDGES: Mapping[str, Bridge] = {}


class Steps:
    """A reconciler of `folder` with two nodes, whose switches have confirmed a first state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reconciler = FolderReconciler(Settings(), None, default_nodes=2)
        self.write("nodes", TWO_NODES)
        self.write("pods", placed_pod("x", "node1", role="a") + placed_pod("y", "node2", role="b"))
        self.read()
        while self.confirm(*BOTH).views_changed:
            pass

    def write(self, name: str, text: str) -> None:
        (self.folder / f"{name}.yaml").write_text(text)

    def read(self) -> Outcome:
        """A step with the folder as it is now."""
        content = FolderReader(self.folder, Settings()).read()
        return self.reconciler.step(Inputs(received=(FolderRead(content, 0.0),), awaited=BOTH, bridges=NO_BRIDGES), 1.0)

    def confirm(self, *nodes: str, awaited: frozenset[str] = BOTH) -> Outcome:
        """A step with confirmations of the present view by these nodes."""
        acks = [(node, ack) for node in nodes if (ack := self.reconciler.pending_ack(node)) is not None]
        inputs = Inputs(acks=tuple(acks), awaited=awaited, bridges=NO_BRIDGES)
        may_be_slow = self.reconciler.may_be_slow(inputs)
        outcome = self.reconciler.step(inputs, 1.0)
        assert may_be_slow or not outcome.views_changed
        return outcome


@pytest.fixture
def steps(tmp_path: Path) -> Steps:
    return Steps(tmp_path)


def test_make_before_break_waits_for_awaited_switches(steps: Steps) -> None:
    steps.write("policy", FROM_ROLE_A)
    assert steps.read().views_changed and steps.reconciler.unsettled
    assert not steps.confirm("node1").views_changed, "node2 has not confirmed"
    assert steps.confirm("node2").views_changed


def test_nobody_waits_for_a_switch_that_is_gone(steps: Steps) -> None:
    """It has disconnected, or refuses its tables, in the midst of a step."""
    steps.write("policy", FROM_ROLE_A)
    steps.read()
    steps.confirm("node1")
    only = frozenset({"node1"})
    assert steps.confirm(awaited=only).views_changed
    for _ in range(5):
        steps.confirm("node1", awaited=only)
    assert not steps.reconciler.unsettled and not steps.reconciler.agents.needs_registry


def test_an_unreadable_folder_leaves_the_cluster_in_force(steps: Steps) -> None:
    before = steps.reconciler.snapshot
    unreadable = FolderRead(InputError.because("cannot be read", file="folder"), 0.0)
    assert not steps.reconciler.step(Inputs(received=(unreadable,), awaited=BOTH), 1.0).views_changed
    assert steps.reconciler.snapshot is before and steps.reconciler.object_problems == ("folder: cannot be read",)
    assert not steps.confirm().views_changed and steps.reconciler.object_problems
    assert steps.read().views_changed is False
    assert not steps.reconciler.object_problems


def test_confirmations_take_no_long_computation(steps: Steps) -> None:
    """They are handled beside the switches' messages (docs/hazards.md D10)."""
    confirmed = Inputs(awaited=BOTH, bridges=NO_BRIDGES)
    assert not steps.reconciler.may_be_slow(confirmed)
    assert steps.reconciler.may_be_slow(replace(confirmed, resync=True))
    assert steps.reconciler.may_be_slow(replace(confirmed, bridges={}))
    assert steps.reconciler.may_be_slow(replace(confirmed, received=(FolderRead(InputError(), 0.0),)))
    steps.write("policy", FROM_ROLE_A)
    steps.read()
    assert steps.reconciler.may_be_slow(confirmed), "a step of make-before-break waits for them"
    assert FolderReconciler(Settings(), None, default_nodes=2).may_be_slow(confirmed)
