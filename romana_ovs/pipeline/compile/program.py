"""Compiles all flows of one node, in sections that are cached by their inputs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import TypeVarTuple

from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.model.derived import Derived, DerivedMap, Inputs
from romana_ovs.model.errors import INTERNAL_ERRORS, PipelineError
from romana_ovs.model.objects import PodKey
from romana_ovs.model.settings import Isolation
from romana_ovs.pipeline.compile import (
    compare,
    conntrack,
    forwarding,
    icmp_errors,
    pickup,
    policy_tables,
    revalidation,
    services,
    shared_zones,
    spoof_guard,
)
from romana_ovs.pipeline.compile.conditions import feature_origin
from romana_ovs.pipeline.compile.fail_closed import close_pods, closed_because, sendable
from romana_ovs.pipeline.compile.metering import PodMeters, meter_rows, pod_meters, tenant_meters
from romana_ovs.pipeline.cookies import FEATURE_SHIFT, Feature
from romana_ovs.pipeline.flow import Flow, FlowKey
from romana_ovs.pipeline.meters import Meter
from romana_ovs.pipeline.zones import NodeZones, PodZone, ZoneShare, node_zones, zone, zone_inputs
from romana_ovs.policy.view import ClientGroup, LocalPod, Membership, NodePermissions, NodeView, ServerGroup

Section = tuple[Flow, ...]
SectionEntries = Mapping[Hashable, tuple[Inputs, Section]]
"""Sections by name, with the inputs of each."""
Args = TypeVarTuple("Args")


class CompileCache:
    """Sections and other parts of the last program, with the inputs of each. One cache for each bridge."""

    def __init__(self) -> None:
        self.sections: DerivedMap[Hashable, Section] = DerivedMap(by_value=True)
        self.meters: DerivedMap[PodKey, PodMeters] = DerivedMap(by_value=True)
        self.zones: Derived[NodeZones] = Derived(by_value=True)

    def put(self, entries: SectionEntries) -> None:
        """Takes over sections that were compiled before they are part of a program."""
        for name, (inputs, section) in entries.items():
            self.sections.put(name, inputs, section)


@dataclass(frozen=True, slots=True)
class Program:
    """One node's tables: `sections` by name, and the `meters` by number that their flows use.

    `failures` are sentences about sections that could not be compiled: they are empty, which admits nothing. `zones`
    are the conntrack zones of the tables with their tenants (zones.py).
    """

    sections: Mapping[Hashable, Section]
    meters: Mapping[int, Meter]
    failures: tuple[str, ...] = ()
    zones: Mapping[int, ZoneShare] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def flows(self) -> dict[FlowKey, Flow]:
        """Every flow by its key. Raises PipelineError when two sections have different flows of one key."""
        merged: dict[FlowKey, Flow] = {}
        for section in self.sections.values():
            for item in section:
                present = merged.setdefault(item.key, item)
                if present is not item and present.actions != item.actions:
                    raise PipelineError(
                        f"two flows of table {item.table} match the same: {item.origin} and {present.origin}"
                    )
        return merged

    def counts(self) -> dict[str, int]:
        """Number of flows: `policy`, `forwarding`, `pods` (spoof guard), `other`, and `total`."""
        kinds = {
            Feature.POLICY: "policy",
            Feature.ISOLATION: "policy",
            Feature.FORWARDING: "forwarding",
            Feature.SPOOF_GUARD: "pods",
        }
        counted = {"policy": 0, "forwarding": 0, "pods": 0, "other": 0}
        for item in self.flows.values():
            counted[kinds.get(Feature(item.cookie >> FEATURE_SHIFT & 0xFF), "other")] += 1
        return {**counted, "total": sum(counted.values())}


def compile_node(view: NodeView, permissions: NodePermissions, cache: CompileCache | None = None) -> Program:
    """The tables of `view`'s node, a function of `view` and `permissions` only, whatever is in the cache.

    Raises PipelineError for an internal error, such as a flow that breaks its table's declaration. An error in the rows
    of a single pod or group closes only that one.
    """
    cache = cache if cache is not None else CompileCache()
    sections = _Sections(cache)
    plan = AddressPlan.of(view.settings)
    zones = cache.zones.get((zone_inputs(view),), lambda _: node_zones(view))
    meters = _pod_meters(view, cache)
    local_zones = {zone(view.host, pod_zone.index) for pod_zone in zones.pods.values()}
    of_tenants = tenant_meters(local_zones, zones.shares, view.settings)
    _add_fixed(sections, view, plan, zones)
    _add_node(sections, view, plan)
    for pod in view.pods:
        member = permissions.members.get(pod.key)
        if member is None:
            raise PipelineError(f"no permissions for local pod {pod.key}")
        _add_pod(sections, view, plan, (pod, member, zones.pods[pod.key]), meters[pod.key])
    for number, meter in of_tenants.items():
        sections.add(("tenant fragments", number), (number, meter), spoof_guard.tenant_fragments)
    _add_policy(sections, view, permissions, plan)
    cache.sections.retain(sections.by_name)
    close_pods(sections.by_name, sections.failures)
    return Program(
        MappingProxyType(sections.by_name),
        MappingProxyType({meter.number: meter for meter in (*_present(meters), *of_tenants.values())}),
        failures=tuple(sections.failures.values()),
        zones=zones.shares,
    )


class _Sections:
    """The sections of one program, `by_name`, and sentences about those of pods or groups that `failures` closed."""

    def __init__(self, cache: CompileCache) -> None:
        self.by_name: dict[Hashable, Section] = {}
        self.failures: dict[Hashable, str] = {}
        self._cached = cache.sections

    def add(self, name: Hashable, inputs: tuple[*Args], build: Callable[[*Args], Section]) -> None:
        """Adds what `build` makes of `inputs`; the identical tuple as in the last program while these are equal."""
        try:
            section = self._cached.get(name, inputs, lambda *args: sendable(build(*args)))
        except INTERNAL_ERRORS as error:
            self.failures[name], section = closed_because(name, error), ()
        self.by_name[name] = section


def _add_fixed(sections: _Sections, view: NodeView, plan: AddressPlan, zones: NodeZones) -> None:
    pod_zones = set(zones.pods.values())
    indexes = {pod_zone.index for pod_zone in pod_zones}
    meeting = tuple(sorted(indexes)) if view.settings.isolation is Isolation.NONE else ()
    add, host = sections.add, view.host
    add("arp", (), spoof_guard.arp_rows)
    add("mac", (), spoof_guard.mac_rows)
    add("fragments", (), spoof_guard.fragment_rows)
    add("compare", (), compare.compare_rows)
    add("conntrack zone", (host, meeting), forwarding.zone_rows)
    inside = (route.address for route in view.foreign if route.address in plan.network)
    foreign = tuple(inside) if any(pod_zone.shared for pod_zone in pod_zones) else ()
    add("shared zones", (plan, host, foreign), shared_zones.shared_zones)
    add("conntrack state", (), conntrack.state_rows)
    add("client server", (), conntrack.client_server_rows)
    add("revalidation", (), revalidation.changed_clients)
    add("icmp errors", (), icmp_errors.error_rows)
    add("pickup", (), pickup.pickup_rows)
    add("conntrack commit", (), conntrack.commit_rows)
    add("conntrack revoke", (), conntrack.revoke_rows)
    add("output", (), forwarding.output_rows)
    add("plan routes", (plan, host), forwarding.plan_routes)


def _add_node(sections: _Sections, view: NodeView, plan: AddressPlan) -> None:
    foreign = tuple(route.address for route in view.foreign) + tuple(
        pod.address for pod in view.pods if pod.address not in plan.network
    )
    gateway, add = view.gateway, sections.add
    if gateway is not None:
        add("gateway", (gateway, view.host, plan.network, foreign), spoof_guard.gateway_guard)
        add("gateway routes", (gateway, plan, view.host), forwarding.gateway_routes)
        add("node icmp errors", (view.host, gateway.addresses), icmp_errors.node_errors)
        if view.service_ranges:
            add("services", (view.service_ranges, gateway), services.service_rows)
    for uplink in view.uplinks:
        add(("uplink", uplink.ofport), (uplink,), spoof_guard.uplink_guard)
    routes = tuple(route for route in view.foreign if not _is_own(view, route.address))
    add("remote routes", (plan, view.hosts, routes), forwarding.remote_routes)


def _add_pod(
    sections: _Sections,
    view: NodeView,
    plan: AddressPlan,
    inputs: tuple[LocalPod, Membership, PodZone],
    meters: PodMeters,
) -> None:
    pod = inputs[0]
    sections.add(("spoof guard", pod.key), (*inputs, view.host), spoof_guard.pod_guard)
    if not _is_own(view, pod.address):
        sections.add(("route", pod.key), (*inputs, plan, view.host), _pod_route)
    if view.gateway is not None and view.service_ranges and pod.address in plan.network:
        port = view.gateway.ofport
        sections.add(("translated", pod.key), (*inputs, view.host, port), services.translated_guard)
    sections.add(("metering", pod.key), (meters, pod.pre_restart), lambda meters, _: meter_rows(pod, meters))


def _pod_route(pod: LocalPod, member: Membership, zone: PodZone, plan: AddressPlan, host: int) -> Section:
    return forwarding.pod_route(pod, member, zone, plan=plan, host=host)


def _is_own(view: NodeView, address: IPv4Address) -> bool:
    """Whether a pod's address is also the node's own. Here it goes to the node, whose probes need it."""
    return view.gateway is not None and address in view.gateway.addresses


def _present(meters: Mapping[PodKey, PodMeters]) -> Iterator[Meter]:
    return (meter for own in meters.values() for meter in own.present())


def _pod_meters(view: NodeView, cache: CompileCache) -> dict[PodKey, PodMeters]:
    rates = (view.settings.new_connections, view.settings.fragments, view.settings.tenant_fragments)
    cache.meters.retain({pod.key for pod in view.pods})
    return {
        pod.key: cache.meters.get(pod.key, (pod.ofport, rates), lambda *_, pod=pod: pod_meters(pod, view.settings))
        for pod in view.pods
    }


def _add_policy(sections: _Sections, view: NodeView, permissions: NodePermissions, plan: AddressPlan) -> None:
    tenantless, add = permissions.tenantless, sections.add
    add("egress", (plan, view.host, tenantless), policy_tables.egress_base)
    add("deferred egress", (view.host,), policy_tables.deferred_base)
    add("tenancy", (permissions.tenancy, tenantless), policy_tables.tenancy_rows)
    add("ingress", (), policy_tables.ingress_base)
    groups: tuple[ServerGroup | ClientGroup, ...] = (*permissions.clients, *permissions.servers)
    for group in groups:
        for name, inputs, build in _group_parts(group):
            add(name, inputs, build)
    if view.gateway is not None and view.service_ranges:
        add(
            "service frontends",
            (view.frontends, permissions.clients, view.gateway.addresses),
            services.frontend_rows,
        )
    previous = frozenset(
        (pod.identity, number) for pod in view.pods for number in pod.previous_ids if number != pod.identity
    )
    add("previous ids", (previous,), revalidation.previous_ids)


def _group_parts(group: ServerGroup | ClientGroup) -> tuple[tuple[Hashable, Inputs, Callable[..., Section]], ...]:
    """The sections of one group: name, inputs and builder of each."""
    if isinstance(group, ClientGroup):
        return ((("client", group.number), (group,), _client_rows),)
    return (
        (("deferred", group.number), (group.deferred_egress,), lambda _: policy_tables.deferred_rows(group)),
        (("server", group.number), (group.ingress,), lambda _: policy_tables.ingress_rows(group)),
    )


def _client_rows(group: ClientGroup) -> Section:
    origin = group.local_egress[0].origin if group.local_egress else feature_origin("egress")
    return policy_tables.client_rows(group, origin)


def group_entries(group: ServerGroup | ClientGroup) -> SectionEntries:
    """The sections of `group` with their inputs, to be put into a cache. Raises PipelineError."""
    return {name: (inputs, sendable(build(*inputs))) for name, inputs, build in _group_parts(group)}


def is_group(name: Hashable) -> bool:
    """Whether the section `name` is a group's: (kind, number)."""
    return isinstance(name, tuple) and name[0] in ("client", "deferred", "server")
