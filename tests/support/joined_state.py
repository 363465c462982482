"""From a registry and its nodes to one process for all: a state that `World` goes on from, every number as it was.

So tests compare what a registry and its nodes have come to with what one process would do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from romana_ovs.engine.class_registry import record_of
from romana_ovs.engine.node_agent import NodeAgent
from romana_ovs.engine.world import FORMAT
from romana_ovs.policy.published import Published


def joined_state(published: Published, nodes: Iterable[NodeAgent]) -> dict[str, Any]:
    """The state of the `World` that has what the registry `published` and the endpoints of all `nodes`."""
    own = [node.registry.to_json() for node in nodes]
    plan = published.plan
    remnants = [
        [segment, name, dict(sorted(labels.items()))]
        for name, classes in published.namespaces.items()
        for segment, labels in classes.tombstones
    ]
    return {
        "format": FORMAT,
        "addresses": {
            "format": 1,
            "plan": [str(plan.network), plan.segment_bits, plan.node_bits, plan.endpoint_bits],
            "freed": 0,
            "runs": {tenant: [list(run) for run in runs] for tenant, runs in published.blocks.items()},
            "segments": [[*key, *indexes] for key, indexes in published.indexes.items()],
            "hosts": dict(published.hosts),
            "host_numbers": [*published.free_hosts, *sorted(published.retired_hosts)],
            "leaving": [],
            "shares": _all("shares", own),
            "blocked": sorted({value for each in own for value in each["blocked"]}),
            "endpoints": _all("endpoints", own),
        },
        "identities": {"classes": record_of(published).to_json(), "remnants": remnants},
    }


def _all(name: str, parts: Iterable[Mapping[str, Any]]) -> list[Any]:
    return sorted(entry for part in parts for entry in part[name])
