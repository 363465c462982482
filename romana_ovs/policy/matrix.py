"""Computes the reachability matrix: which pods may connect to which, by the reference evaluation.

Pods that no policy can distinguish are evaluated once, as a profile. So the work grows with the number of profiles and
of allowed pairs, not with the square of the number of pods.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import NamedTuple

from romana_ovs.model.cluster import Cluster
from romana_ovs.model.connection import ConnectionEnd, PortRef
from romana_ovs.model.labels import Selector
from romana_ovs.model.objects import ContainerPort, IpBlock, KubernetesPolicy, Pod, PodKey, Policy, PolicyPort
from romana_ovs.model.settings import Isolation, TenantSource
from romana_ovs.policy.evaluate import Reference, TrafficPeer


class PodPath(NamedTuple):
    """A path: an ordered pair of pods, and the port (`80/tcp`) on which the first would connect to the second."""

    source: PodKey
    destination: PodKey
    port: str

    def to_json(self) -> dict[str, str]:
        """As docs/design.md section 8 writes it: `from`, `to`, `port`."""
        return {"from": self.source, "to": self.destination, "port": self.port}


@dataclass(frozen=True, slots=True)
class Matrix:
    """Which of `pods` (sorted) may connect to which by each of `ports` (`80/tcp`, in the order asked for).

    `reach[port][source]` are the destinations, sorted, without the source itself. Sources without destinations are
    absent, so equal matrices compare equal.
    """

    pods: tuple[PodKey, ...]
    ports: tuple[str, ...]
    reach: Mapping[str, Mapping[PodKey, tuple[PodKey, ...]]]

    @classmethod
    def of(cls, pods: Iterable[PodKey], ports: Iterable[str], paths: Iterable[PodPath]) -> Matrix:
        """The matrix of exactly `paths`, without self pairs."""
        by_port: dict[str, dict[PodKey, set[PodKey]]] = {port: {} for port in ports}
        for source, destination, port in paths:
            if source != destination:
                by_port[port].setdefault(source, set()).add(destination)
        reach = {
            port: {source: tuple(sorted(sources[source])) for source in sorted(sources)}
            for port, sources in by_port.items()
        }
        return cls(tuple(sorted(pods)), tuple(by_port), reach)

    def allows(self, source: PodKey, destination: PodKey, port: str) -> bool:
        """Whether `source` may connect to `destination`; False for an unknown pod or port."""
        destinations = self.reach.get(port, {}).get(source, ())
        at = bisect_left(destinations, destination)
        return at < len(destinations) and destinations[at] == destination

    def open_paths(self) -> Iterator[PodPath]:
        """Every allowed pair and port: ports in their order, pairs sorted."""
        for port in self.ports:
            for source, destinations in self.reach[port].items():
                for destination in destinations:
                    yield PodPath(source, destination, port)

    def to_json(self) -> dict[str, object]:
        """As docs/design.md section 8 writes it: `pods`, `ports` and `allowed` pairs by port, sorted."""
        allowed = {
            port: [[source, pod] for source, destinations in self.reach[port].items() for pod in destinations]
            for port in self.ports
        }
        return {"pods": list(self.pods), "ports": list(self.ports), "allowed": allowed}


def reachability(cluster: Cluster, addresses: Mapping[PodKey, IPv4Address], ports: Sequence[PortRef]) -> Matrix:
    """Which pods each networked pod may connect to on each of `ports`: `Reference.allowed` of every ordered pair.

    `addresses` are the pods' own; they matter only if `depends_on_addresses(cluster)`.
    """
    reference = Reference.of(cluster, addresses)
    profiles = _profiles(reference)
    servers = _servers_by_tenant(profiles, reference)
    reach = {str(port): _reach(reference, profiles, servers, port) for port in ports}
    pods = sorted(pod for profile in profiles for pod in profile.pods)
    return Matrix(tuple(pods), tuple(reach), reach)


def difference(before: Matrix, after: Matrix) -> tuple[list[PodPath], list[PodPath]]:
    """(opened, closed) between two matrices, each sorted; an absent port or pod is closed."""
    opened: list[PodPath] = []
    closed: list[PodPath] = []
    for port in sorted({*before.ports, *after.ports}):
        old, new = before.reach.get(port, {}), after.reach.get(port, {})
        for source in old.keys() | new.keys():
            was, now = old.get(source, ()), new.get(source, ())
            if was != now:
                opened.extend(PodPath(source, destination, port) for destination in set(now) - set(was))
                closed.extend(PodPath(source, destination, port) for destination in set(was) - set(now))
    return sorted(opened), sorted(closed)


def container_ports(cluster: Cluster) -> tuple[PortRef, ...]:
    """The ports that the networked pods' containers declare, by number and protocol."""
    pods = [pod for pod in cluster.pods.values() if pod.networked]
    refs = {PortRef(port.protocol, port.number) for pod in pods for port in pod.ports}
    return tuple(sorted(refs, key=lambda ref: (ref.port or 0, str(ref))))


def depends_on_addresses(cluster: Cluster) -> bool:
    """Whether any policy has an ipBlock, so that the verdicts depend on the pods' addresses."""
    return next(_blocks(cluster.policies.values()), None) is not None


@dataclass(frozen=True, slots=True)
class _Profile:
    """Pods (sorted) that no policy distinguishes, and one of them."""

    pod: TrafficPeer
    pods: tuple[PodKey, ...]


class _ProfileKey(NamedTuple):
    """What policies may distinguish of a pod. `range_index` counts bounds of ipBlocks up to its address."""

    namespace: str
    labels: frozenset[tuple[str, str]]
    ports: frozenset[ContainerPort]
    range_index: int


def _profiles(reference: Reference) -> list[_Profile]:
    cluster = reference.cluster
    label_keys, port_names, bounds = _used_label_keys(cluster), _used_port_names(cluster), _bounds(cluster)
    pods_by_key: dict[_ProfileKey, list[PodKey]] = {}
    for key, pod in cluster.pods.items():
        if pod.networked:
            address = reference.addresses.get(key, pod.address)
            index = bisect_right(bounds, int(address)) if bounds and address is not None else -1
            pods_by_key.setdefault(_profile_key(pod, label_keys, port_names, index), []).append(key)
    return [
        _Profile(reference.traffic_peer(ConnectionEnd(pod=members[0])), tuple(sorted(members)))
        for members in pods_by_key.values()
    ]


def _profile_key(pod: Pod, label_keys: frozenset[str], port_names: frozenset[str], range_index: int) -> _ProfileKey:
    labels = frozenset(item for item in pod.labels.items() if item[0] in label_keys)
    return _ProfileKey(
        pod.namespace, labels, frozenset(port for port in pod.ports if port.name in port_names), range_index
    )


def _servers_by_tenant(profiles: list[_Profile], reference: Reference) -> dict[str, list[_Profile]]:
    """For each tenant the profiles that tenants do not separate from its pods."""
    settings = reference.cluster.settings
    by_tenant: dict[str, list[_Profile]] = {}
    for profile in profiles:
        by_tenant.setdefault(profile.pod.segment.tenant, []).append(profile)
    if settings.isolation is Isolation.NONE:
        return dict.fromkeys(by_tenant, profiles)
    shared = settings.shared_tenants & by_tenant.keys()
    return {
        tenant: [profile for server_tenant in sorted({tenant, *shared}) for profile in by_tenant[server_tenant]]
        for tenant in by_tenant
    }


def _reach(
    reference: Reference, profiles: list[_Profile], servers: Mapping[str, list[_Profile]], port: PortRef
) -> dict[PodKey, tuple[PodKey, ...]]:
    """Source pod -> the pods it may connect to by `port`."""
    destinations: dict[PodKey, tuple[PodKey, ...]] = {}
    for profile in profiles:
        client = profile.pod
        reached = [
            pod
            for server in servers[client.segment.tenant]
            if not reference.tenants_separated(client, server.pod)
            and reference.allows_ingress(client, server.pod, port)
            and reference.allows_egress(client, server.pod, port)
            for pod in server.pods
        ]
        if reached:
            reached.sort()
            destinations.update((pod, _without(reached, pod)) for pod in profile.pods)
    return {source: destinations[source] for source in sorted(destinations) if destinations[source]}


def _without(pods: list[PodKey], pod: PodKey) -> tuple[PodKey, ...]:
    place = bisect_left(pods, pod)
    if place < len(pods) and pods[place] == pod:
        return tuple(pods[:place] + pods[place + 1 :])
    return tuple(pods)


def _used_label_keys(cluster: Cluster) -> frozenset[str]:
    """The label keys of pods that tenants, tiers or policies use."""
    keys = {requirement.key for selector in _selectors(cluster) for requirement in selector.requirements}
    if cluster.settings.tenant_source is TenantSource.POD_LABEL:
        keys.add(cluster.settings.tenant_key)
    return frozenset(keys.union(cluster.settings.tier_labels))


def _selectors(cluster: Cluster) -> Iterator[Selector]:
    for policy in cluster.policies.values():
        yield policy.selector
        if isinstance(policy, KubernetesPolicy):
            for rule in policy.ingress + policy.egress:
                yield from (peer.pods for peer in rule.peers if peer.pods is not None)
        else:
            for romana_rule in policy.rules:
                yield from romana_rule.sources


def _used_port_names(cluster: Cluster) -> frozenset[str]:
    """The names of ports that policies use."""
    return frozenset(entry.port for entry in _port_entries(cluster) if isinstance(entry.port, str))


def _port_entries(cluster: Cluster) -> Iterator[PolicyPort]:
    for policy in cluster.policies.values():
        rules = policy.ingress + policy.egress if isinstance(policy, KubernetesPolicy) else policy.rules
        for rule in rules:
            yield from rule.ports


def _blocks(policies: Iterable[Policy]) -> Iterator[IpBlock]:
    for policy in policies:
        if isinstance(policy, KubernetesPolicy):
            for rule in policy.ingress + policy.egress:
                yield from (peer.ip_block for peer in rule.peers if peer.ip_block is not None)


def _bounds(cluster: Cluster) -> list[int]:
    """The starts and ends of ipBlock ranges: addresses between two bounds are in the same ranges."""
    bounds: set[int] = set()
    for block in _blocks(cluster.policies.values()):
        for network in (block.cidr, *block.except_cidrs):
            bounds.add(int(network.network_address))
            bounds.add(int(network.broadcast_address) + 1)
    return sorted(bounds)
