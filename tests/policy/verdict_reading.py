"""Node views of generated clusters, and what their permissions mean for a packet: a reading without OpenFlow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from romana_ovs.model.cluster import Cluster, SegmentKey
from romana_ovs.model.connection import Connection, ConnectionEnd, PortRef
from romana_ovs.model.identity import OUTSIDE, IdentityMatch, node_identity, whole_segments
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.classes import ClassAllocator
from romana_ovs.policy.normalise import normalise
from romana_ovs.policy.requirements import requirements_by_namespace
from romana_ovs.policy.resolve import ResolveCache, resolve
from romana_ovs.policy.rules import NormalPolicy
from romana_ovs.policy.view import Allow, LocalPod, NodePermissions, NodeView


@dataclass(frozen=True)
class Numbers:
    """Segments and tenants' runs of a cluster: each tenant has one aligned run, with room to spare."""

    segments: Mapping[SegmentKey, int]
    tenants: Mapping[str, tuple[IdentityMatch, ...]]


def numbers_of(cluster: Cluster) -> Numbers:
    """Numbers given afresh in sorted order."""
    keys = sorted({cluster.segment_of(pod) for pod in cluster.pods.values() if pod.networked})
    tenants = sorted({key.tenant for key in keys})
    base = {tenant: 16 * position for position, tenant in enumerate(tenants, start=1)}
    segments = {
        key: base[key.tenant] + position
        for tenant in tenants
        for position, key in enumerate(key for key in keys if key.tenant == tenant)
    }
    return Numbers(segments, {tenant: (whole_segments(number, 16),) for tenant, number in base.items()})


def register(
    allocator: ClassAllocator, cluster: Cluster, numbers: Numbers, *, policies: tuple[NormalPolicy, ...]
) -> None:
    """Brings `allocator` to `cluster`."""
    namespaces = {name: namespace.labels for name, namespace in cluster.namespaces.items()}
    allocator.set_requirements(requirements_by_namespace(policies, namespaces, settings=cluster.settings))
    for key, pod in sorted(cluster.pods.items()):
        if pod.networked:
            segment = numbers.segments[cluster.segment_of(pod)]
            allocator.assign(key, segment=segment, namespace=pod.namespace, labels=pod.labels)
        else:
            allocator.forget(key)


def normal_policies(cluster: Cluster) -> tuple[NormalPolicy, ...]:
    """Every policy of `cluster` in normal form, sorted."""
    return tuple(normalise(policy, cluster) for _, policy in sorted(cluster.policies.items()))


def node_views(
    cluster: Cluster,
    addresses: Mapping[PodKey, IPv4Address],
    *,
    allocator: ClassAllocator,
    numbers: Numbers,
    policies: tuple[NormalPolicy, ...],
) -> dict[str, NodeView]:
    """One view per node; each carries all policies, which is more than a node needs."""
    namespaces = {name: namespace.labels for name, namespace in cluster.namespaces.items()}
    views = {}
    for host, node in enumerate(sorted(cluster.nodes), start=1):
        pods = [
            LocalPod(
                key=key,
                namespace=pod.namespace,
                labels=pod.labels,
                segment=cluster.segment_of(pod),
                identity=allocator.identity_of(key),
                address=addresses[key],
                mac="0a:58:00:00:00:00",
                ofport=port,
                ports=pod.ports,
            )
            for port, (key, pod) in enumerate(sorted(cluster.pods.items()), start=1)
            if pod.networked and pod.node == node
        ]
        views[node] = NodeView(
            settings=cluster.settings,
            node=node,
            host=host,
            pods=tuple(pods),
            tenants=numbers.tenants,
            segments=numbers.segments,
            classes=allocator.classes,
            namespaces=namespaces,
            policies=policies,
        )
    return views


@dataclass
class Reading:
    """The permissions of every node of a cluster, ready to be asked."""

    views: Mapping[str, NodeView]
    permissions: Mapping[str, NodePermissions]

    @classmethod
    def of(cls, views: Mapping[str, NodeView], caches: Mapping[str, ResolveCache] | None = None) -> Reading:
        """Resolves each view, with its cache where there is one."""
        known = caches or {}
        return cls(views, {node: resolve(view, known.get(node)) for node, view in views.items()})

    def admits(self, connection: Connection) -> bool:
        """Whether both nodes pass the connection (docs/dataplane.md), step by step; not for a node and its own pods."""
        source, destination = self._local(connection.source), self._local(connection.destination)
        mark = "unselected"
        if source is not None:
            address = connection.destination.address if destination is None else destination[1].address
            mark = self._leaves(*source, address, port=connection.port, to_pod=destination is not None)
        if mark == "dropped" or destination is None:
            return mark != "dropped"
        identity, address = self._client(connection.source, source)
        return self._enters(*destination, identity, address, port=connection.port, mark=mark)

    def _local(self, endpoint: ConnectionEnd) -> tuple[str, LocalPod] | None:
        for node, view in self.views.items():
            for pod in view.pods:
                if pod.key == endpoint.pod:
                    return node, pod
        return None

    def _client(self, endpoint: ConnectionEnd, pod: tuple[str, LocalPod] | None) -> tuple[int, IPv4Address | None]:
        if pod is not None:
            return pod[1].identity, pod[1].address
        return node_identity(self.views[endpoint.node].host) if endpoint.node else OUTSIDE, endpoint.address

    def _leaves(self, node: str, pod: LocalPod, to: IPv4Address | None, *, port: PortRef, to_pod: bool) -> str:
        permissions = self.permissions[node]
        if any(run.covers(pod.identity) for run in permissions.tenantless):
            return "dropped"
        number = permissions.members[pod.key].client
        if number == 0:
            return "unselected"
        group = next(group for group in permissions.clients if group.number == number)
        if any(allows(allow, None, to, port) for allow in group.local_egress):
            return "accepted"
        return "deferred" if group.deferred and to_pod else "dropped"

    def _enters(
        self, node: str, pod: LocalPod, identity: int, address: IPv4Address | None, *, port: PortRef, mark: str
    ) -> bool:
        permissions = self.permissions[node]
        group = next(group for group in permissions.servers if group.number == permissions.members[pod.key].server)
        if mark == "deferred" and not any(allows(allow, identity, address, port) for allow in group.deferred_egress):
            return False
        if any(run.covers(pod.identity) for run in permissions.tenantless):
            return False
        is_pod = identity < 0x80000000
        if (
            permissions.tenancy is not None
            and is_pod
            and not any(
                each.server.covers(pod.identity) and (each.client is None or each.client.covers(identity))
                for each in permissions.tenancy
            )
        ):
            return False
        return any(allows(allow, identity, address, port) for allow in group.ingress)


def allows(allow: Allow, identity: int | None, address: IPv4Address | None, port: PortRef) -> bool:
    """Whether one permission covers this peer and port; `identity` None where only the address is known."""
    peers = allow.identities is None
    if identity is not None and allow.identities is not None:
        peers = any(match.covers(identity) for match in allow.identities)
    if not peers and address is not None:
        peers = any(address in network for network in allow.cidrs)
    if not peers or allow.ports is None:
        return peers
    return port.port is not None and any(
        each.protocol is port.protocol and each.low <= port.port <= each.high for each in allow.ports
    )
