"""The view of one node with two tenants, `a` and `b`, and what is resolved from it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import Any

from romana_ovs.model.cluster import Cluster, SegmentKey, tier_of
from romana_ovs.model.identity import identity, whole_segments
from romana_ovs.model.labels import EVERYTHING, Labels, Selector
from romana_ovs.model.objects import (
    NAME_LABEL,
    ContainerPort,
    Direction,
    PodKey,
    PolicyPeer,
    PolicyRule,
)
from romana_ovs.model.settings import Settings
from romana_ovs.policy.normalise import normalise
from romana_ovs.policy.rules import NormalPolicy
from romana_ovs.policy.view import (
    ClassInfo,
    ClientGroup,
    LabelRequirement,
    LocalPod,
    NodePermissions,
    NodeView,
    ServerGroup,
)
from tests.support.builders import policy

IN, OUT = Direction.INGRESS, Direction.EGRESS
WEB = Selector.of({"app": "web"})
IS_WEB = LabelRequirement("app", frozenset({"web"}))
TIERS = (
    ("a", "front", 16),
    ("a", "back", 17),
    ("a", "default", 18),
    ("b", "front", 32),
    ("kube-system", "default", 48),
)


def segments() -> dict[SegmentKey, int]:
    """The segment index of every tier."""
    return {SegmentKey(tenant, tier): number for tenant, tier, number in TIERS}


def local_pod(name: str, *, ports: tuple[ContainerPort, ...] = (), tenant: str = "", **labels: str) -> LocalPod:
    """A pod on the node, in the segment of its labels."""
    namespace = name.partition("/")[0]
    segment = SegmentKey(tenant or namespace, tier_of(labels, ("tier",)))
    return LocalPod(
        PodKey(name),
        namespace,
        Labels(labels),
        segment,
        identity(segments().get(segment, 99), 1),
        IPv4Address("10.1.0.1"),
        mac="0a:58:0a:01:00:01",
        ofport=1,
        ports=ports,
    )


def normal_policy(
    name: str,
    *rules: PolicyRule,
    egress: tuple[PolicyRule, ...] = (),
    on: Selector = EVERYTHING,
    directions: frozenset[Direction] = frozenset({IN}),
    settings: Settings | None = None,
) -> NormalPolicy:
    """A NetworkPolicy for pods of `on`, in its normal form."""
    found = policy(name, on, ingress=rules, egress=egress, directions=directions)
    return normalise(found, Cluster(settings=settings or Settings()))


def view(*pods: LocalPod, policies: tuple[Any, ...] = (), settings: Settings | None = None, **changes: Any) -> NodeView:
    """The node with these pods; in every segment, class 1 is not `app=web` and class 2 is."""
    classes = {
        identity(number, position): ClassInfo(tenant, MappingProxyType({IS_WEB: truth}))
        for tenant, _, number in TIERS
        for position, truth in ((1, False), (2, True))
    }
    made = NodeView(
        settings=settings or Settings(),
        node="n",
        host=1,
        pods=pods,
        tenants={"a": (whole_segments(16, 4),), "b": (whole_segments(32, 1),), "kube-system": (whole_segments(48, 1),)},
        segments=segments(),
        classes=classes,
        policies=policies,
        namespaces={name: Labels({NAME_LABEL: name}) for name in ("a", "b", "kube-system")},
    )
    return replace(made, **changes)


def server(permissions: NodePermissions, name: str) -> ServerGroup:
    """The server permissions of a pod."""
    return next(group for group in permissions.servers if group.number == permissions.members[PodKey(name)].server)


def client(permissions: NodePermissions, name: str) -> ClientGroup:
    """The client permissions of a pod."""
    return next(group for group in permissions.clients if group.number == permissions.members[PodKey(name)].client)


def from_pods(pods: Selector = EVERYTHING, namespaces: Selector | None = None) -> PolicyRule:
    """A rule with one peer."""
    return PolicyRule((PolicyPeer(pods=pods, namespaces=namespaces),))
