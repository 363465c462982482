"""A controller is ready when the bridges that it programs have their tables."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from romana_ovs.controller.readiness import not_ready_node, not_ready_registry
from romana_ovs.sync.session import SessionState


def session(state: SessionState, confirmed: object = None) -> Any:
    return SimpleNamespace(state=state, confirmed=confirmed)


SYNCED = session(SessionState.SYNCED, object())


@pytest.mark.parametrize(
    ("node", "driven", "sessions", "reason"),
    [
        (None, set(), {}, ""),
        ("a", set(), {}, "Open vSwitch has no bridge of node a (external_ids:romana-node)"),
        ("a", {"a"}, {}, "the bridge of node a is not connected"),
        ("a", {"a"}, {"a": session(SessionState.SYNCED)}, "the bridge of node a has not confirmed its tables yet"),
        ("a", {"a"}, {"a": session(SessionState.FAILED, object())}, "the bridge of node a refuses its tables"),
        ("a", {"a"}, {"a": SYNCED}, ""),
        (None, {"b", "a"}, {"b": SYNCED}, "the bridge of node a is not connected"),
    ],
)
def test_a_node_is_ready_with_its_tables(
    node: str | None, driven: set[str], sessions: dict[str, Any], reason: str
) -> None:
    assert not_ready_node(node, frozenset(driven), sessions) == reason


def test_a_registry_is_ready_with_the_objects() -> None:
    assert not_ready_registry(listed=True) == ""
    assert not_ready_registry(listed=False) == "the objects of the API server are not listed yet"
