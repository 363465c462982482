"""Builds one node's view; parts that did not change stay identical objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import NamedTuple

from romana_ovs.addressing.blocks import Block
from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.engine.derived import Derived
from romana_ovs.engine.endpoints import EndpointRecord
from romana_ovs.engine.policy_index import RuleSet
from romana_ovs.engine.topology import Topology, routes_of
from romana_ovs.model.bridge import BridgeFacts, PodPort
from romana_ovs.model.cluster import NO_TENANT, Cluster, SegmentKey
from romana_ovs.model.identity import IdentityMatch, whole_segments
from romana_ovs.model.objects import Node, PodKey
from romana_ovs.model.settings import Isolation, Settings
from romana_ovs.policy.view import ClassInfo, ForeignRoute, Gateway, LocalPod, NodeView


@dataclass(frozen=True, slots=True)
class ViewInputs:
    """What the view of a node is made from beside its pods and its bridge."""

    cluster: Cluster
    plan: AddressPlan
    tenants: Mapping[str, tuple[Block, ...]]
    segments: Mapping[SegmentKey, int]
    hosts: Mapping[str, int]
    classes: Mapping[int, ClassInfo]
    rules: RuleSet
    foreign: tuple[ForeignRoute, ...]


class AssignedIdentity(NamedTuple):
    """The identity of a pod, and previous ones that no rule in force distinguishes from it."""

    identity: int
    previous_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class CachedPod:
    """A pod of a node's view, and the values that it was made from."""

    record: EndpointRecord
    assigned: AssignedIdentity
    port: PodPort
    pod: LocalPod


class NodeViewBuilder:
    """Makes the views of one node, one after the other."""

    def __init__(self) -> None:
        self._memo = Derived()
        self._cached_pods: dict[PodKey, CachedPod] = {}
        self._view: NodeView | None = None

    def view(
        self,
        facts: BridgeFacts,
        shared: ViewInputs,
        *,
        topology: Topology,
        pods: tuple[tuple[PodKey, EndpointRecord, AssignedIdentity], ...],
    ) -> NodeView:
        """The view of the node with these bridge `facts` and `pods` (record and identities of each, sorted).

        It is the identical object while it is equal to the last one.
        """
        memo, cluster, host = self._memo, shared.cluster, shared.hosts[facts.node]
        inputs = (pods, facts.pod_ports, facts.superseded_ports)
        local_pods = memo.value("pods", inputs, lambda: self._local_pods(facts, pods, shared.plan))
        names, tenants = memo.value("scopes", local_pods, lambda: _local_scopes(local_pods))
        hosts, uplinks = memo.value(
            "routes",
            (topology, facts.links, facts.tunnel, shared.hosts),
            lambda: routes_of(facts, topology, shared.hosts),
        )
        view = NodeView(
            settings=cluster.settings,
            node=facts.node,
            host=host,
            pods=local_pods,
            tenants=memo.value(
                "tenants",
                (shared.tenants, tenants, cluster.settings),
                lambda: _tenant_matches(shared.tenants, _visible_tenants(tenants, shared.tenants, cluster.settings)),
            ),
            segments=shared.segments,
            classes=shared.classes,
            namespaces=shared.rules.namespaces,
            policies=memo.value(
                "policies", (shared.rules.lists(names), tenants), lambda: shared.rules.concerning(names, tenants)
            ),
            gateway=_gateway(facts, host, cluster.nodes.get(facts.node), shared.plan),
            uplinks=uplinks,
            hosts=hosts,
            foreign=memo.value("foreign", (shared.foreign, host), lambda: _other_hosts(shared.foreign, host)),
        )
        if self._view is None or self._view != view:
            self._view = view
        return self._view

    def _local_pods(
        self, facts: BridgeFacts, pods: tuple[tuple[PodKey, EndpointRecord, AssignedIdentity], ...], plan: AddressPlan
    ) -> tuple[LocalPod, ...]:
        cached_pods: dict[PodKey, CachedPod] = {}
        for key, record, assigned in pods:
            # Only the port with the UID of the pod: another pod may have had the name, or will have it.
            port = facts.port(key, record.pod.uid)
            if port is None:
                continue
            old = self._cached_pods.get(key)
            if old is None or (old.record, old.assigned, old.port) != (record, assigned, port):
                old = CachedPod(record, assigned, port, _local(record, assigned, port, plan))
            cached_pods[key] = old
        self._cached_pods = cached_pods
        return tuple(cached.pod for cached in cached_pods.values())


def _local(record: EndpointRecord, assigned: AssignedIdentity, port: PodPort, plan: AddressPlan) -> LocalPod:
    pod, address = record.pod, record.endpoint.address
    return LocalPod(
        key=pod.key,
        namespace=pod.namespace,
        labels=pod.labels,
        segment=record.segment,
        identity=assigned.identity,
        address=address,
        mac=port.mac or plan.mac(address),
        ofport=port.ofport,
        ports=pod.ports,
        pre_restart=port.pre_restart,
        previous_ids=assigned.previous_ids,
        uid=pod.uid,
    )


def _local_scopes(pods: tuple[LocalPod, ...]) -> tuple[tuple[str, ...], frozenset[str]]:
    """The namespaces (sorted) and the tenants of local pods."""
    return tuple(sorted({pod.namespace for pod in pods})), frozenset(pod.segment.tenant for pod in pods)


def _visible_tenants(
    local: frozenset[str], blocks: Mapping[str, tuple[Block, ...]], settings: Settings
) -> frozenset[str]:
    """The tenants whose blocks a node with pods of `local` tenants needs: all, if pods of any may reach one of them."""
    if settings.isolation is Isolation.NONE or local & settings.shared_tenants:
        return frozenset(blocks)
    return local | settings.shared_tenants | {NO_TENANT}


def _tenant_matches(
    runs: Mapping[str, tuple[Block, ...]], wanted: frozenset[str]
) -> Mapping[str, tuple[IdentityMatch, ...]]:
    matches = {
        tenant: tuple(whole_segments(run.base, run.size) for run in runs[tenant])
        for tenant in sorted(wanted)
        if tenant in runs
    }
    return MappingProxyType(matches)


def _gateway(facts: BridgeFacts, host: int, node: Node | None, plan: AddressPlan) -> Gateway | None:
    """The node itself: first its address of the plan, then those of its Node object."""
    if facts.gateway_port is None:
        return None
    address = plan.gateway(host)
    node_addresses: tuple[IPv4Address, ...] = node.addresses if node is not None else ()
    addresses = (address, *sorted(set(node_addresses) - {address}))
    return Gateway(facts.gateway_port, facts.gateway_mac or plan.mac(address), addresses, facts.conntrack_lost)


def _other_hosts(foreign: tuple[ForeignRoute, ...], host: int) -> tuple[ForeignRoute, ...]:
    return tuple(route for route in foreign if route.host != host)
