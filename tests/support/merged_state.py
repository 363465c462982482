"""Merges the state of a registry and its node agents into one for an `Engine`, with all numbers as they are.

Tests compare the results of a registry and its agents with those of one engine for all nodes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from romana_ovs.engine.node_agent import NodeAgent
from romana_ovs.kube.published import published_to_json
from romana_ovs.registry_types.published import Published


def merged_state(published: Published, nodes: Iterable[NodeAgent]) -> dict[str, Any]:
    """The state of the `Engine` that has what the registry `published` and the endpoints of all `nodes`."""
    parts = {node.node: node.to_json() for node in nodes}
    return {"format": 1, "parts": parts, "published": published_to_json(published)}
