"""Converts the state files of version 0.1.0, which have another format.

Every address, host number and class stays as it was, so that switches get no flow-mods after the upgrade.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from romana_ovs.addressing.allocator import Allocator
from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.kube.published import published_to_json
from romana_ovs.model.errors import InputError
from romana_ovs.model.labels import Labels
from romana_ovs.policy.class_record import ClassRecord
from romana_ovs.registry_types.published import Claim, ClassSet, Published, Stage

OLD_FORMAT, FORMAT = 1, 1
"""Versions of the old and of the present format; only the present one has `parts`."""
FIRST = 1
"""The epoch and revision of numbers from an old file."""


def current_state(state: Mapping[str, Any], plan: AddressPlan) -> Mapping[str, Any]:
    """`state` in the present format.

    Raises AddressError when it was written under another plan, InputError when it is no state of ours.
    """
    if "parts" in state:
        return state
    addresses, identities = state.get("addresses"), state.get("identities")
    if state.get("format") != OLD_FORMAT or not isinstance(addresses, Mapping) or not isinstance(identities, Mapping):
        raise InputError.because(f"the saved state is not of format {FORMAT}", field="format")
    allocator = Allocator.from_json(addresses, plan)
    try:
        published = _published(allocator, addresses, identities)
    except (KeyError, TypeError, ValueError) as broken:
        raise InputError.because(f"not what was saved: {broken}", field="identities") from broken
    nodes = sorted({*allocator.hosts, *(end.node for end in allocator.endpoints.values())})
    agents = {node: _agent_state(node, allocator.hosts.get(node), addresses) for node in nodes}
    return {"format": FORMAT, "parts": agents, "published": published_to_json(published)}


def _published(allocator: Allocator, addresses: Mapping[str, Any], identities: Mapping[str, Any]) -> Published:
    record = ClassRecord.from_json(identities.get("classes", {}))
    foreign = {end.address: Claim(end.node, granted=True) for end in allocator.endpoints.values() if end.foreign}
    return Published(
        plan=allocator.plan,
        epoch=FIRST,
        revision=FIRST,
        blocks=allocator.tenants,
        indexes=MappingProxyType({key: allocator.indexes(key) for key in allocator.segments}),
        next_class=MappingProxyType(dict(record.next)),
        hosts=allocator.hosts,
        free_hosts=tuple(int(number) for number in addresses["host_numbers"]),
        foreign=MappingProxyType(dict(sorted(foreign.items()))),
        class_sets=MappingProxyType(_class_sets(record, identities.get("remnants", ()))),
    )


def _class_sets(record: ClassRecord, tombstones: Any) -> dict[str, ClassSet]:
    class_sets = {
        name: ClassSet(name, requirements=MappingProxyType(dict.fromkeys(requirements, Stage.ACTIVE)))
        for name, requirements in record.requirements.items()
    }
    classes: dict[str, dict[int, frozenset[Any]]] = {}
    for entry in record.classes:
        classes.setdefault(entry.namespace, {})[entry.identity] = entry.matching
    tombstones_of: dict[str, list[tuple[int, Labels]]] = {}
    for segment, name, labels in tombstones:
        tombstones_of.setdefault(name, []).append((int(segment), Labels(labels)))
    for name in sorted({*class_sets, *classes, *tombstones_of}):
        of_namespace = classes.get(name, {})
        class_sets[name] = replace(
            class_sets.get(name, ClassSet(name)),
            classes=MappingProxyType(dict(sorted(of_namespace.items()))),
            overrides=MappingProxyType(
                {pod: number for pod, number in sorted(record.overrides.items()) if number in of_namespace}
            ),
            tombstones=tuple(tombstones_of.get(name, ())),
            epoch=FIRST,
            revision=FIRST,
        )
    return dict(sorted(class_sets.items()))


def _agent_state(node: str, host: int | None, addresses: Mapping[str, Any]) -> dict[str, Any]:
    """The state of one node's agent: the endpoints on it, and the free endpoint numbers of its shares."""
    node_addresses = {
        "format": addresses["format"],
        "plan": addresses["plan"],
        "freed": addresses["freed"],
        "shares": [share for share in addresses["shares"] if share[2] == host],
        "blocked": addresses["blocked"],
        "endpoints": [end for end in addresses["endpoints"] if end[2] == node],
    }
    return {
        "format": FORMAT,
        "node": node,
        "addresses": node_addresses,
        "worn": [],
        "acknowledged": FIRST,
        "released": FIRST,
    }
