"""Encodes published numbers and reports as objects of the API server."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from romana_ovs.model.derived import Derived, DerivedMap
from romana_ovs.model.errors import InputError, Problem
from romana_ovs.policy.requirements import requirement_sort_key
from romana_ovs.policy.view import LabelRequirement
from romana_ovs.registry_types.published import ClassSet, Published
from romana_ovs.registry_types.report import Report

T = TypeVar("T")

API_VERSION = "romana.io/v1"
ALLOCATION = "cluster"
"""The name of the one Allocation."""
COMPLETE_MARKER = "complete.romana.io"
"""The name of the ClassSet with the revision up to which all others are written; no namespace can have it."""
MAX_OBJECT_BYTES = 1_000_000
"""Bytes of JSON in one object; etcd accepts 1.5 MiB, and the API server adds fields."""
MAX_OVERRIDES = 2000
"""Overrides in one ClassSet. A pod whose override is left out takes the lowest class with its labels."""
MAX_OVERRIDES_TEXT, MAX_TOMBSTONES_TEXT = 200_000, 100_000
"""Characters of overrides and of tombstones in one ClassSet: names and labels of pods must not crowd out the rest."""


def allocation_object(published: Published, *, limit: int | None = MAX_OBJECT_BYTES) -> dict[str, Any]:
    """The Allocation of `published`. Raises InputError when it would take more than `limit` bytes of JSON."""
    plan = published.plan
    spec = {
        "epoch": published.epoch,
        "writer": published.writer,
        "revision": published.revision,
        "plan": {
            "network": str(plan.network),
            "segmentBits": plan.segment_bits,
            "hostBits": plan.host_bits,
            "endpointBits": plan.endpoint_bits,
        },
        "tenants": _tenants(published),
        "hosts": dict(sorted(published.hosts.items())),
        "freeHosts": list(published.free_hosts),
        "retiredHosts": sorted(published.retired_hosts),
        "foreignAddresses": _foreign(published),
    }
    return _object("Allocation", ALLOCATION, spec, limit)


def _tenants(published: Published) -> list[dict[str, Any]]:
    tiers: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for key, indexes in sorted(published.indexes.items()):
        tier: dict[str, Any] = {"name": key.tier, "indexes": list(indexes)}
        if indexes[0] in published.next_class:
            tier["nextClass"] = published.next_class[indexes[0]]
        tiers[key.tenant].append(tier)
    return [
        {"name": tenant, "segmentRanges": [list(block) for block in blocks], "tiers": tiers[tenant]}
        for tenant, blocks in sorted(published.blocks.items())
    ]


def _foreign(published: Published) -> list[dict[str, Any]]:
    nodes: dict[str, dict[str, Any]] = {}
    for address, claim in sorted(published.foreign.items()):
        entry = nodes.setdefault(claim.node, {"node": claim.node, "granted": [], "claimed": []})
        entry["granted" if claim.granted else "claimed"].append(str(address))
    return [nodes[name] for name in sorted(nodes)]


def class_set_object(classes: ClassSet, *, limit: int | None = MAX_OBJECT_BYTES) -> dict[str, Any]:
    """The ClassSet of a namespace. Raises InputError when it would take more than `limit` bytes of JSON."""
    requirements = sorted(classes.requirements, key=requirement_sort_key)
    overrides = dict(_limited(MAX_OVERRIDES_TEXT, sorted(classes.overrides.items())[:MAX_OVERRIDES]))
    tombstones = [
        {"segment": segment, "labels": dict(sorted(labels.items()))} for segment, labels in classes.tombstones
    ]
    spec = {
        "epoch": classes.epoch,
        "revision": classes.revision,
        "requirements": [
            {**_requirement(requirement), "stage": classes.requirements[requirement].value}
            for requirement in requirements
        ],
        "classes": [_class(number, classes, requirements) for number in sorted(classes.classes)],
        "overrides": {pod.partition("/")[2]: number for pod, number in overrides.items()},
        "tombstones": [*_limited(MAX_TOMBSTONES_TEXT, tombstones[::-1])][::-1],
        "retired": sorted(classes.retired),
    }
    return _object("ClassSet", classes.namespace, spec, limit)


def _limited(limit: int, values: Iterable[T]) -> Iterator[T]:
    """As many of the first `values` as fit into `limit` characters of JSON."""
    for value in values:
        limit -= len(json.dumps(value)) + 1
        if limit < 0:
            return
        yield value


def _class(number: int, classes: ClassSet, requirements: list[LabelRequirement]) -> dict[str, Any]:
    """A class: `matches` has a bit for each requirement, the lowest for the first one, in hexadecimal."""
    bits = sum(
        1 << position for position, requirement in enumerate(requirements) if requirement in classes.classes[number]
    )
    entry: dict[str, Any] = {"id": number, "matches": f"{bits:x}"}
    if number in classes.pending:
        entry["pending"] = True
    if number in classes.retiring:
        entry["retiring"] = True
    return entry


def _requirement(requirement: LabelRequirement) -> dict[str, Any]:
    return (
        {"key": requirement.key}
        if requirement.values is None
        else {"key": requirement.key, "values": sorted(requirement.values)}
    )


def marker_object(published: Published) -> dict[str, Any]:
    """The ClassSet that marks this revision as complete: all others are written up to it."""
    return _object(
        "ClassSet", COMPLETE_MARKER, {"epoch": published.epoch, "revision": published.revision, "complete": True}
    )


SCTP_TRACKED = {True: "Ports", False: "Addresses"}
"""Values of sctpTracking, by whether SCTP is tracked by ports."""


def report_object(report: Report) -> dict[str, Any]:
    """The NodeReport of `report`; it only has a status."""
    status: dict[str, Any] = {
        "acknowledgedRevision": report.acknowledged,
        "releasedRevision": report.released,
        "exhaustedSegments": [
            {"tenant": key.tenant, "tier": key.tier, "indexes": count}
            for key, count in sorted(report.exhausted_segments.items())
        ],
        "foreignAddresses": [str(address) for address in sorted(report.foreign)],
        "conflictingAddresses": [str(address) for address in sorted(report.conflicting)],
        "policiesDigest": report.policies,
        "tenantsAtConnectionLimit": sorted(report.observed.tenants_at_limit),
    }
    if report.observed.sctp_ports is not None:
        status["sctpTracking"] = SCTP_TRACKED[report.observed.sctp_ports]
    return _check_size(
        {
            "apiVersion": API_VERSION,
            "kind": "NodeReport",
            "metadata": {"name": report.node},
            "spec": {},
            "status": status,
        }
    )


def _object(kind: str, name: str, spec: dict[str, Any], limit: int | None = MAX_OBJECT_BYTES) -> dict[str, Any]:
    return _check_size({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}, limit)


def _check_size(raw: dict[str, Any], limit: int | None = MAX_OBJECT_BYTES) -> dict[str, Any]:
    size = len(json.dumps(raw, separators=(",", ":"))) if limit is not None else 0
    if limit is not None and size > limit:
        reason = f"it would have {size} bytes, and the API server accepts about {limit}"
        raise InputError(Problem(reason, kind=raw["kind"], name=raw["metadata"]["name"]))
    return raw


def published_to_json(published: Published) -> dict[str, Any]:
    """`published` in plain values of JSON, for a state file: its objects, however large."""
    sets = [class_set_object(classes, limit=None) for classes in published.class_sets.values()]
    return {"allocation": allocation_object(published, limit=None), "classSets": sets}


class PublishedJson:
    """`published_to_json` as text; only objects that changed since the last call are encoded again."""

    def __init__(self, write: Callable[[object], str]) -> None:
        """`write` encodes JSON."""
        self._write = write
        self._text: Derived[str] = Derived()
        self._sets: DerivedMap[str, str] = DerivedMap()

    def of(self, published: Published) -> str:
        """The text of `published`."""
        return self._text.get((published,), self._encode)

    def _encode(self, published: Published) -> str:
        sets = self._sets.update(published.class_sets, self._encode_class_set)
        allocation = self._write(allocation_object(published, limit=None))
        return f'{{"allocation":{allocation},"classSets":[{",".join(sets.values())}]}}'

    def _encode_class_set(self, classes: ClassSet) -> str:
        return self._write(class_set_object(classes, limit=None))
