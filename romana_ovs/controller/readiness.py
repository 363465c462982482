"""Decides whether the controller does its work: whether the bridges that it programs have their tables.

Nothing here depends on the API server: a node whose bridge is programmed goes on without it, and is ready.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from romana_ovs.sync.session import SessionState

if TYPE_CHECKING:  # It imports Ryu.
    from romana_ovs.controller.session import Session


def not_ready_registry(*, listed: bool) -> str:
    """Why a process that is only a registry is not ready, in a sentence; empty when it is: it may lead or stand by."""
    return "" if listed else "the objects of the API server are not listed yet"


def not_ready_node(node: str | None, driven: frozenset[str], sessions: Mapping[str, Session]) -> str:
    """Why not all of the bridges that a controller programs (those of the nodes `driven`) have their tables.

    `node` is the one node that the controller is for, None for all. Empty when they have.
    """
    if node is not None and node not in driven:
        return f"Open vSwitch has no bridge of node {node} (external_ids:romana-node)"
    return "; ".join(filter(None, (_not_programmed(each, sessions.get(each)) for each in sorted(driven))))


def _not_programmed(node: str, session: Session | None) -> str:
    if session is None:
        return f"the bridge of node {node} is not connected"
    if session.state is SessionState.FAILED:
        return f"the bridge of node {node} refuses its tables"
    return "" if session.confirmed is not None else f"the bridge of node {node} has not confirmed its tables yet"
