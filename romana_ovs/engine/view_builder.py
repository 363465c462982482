"""Builds one node's view; parts that did not change stay the same objects."""

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
    """What all views of one moment have in common."""

    cluster: Cluster
    plan: AddressPlan
    tenants: Mapping[str, tuple[Block, ...]]
    segments: Mapping[SegmentKey, int]
    hosts: Mapping[str, int]
    classes: Mapping[int, ClassInfo]
    rules: RuleSet
    foreign: tuple[ForeignRoute, ...]


class AssignedIdentity(NamedTuple):
    """The identity of a pod, and those that it had before and that no rule in force tells from it."""

    identity: int
    formerly: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class CachedPod:
    """A pod of a node as its view shows it, and what that was made from."""

    member: EndpointRecord
    worn: AssignedIdentity
    port: PodPort
    shown: LocalPod


class NodeViewBuilder:
    """Makes the views of one node, one after the other."""

    def __init__(self) -> None:
        self._memo = Derived()
        self._residents: dict[PodKey, CachedPod] = {}
        self._view: NodeView | None = None

    def view(
        self,
        facts: BridgeFacts,
        shared: ViewInputs,
        *,
        topology: Topology,
        pods: tuple[tuple[PodKey, EndpointRecord, AssignedIdentity], ...],
    ) -> NodeView:
        """The view of the node with these bridge `facts`, where `pods` live (member and identities of each, sorted).

        It is the same object as the last one while it is equal to it.
        """
        memo, cluster, host = self._memo, shared.cluster, shared.hosts[facts.node]
        inputs = (pods, facts.pod_ports, facts.superseded_ports)
        shown = memo.value("pods", inputs, lambda: self._show(facts, pods, shared.plan))
        names, tenants = memo.value("homes", shown, lambda: _local_scopes(shown))
        hosts, uplinks = memo.value(
            "routes",
            (topology, facts.links, facts.tunnel, shared.hosts),
            lambda: routes_of(facts, topology, shared.hosts),
        )
        view = NodeView(
            settings=cluster.settings,
            node=facts.node,
            host=host,
            pods=shown,
            tenants=memo.value(
                "tenants",
                (shared.tenants, tenants, cluster.settings),
                lambda: _runs(shared.tenants, _visible_tenants(tenants, shared.tenants, cluster.settings)),
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
            foreign=memo.value("foreign", (shared.foreign, host), lambda: _elsewhere(shared.foreign, host)),
        )
        if self._view is None or self._view != view:
            self._view = view
        return self._view

    def _show(
        self, facts: BridgeFacts, pods: tuple[tuple[PodKey, EndpointRecord, AssignedIdentity], ...], plan: AddressPlan
    ) -> tuple[LocalPod, ...]:
        residents: dict[PodKey, CachedPod] = {}
        for key, member, worn in pods:
            # Not the port of a pod that had the name before, or will have it: its UID is another.
            port = facts.port(key, member.pod.uid)
            if port is None:
                continue
            old = self._residents.get(key)
            if old is None or (old.member, old.worn, old.port) != (member, worn, port):
                old = CachedPod(member, worn, port, _local(member, worn, port, plan))
            residents[key] = old
        self._residents = residents
        return tuple(resident.shown for resident in residents.values())


def _local(member: EndpointRecord, worn: AssignedIdentity, port: PodPort, plan: AddressPlan) -> LocalPod:
    pod, address = member.pod, member.endpoint.address
    return LocalPod(
        key=pod.key,
        namespace=pod.namespace,
        labels=pod.labels,
        segment=member.segment,
        identity=worn.identity,
        address=address,
        mac=port.mac or plan.mac(address),
        ofport=port.ofport,
        ports=pod.ports,
        pre_restart=port.pre_restart,
        previous_ids=worn.formerly,
        uid=pod.uid,
    )


def _local_scopes(pods: tuple[LocalPod, ...]) -> tuple[tuple[str, ...], frozenset[str]]:
    """The namespaces (sorted) and the tenants of local pods."""
    return tuple(sorted({pod.namespace for pod in pods})), frozenset(pod.segment.tenant for pod in pods)


def _visible_tenants(
    local: frozenset[str], known: Mapping[str, tuple[Block, ...]], settings: Settings
) -> frozenset[str]:
    """The tenants whose blocks matter where pods of `local` tenants are: all, where everyone may reach one of them."""
    if settings.isolation is Isolation.NONE or local & settings.shared_tenants:
        return frozenset(known)
    return local | settings.shared_tenants | {NO_TENANT}


def _runs(runs: Mapping[str, tuple[Block, ...]], wanted: frozenset[str]) -> Mapping[str, tuple[IdentityMatch, ...]]:
    found = {
        tenant: tuple(whole_segments(run.base, run.size) for run in runs[tenant])
        for tenant in sorted(wanted)
        if tenant in runs
    }
    return MappingProxyType(found)


def _gateway(facts: BridgeFacts, host: int, node: Node | None, plan: AddressPlan) -> Gateway | None:
    """The node itself: first its address of the plan, then those that the cluster knows."""
    if facts.gateway_port is None:
        return None
    own = plan.gateway(host)
    known: tuple[IPv4Address, ...] = node.addresses if node is not None else ()
    addresses = (own, *sorted(set(known) - {own}))
    return Gateway(facts.gateway_port, facts.gateway_mac or plan.mac(own), addresses, facts.conntrack_lost)


def _elsewhere(foreign: tuple[ForeignRoute, ...], host: int) -> tuple[ForeignRoute, ...]:
    return tuple(route for route in foreign if route.host != host)
