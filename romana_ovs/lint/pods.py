"""Checks pods: those without a tenant, those with the address of another one, and what decoding noted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

from romana_ovs.kube.decode.workloads import template_path
from romana_ovs.lint.context import LintContext
from romana_ovs.model.cluster import NO_TENANT
from romana_ovs.model.errors import Problem, Severity
from romana_ovs.model.objects import PodKey
from romana_ovs.model.settings import TenantSource


def without_tenant(context: LintContext) -> Iterator[Problem]:
    """Pods for which `tenant_source` finds no tenant."""
    cluster = context.cluster
    missing = f"label {cluster.settings.tenant_key}"
    if cluster.settings.tenant_source is TenantSource.NAMESPACE_LABEL:
        missing += " of its namespace"
    for key, pod in cluster.pods.items():
        if pod.networked and cluster.tenant_of(pod) == NO_TENANT:
            place = context.snapshot.locations[key]
            field = "metadata.labels" if place.kind == "Pod" else f"{template_path(place.kind)}.metadata.labels"
            reason = f"no tenant: {missing} is absent, so it talks with its own node only"
            yield place.problem(field, reason, Severity.WARNING)


def shared_addresses(context: LintContext) -> Iterator[Problem]:
    """Pods that have the address of another pod."""
    holders: dict[object, list[PodKey]] = defaultdict(list)
    for key, pod in context.cluster.pods.items():
        if pod.networked and pod.address is not None:
            holders[pod.address].append(key)
    for address, keys in holders.items():
        for key in keys[1:]:
            reason = f"{address} is the address of pod {keys[0]} too"
            yield context.snapshot.locations[key].problem("status.podIP", reason, Severity.WARNING)


def notes_of_objects(context: LintContext) -> Iterator[Problem]:
    """What decoding noted, once for all objects with the same note."""
    by_reason: dict[str, list[Problem]] = defaultdict(list)
    for item in context.snapshot.objects:
        for note in item.notes:
            by_reason[note.reason].append(note)
    for reason, notes in by_reason.items():
        more = f" (and {len(notes) - 1} more like it)" if len(notes) > 1 else ""
        yield replace(notes[0], reason=f"{reason}{more}")
