"""Builds one node's view; parts that did not change stay identical objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from types import MappingProxyType
from typing import NamedTuple

from romana_ovs.addressing.blocks import Block
from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.engine.endpoints import EndpointRecord
from romana_ovs.engine.policy_index import RuleSet
from romana_ovs.engine.topology import Topology, routes_of
from romana_ovs.model.bridge import BridgeFacts, PodPort
from romana_ovs.model.cluster import NO_TENANT, Cluster, SegmentKey
from romana_ovs.model.derived import Derived, DerivedMap, keep_equal
from romana_ovs.model.identity import IdentityMatch, whole_segments
from romana_ovs.model.objects import Node, PodKey
from romana_ovs.model.settings import Isolation, Settings
from romana_ovs.policy.rules import NormalPolicy
from romana_ovs.policy.view import ClassInfo, ForeignRoute, Gateway, LocalPod, NodeView, RemoteHost, Uplink


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


AssignedPod = tuple[PodKey, EndpointRecord, AssignedIdentity]


class NodeViewBuilder:
    """Makes the views of one node, one after the other."""

    def __init__(self) -> None:
        self._pods: Derived[tuple[LocalPod, ...]] = Derived(by_value=True)
        self._pod: DerivedMap[PodKey, LocalPod] = DerivedMap(by_value=True)
        self._scopes: Derived[tuple[tuple[str, ...], frozenset[str]]] = Derived(by_value=True)
        self._routes: Derived[tuple[tuple[RemoteHost, ...], tuple[Uplink, ...]]] = Derived(by_value=True)
        self._tenants: Derived[Mapping[str, tuple[IdentityMatch, ...]]] = Derived(by_value=True)
        self._policies: Derived[tuple[NormalPolicy, ...]] = Derived(by_value=True)
        self._foreign: Derived[tuple[ForeignRoute, ...]] = Derived(by_value=True)
        self._view: NodeView | None = None

    def view(
        self,
        facts: BridgeFacts,
        shared: ViewInputs,
        *,
        topology: Topology,
        pods: tuple[AssignedPod, ...],
    ) -> NodeView:
        """The view of the node with these bridge `facts` and `pods` (record and identities of each, sorted).

        It is the identical object while it is equal to the last one.
        """
        cluster, host = shared.cluster, shared.hosts[facts.node]
        local_pods = self._pods.get(
            (pods, facts.pod_ports, facts.superseded_ports), lambda *_: self._local_pods(facts, pods, shared.plan)
        )
        names, tenants = self._scopes.get((local_pods,), _local_scopes)
        hosts, uplinks = self._routes.get(
            (topology, facts.links, facts.tunnel, shared.hosts), lambda *_: routes_of(facts, topology, shared.hosts)
        )
        view = NodeView(
            settings=cluster.settings,
            node=facts.node,
            host=host,
            pods=local_pods,
            tenants=self._tenants.get((shared.tenants, tenants, cluster.settings), _tenant_matches),
            segments=shared.segments,
            classes=shared.classes,
            namespaces=shared.rules.namespace_labels,
            policies=self._policies.get(
                (shared.rules.lists(names), tenants), lambda *_: shared.rules.concerning(names, tenants)
            ),
            gateway=_gateway(facts, host, cluster.nodes.get(facts.node), shared.plan),
            uplinks=uplinks,
            hosts=hosts,
            foreign=self._foreign.get((shared.foreign, host), _other_hosts),
            service_ranges=_usable(cluster, shared.plan),
            frontends=cluster.frontends,
        )
        self._view = view if self._view is None else keep_equal(self._view, view)
        return self._view

    def _local_pods(self, facts: BridgeFacts, pods: tuple[AssignedPod, ...], plan: AddressPlan) -> tuple[LocalPod, ...]:
        local_pods: dict[PodKey, LocalPod] = {}
        for key, record, assigned in pods:
            # Only the port with the UID of the pod: another pod may have had the name, or will have it.
            port = facts.port(key, record.pod.uid)
            if port is not None:
                local_pods[key] = self._pod.get(key, (record, assigned, port, plan), _local)
        self._pod.retain(local_pods)
        return tuple(local_pods.values())


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
    blocks: Mapping[str, tuple[Block, ...]], local: frozenset[str], settings: Settings
) -> Mapping[str, tuple[IdentityMatch, ...]]:
    matches = {
        tenant: tuple(whole_segments(block.base, block.size) for block in blocks[tenant])
        for tenant in sorted(_visible_tenants(local, blocks, settings))
        if tenant in blocks
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


def _usable(cluster: Cluster, plan: AddressPlan) -> tuple[IPv4Network, ...]:
    """The ranges of Services that are no pods' addresses."""
    return tuple(each for each in cluster.service_ranges if not each.overlaps(plan.network))


def _other_hosts(foreign: tuple[ForeignRoute, ...], host: int) -> tuple[ForeignRoute, ...]:
    return tuple(route for route in foreign if route.host != host)
