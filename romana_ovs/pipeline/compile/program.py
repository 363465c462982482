"""Compiles all flows of one node, in sections that are cached by their inputs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import Any, TypeVar

from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.model.errors import PipelineError
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
    shared_zones,
    spoof_guard,
)
from romana_ovs.pipeline.compile.conditions import feature_origin
from romana_ovs.pipeline.compile.fail_closed import close_pods, fail_closed, sendable
from romana_ovs.pipeline.compile.metering import PodMeters, meter_rows, pod_meters
from romana_ovs.pipeline.cookies import FEATURE_SHIFT, Feature
from romana_ovs.pipeline.flow import Flow, FlowKey
from romana_ovs.pipeline.meters import Meter
from romana_ovs.pipeline.zones import NodeZones, PodZone, Share, node_zones, zone_inputs
from romana_ovs.policy.view import ClientGroup, LocalPod, Membership, NodeView, ServerGroup, Verdicts

Section = tuple[Flow, ...]


Value = TypeVar("Value")


@dataclass(slots=True)
class CompileCache:
    """Sections and other parts of the last program, with the inputs of each. One cache for each bridge."""

    kept: dict[Hashable, tuple[object, Any]] = field(default_factory=dict)
    _used: set[Hashable] = field(default_factory=set)

    def same(self, name: Hashable, inputs: object) -> Any:
        """The part `name` if it was computed from equal `inputs`, else None."""
        entry = self.kept.get(name)
        if entry is None or entry[0] != inputs:
            return None
        self._used.add(name)
        return entry[1]

    def part(self, name: Hashable, inputs: object, build: Callable[[], Value]) -> Value:
        """The part `name`: the identical object while `inputs` are equal, else what `build` returns."""
        kept: Value | None = self.same(name, inputs)
        if kept is not None:
            return kept
        made = build()
        self.kept[name] = (inputs, made)
        self._used.add(name)
        return made

    def section(self, name: Hashable, inputs: object, build: Callable[[], Section]) -> Section:
        """The section `name`, likewise. Raises PipelineError when a flow does not fit into an OpenFlow message."""
        return self.part(name, inputs, lambda: sendable(build()))

    def forget_unused(self) -> None:
        """Drops parts that were not used since the last call."""
        for name in self.kept.keys() - self._used:
            del self.kept[name]
        self._used.clear()


@dataclass(frozen=True, slots=True)
class Program:
    """One node's tables: `sections` by name, and the `meters` by number that their flows use.

    `failures` are sentences about sections that could not be compiled: they are empty, which admits nothing. `zones`
    are the conntrack zones of the tables with their tenants (zones.py).
    """

    sections: Mapping[Hashable, Section]
    meters: Mapping[int, Meter]
    failures: tuple[str, ...] = ()
    zones: Mapping[int, Share] = field(default_factory=lambda: MappingProxyType({}))

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


def compile_node(view: NodeView, verdicts: Verdicts, cache: CompileCache | None = None) -> Program:
    """The tables of `view`'s node, a function of `view` and `verdicts` only, whatever is in the cache.

    Raises PipelineError for an internal error, such as a flow that breaks its table's declaration. An error in the rows
    of a single pod or group closes only that one.
    """
    kept = cache if cache is not None else CompileCache()
    sections: dict[Hashable, Section] = {}
    failures: dict[Hashable, str] = {}

    def add(name: Hashable, inputs: object, build: Callable[[], Section]) -> None:
        section = kept.same(name, inputs)
        if section is None:
            section = fail_closed(name, lambda: kept.section(name, inputs, build), failures)
        sections[name] = section

    plan = AddressPlan.of(view.settings)
    zones = kept.part("zones", zone_inputs(view), lambda: node_zones(view))
    meters = _pod_meters(view, kept)
    _add_fixed(add, view, plan, zones)
    _add_node(add, view, plan)
    for pod in view.pods:
        member = verdicts.members.get(pod.key)
        if member is None:
            raise PipelineError(f"no verdicts for local pod {pod.key}")
        _add_pod(add, view, plan, (pod, member, zones.pods[pod.key]), meters[pod.key])
    _add_policy(add, view, verdicts, plan)
    close_pods(sections, failures)
    kept.forget_unused()
    return Program(
        MappingProxyType(sections),
        MappingProxyType({meter.number: meter for own in meters.values() for meter in own.present()}),
        failures=tuple(failures.values()),
        zones=zones.shares,
    )


_Add = Callable[[Hashable, object, Callable[[], Section]], None]


def _add_fixed(add: _Add, view: NodeView, plan: AddressPlan, zones: NodeZones) -> None:
    pod_zones = set(zones.pods.values())
    indexes = {pod_zone.index for pod_zone in pod_zones}
    meeting = tuple(sorted(indexes)) if view.settings.isolation is Isolation.NONE else ()
    add("arp", (), spoof_guard.arp_rows)
    add("mac", (), spoof_guard.mac_rows)
    add("fragments", (), spoof_guard.fragment_rows)
    add("compare", (), compare.compare_rows)
    add("conntrack zone", (view.host, meeting), lambda: forwarding.zone_rows(view.host, meeting))
    inside = (route.address for route in view.foreign if route.address in plan.network)
    foreign = tuple(inside) if any(pod_zone.shared for pod_zone in pod_zones) else ()
    add("shared zones", (plan, view.host, foreign), lambda: shared_zones.shared_zones(plan, view.host, foreign))
    add("conntrack state", (), conntrack.state_rows)
    add("client server", (), conntrack.client_server)
    add("revalidation", (), revalidation.changed_clients)
    add("icmp errors", (), icmp_errors.error_rows)
    add("pickup", (), pickup.pickup_rows)
    add("conntrack commit", (), conntrack.commit_rows)
    add("conntrack revoke", (), conntrack.revoke_rows)
    add("output", (), forwarding.output_rows)
    add("plan routes", (plan, view.host), lambda: forwarding.plan_routes(plan, view.host))


def _add_node(add: _Add, view: NodeView, plan: AddressPlan) -> None:
    foreign = tuple(route.address for route in view.foreign) + tuple(
        pod.address for pod in view.pods if pod.address not in plan.network
    )
    gateway = view.gateway
    if gateway is not None:
        add(
            "gateway",
            (gateway, view.host, plan, foreign),
            lambda: spoof_guard.gateway_guard(gateway, view.host, plan.network, foreign),
        )
        add("gateway routes", (gateway, plan, view.host), lambda: forwarding.gateway_routes(gateway, plan, view.host))
        own = (view.host, gateway.addresses)
        add("node icmp errors", own, lambda: icmp_errors.node_errors(*own))
    for uplink in view.uplinks:
        add(("uplink", uplink.ofport), uplink, partial(spoof_guard.uplink_guard, uplink))
    routes = tuple(route for route in view.foreign if not _is_own(view, route.address))
    add("remote routes", (plan, view.hosts, routes), lambda: forwarding.remote_routes(plan, view.hosts, routes))


def _add_pod(
    add: _Add, view: NodeView, plan: AddressPlan, inputs: tuple[LocalPod, Membership, PodZone], meters: PodMeters
) -> None:
    pod = inputs[0]
    add(("spoof guard", pod.key), (*inputs, view.host), partial(spoof_guard.pod_guard, *inputs, view.host))
    if not _is_own(view, pod.address):
        route = partial(forwarding.pod_route, *inputs, plan=plan, host=view.host)
        add(("route", pod.key), (*inputs, view.host), route)
    add(("metering", pod.key), (meters, pod.pre_restart), partial(meter_rows, pod, meters))


def _is_own(view: NodeView, address: IPv4Address) -> bool:
    """Whether a pod's address is also the node's own. Here it goes to the node, whose probes need it."""
    return view.gateway is not None and address in view.gateway.addresses


def _pod_meters(view: NodeView, kept: CompileCache) -> dict[PodKey, PodMeters]:
    rates = (view.settings.new_connections, view.settings.fragments)
    return {
        pod.key: kept.part(("meters", pod.key), (pod.key, pod.ofport, rates), partial(pod_meters, pod, view.settings))
        for pod in view.pods
    }


def _add_policy(add: _Add, view: NodeView, verdicts: Verdicts, plan: AddressPlan) -> None:
    tenantless = verdicts.tenantless
    add("egress", (plan, view.host, tenantless), lambda: policy_tables.egress_base(plan, view.host, tenantless))
    add("deferred egress", view.host, lambda: policy_tables.deferred_base(view.host))
    add("tenancy", (verdicts.tenancy, tenantless), lambda: policy_tables.tenancy_rows(verdicts.tenancy, tenantless))
    add("ingress", (), policy_tables.ingress_base)
    groups: tuple[ServerGroup | ClientGroup, ...] = (*verdicts.clients, *verdicts.servers)
    for group in groups:
        for part in _group_parts(group):
            add(*part)
    previous = frozenset(
        (pod.identity, number) for pod in view.pods for number in pod.previous_ids if number != pod.identity
    )
    add("previous ids", previous, lambda: revalidation.previous_ids(previous))


def _group_parts(group: ServerGroup | ClientGroup) -> tuple[tuple[Hashable, object, Callable[[], Section]], ...]:
    """The sections of one group: name, inputs and builder of each."""
    if isinstance(group, ClientGroup):
        origin = group.accepted[0].origin if group.accepted else feature_origin("egress")
        return ((("client", group.number), group, partial(policy_tables.client_rows, group, origin)),)
    return (
        (("deferred", group.number), group.deferred_egress, partial(policy_tables.deferred_rows, group)),
        (("server", group.number), group.ingress, partial(policy_tables.ingress_rows, group)),
    )


def group_entries(group: ServerGroup | ClientGroup) -> dict[Hashable, tuple[object, Section]]:
    """The sections of `group` with their inputs, to be put into a cache. Raises PipelineError."""
    return {name: (inputs, sendable(build())) for name, inputs, build in _group_parts(group)}


def is_group(name: Hashable) -> bool:
    """Whether the section `name` is a group's: (kind, number)."""
    return isinstance(name, tuple) and name[0] in ("client", "deferred", "server")
