"""Represents a cluster at one moment, and derives the tenant and tier of its pods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, collapse_addresses
from types import MappingProxyType
from typing import Any, NamedTuple

from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import NAME_LABEL, Namespace, Node, Pod, PodKey, Policy, PolicyKey, RomanaPolicy
from romana_ovs.model.services import ServiceCIDR, ServiceFrontend
from romana_ovs.model.settings import Settings, TenantSource

NO_TENANT = ""
"""The tenant of pods without tenant: they communicate with their own node only."""

DEFAULT_TIER = "default"
TIER_JOINT = "/"
"""Joins the values of several tier labels; it cannot occur in a label value."""
ABSENT_TIER = "-"


class SegmentKey(NamedTuple):
    """A (tenant, tier) pair."""

    tenant: str
    tier: str


def _frozen(items: Mapping[Any, Any] | None = None) -> Mapping[Any, Any]:
    return MappingProxyType(dict(items or {}))


@dataclass(frozen=True, slots=True)
class Cluster:
    """All objects that decide about packets, in their desired state. Mappings are read-only.

    An object exists if it is in a mapping; a change makes a new Cluster (`with_object`, `without`).
    """

    settings: Settings = Settings()
    namespaces: Mapping[str, Namespace] = field(default_factory=_frozen)
    nodes: Mapping[str, Node] = field(default_factory=_frozen)
    pods: Mapping[PodKey, Pod] = field(default_factory=_frozen)
    policies: Mapping[PolicyKey, Policy] = field(default_factory=_frozen)
    service_cidrs: Mapping[str, ServiceCIDR] = field(default_factory=_frozen)
    """By name; empty for a folder of manifests, whose nodes have no proxy."""
    frontends: tuple[ServiceFrontend, ...] = ()
    """Those of Services with backends that are no pods, sorted; empty for a folder, too."""

    @property
    def service_ranges(self) -> tuple[IPv4Network, ...]:
        """The ranges of cluster addresses of Services, sorted, none inside another."""
        given = (network for cidr in self.service_cidrs.values() for network in cidr.ranges)
        return tuple(collapse_addresses((*self.settings.service_ranges, *given)))

    def with_object(self, item: Namespace | Node | Pod | Policy) -> Cluster:
        """This cluster with `item` added, or replaced by key."""
        name, key = _place(item)
        changed: dict[str, Any] = {name: _frozen({**getattr(self, name), key: item})}
        return replace(self, **changed)

    def without(self, item: Namespace | Node | Pod | Policy) -> Cluster:
        """This cluster with the object of `item`'s key gone (it may be absent already)."""
        name, key = _place(item)
        changed: dict[str, Any] = {name: _frozen({k: v for k, v in getattr(self, name).items() if k != key})}
        return replace(self, **changed)

    def namespace_labels(self, name: str) -> Labels:
        """Labels of a namespace; an undeclared one has only the label of its name."""
        namespace = self.namespaces.get(name)
        return namespace.labels if namespace is not None else Labels({NAME_LABEL: name})

    def tenant_of(self, pod: Pod) -> str:
        """The tenant that owns `pod` by `settings.tenant_source`, or `NO_TENANT`."""
        if self.settings.tenant_source is TenantSource.POD_LABEL:
            return pod.labels.get(self.settings.tenant_key, NO_TENANT)
        return self.tenant_of_namespace(pod.namespace)

    def tenant_of_namespace(self, namespace: str) -> str:
        """The tenant of a namespace by the two namespace sources, or `NO_TENANT`."""
        if self.settings.tenant_source is TenantSource.NAMESPACE_LABEL:
            return self.namespace_labels(namespace).get(self.settings.tenant_key, NO_TENANT)
        return namespace

    def tenant_of_policy(self, policy: RomanaPolicy) -> str:
        """The tenant of a Romana policy (docs/design.md section 5), or `NO_TENANT`."""
        if self.settings.tenant_source is TenantSource.POD_LABEL:
            return policy.labels.get(self.settings.tenant_key, NO_TENANT)
        return self.tenant_of_namespace(policy.namespace)

    def segment_of(self, pod: Pod) -> SegmentKey:
        """The (tenant, tier) pair of `pod`."""
        return SegmentKey(self.tenant_of(pod), tier_of(pod.labels, self.settings.tier_labels))


def tier_of(labels: Mapping[str, str], keys: tuple[str, ...]) -> str:
    """The tier that `labels` give by the configured keys, absent (or empty) ones as `-`.

    One key: its value, or `default`. Several: their values joined in configured order; all absent: `default`.
    """
    if len(keys) == 1:
        # The usual case, asked for every pod.
        return labels.get(keys[0]) or DEFAULT_TIER
    values = [labels.get(key) or ABSENT_TIER for key in keys]
    if all(value == ABSENT_TIER for value in values):
        return DEFAULT_TIER
    return TIER_JOINT.join(values)


def _place(item: Namespace | Node | Pod | Policy) -> tuple[str, object]:
    if isinstance(item, Namespace):
        return "namespaces", item.name
    if isinstance(item, Node):
        return "nodes", item.name
    if isinstance(item, Pod):
        return "pods", item.key
    return "policies", item.key
