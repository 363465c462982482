"""All of one node's flows, in sections."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import Any, TypeVar

from romana_ovs.addressing.plan import Plan
from romana_ovs.model.errors import PipelineError
from romana_ovs.model.objects import PodKey
from romana_ovs.model.settings import Isolation
from romana_ovs.pipeline.compile import compare, decide, guard, locate, lost, related, shared, stale, track
from romana_ovs.pipeline.compile.closing import close_pods, closing, sendable
from romana_ovs.pipeline.compile.limits import PodMeters, limit_rows, pod_meters
from romana_ovs.pipeline.compile.words import feature_origin
from romana_ovs.pipeline.cookies import FEATURE_SHIFT, Feature
from romana_ovs.pipeline.flow import Flow, FlowKey
from romana_ovs.pipeline.meters import Meter
from romana_ovs.pipeline.zones import NodeZones, Share, node_zones, zone_inputs
from romana_ovs.policy.view import ClientGroup, NodeView, ServerGroup, Verdicts

Section = tuple[Flow, ...]


Value = TypeVar("Value")


@dataclass(slots=True)
class CompileCache:
    """The parts of the last program, sections and others, and what each was made from; one for each bridge."""

    kept: dict[Hashable, tuple[object, Any]] = field(default_factory=dict)
    _used: set[Hashable] = field(default_factory=set)

    def same(self, name: Hashable, inputs: object) -> Any:
        """The part `name` if it was made from `inputs`, else None."""
        found = self.kept.get(name)
        if found is None or found[0] != inputs:
            return None
        self._used.add(name)
        return found[1]

    def part(self, name: Hashable, inputs: object, build: Callable[[], Value]) -> Value:
        """The part `name`: the identical object as long as `inputs` are equal, else what `build` returns."""
        found: Value | None = self.same(name, inputs)
        if found is not None:
            return found
        made = build()
        self.kept[name] = (inputs, made)
        self._used.add(name)
        return made

    def section(self, name: Hashable, inputs: object, build: Callable[[], Section]) -> Section:
        """The section `name`, likewise. Raises PipelineError when one of its flows has no room in a message."""
        return self.part(name, inputs, lambda: sendable(build()))

    def forget_unused(self) -> None:
        """Drop what nobody has asked for since this was called last."""
        for name in self.kept.keys() - self._used:
            del self.kept[name]
        self._used.clear()


@dataclass(frozen=True, slots=True)
class Program:
    """One node's tables. `sections` maps a section's name to its flows; `meters`, by number, are those they name.

    `failures` are sentences about sections that could not be made: they are empty, which admits nothing. `zones` are
    the conntrack zones that the tables use, and whose each is (zones.py).
    """

    sections: Mapping[Hashable, Section]
    meters: Mapping[int, Meter]
    failures: tuple[str, ...] = ()
    zones: Mapping[int, Share] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def flows(self) -> dict[FlowKey, Flow]:
        """Every flow by its key. Raises PipelineError when two sections claim one key differently."""
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
        """Number of flows: `policy` (who may), `forwarding` (where), `pods` (guards), `other`, and `total`."""
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
    """The tables of `view`'s node: a function of `view` and `verdicts` alone, whatever the cache holds.

    Raises PipelineError when a flow breaks its table's declaration (our mistake, not the user's); in the rows of a
    single pod or group that closes it alone.
    """
    kept = cache if cache is not None else CompileCache()
    sections: dict[Hashable, Section] = {}
    failures: dict[Hashable, str] = {}

    def add(name: Hashable, inputs: object, build: Callable[[], Section]) -> None:
        found = kept.same(name, inputs)
        if found is None:
            found = closing(name, lambda: kept.section(name, inputs, build), failures)
        sections[name] = found

    plan = Plan.of(view.settings)
    used = kept.part("zones", zone_inputs(view), lambda: node_zones(view))
    _add_fixed(add, view, plan, used)
    _add_node(add, view, plan)
    meters = _pod_meters(view, kept)
    for pod in view.pods:
        member = verdicts.members.get(pod.key)
        if member is None:
            raise PipelineError(f"no verdicts for local pod {pod.key}")
        place = used.pods[pod.key]
        inputs = (pod, member, place, view.host)
        add(("guard", pod.key), inputs, partial(guard.pod_guard, *inputs))
        if not _is_own(view, pod.address):
            add(("place", pod.key), inputs, partial(locate.pod_place, pod, member, place, plan=plan, host=view.host))
        own = meters[pod.key]
        add(("limits", pod.key), (own, pod.survivor), partial(limit_rows, pod, own))
    _add_policy(add, view, verdicts, plan)
    close_pods(sections, failures)
    kept.forget_unused()
    return Program(
        MappingProxyType(sections),
        MappingProxyType({meter.number: meter for own in meters.values() for meter in own.present()}),
        failures=tuple(failures.values()),
        zones=used.shares,
    )


_Add = Callable[[Hashable, object, Callable[[], Section]], None]


def _add_fixed(add: _Add, view: NodeView, plan: Plan, used: NodeZones) -> None:
    places = set(used.pods.values())
    indexes = {place.index for place in places}
    apart = tuple(sorted(indexes)) if view.settings.isolation is Isolation.NONE else ()
    add("arp", (), guard.arp_frame)
    add("mac", (), guard.mac_frame)
    add("fragments", (), guard.fragments)
    add("compare", (), compare.compare_rows)
    add("tracking", (view.host, apart), lambda: locate.tracking(view.host, apart))
    inside = (route.address for route in view.foreign if route.address in plan.network)
    reserved = tuple(inside) if any(place.shared for place in places) else ()
    add("shared", (plan, view.host, reserved), lambda: shared.shared_zones(plan, view.host, reserved))
    add("states", (), track.states)
    add("roles", (), track.roles)
    add("stale", (), stale.stale)
    add("errors", (), related.error_frame)
    add("lost", (), lost.lost)
    add("commits", (), track.commits)
    add("refusals", (), track.refusals)
    add("deliveries", (), decide.deliveries)
    add("network", (plan, view.host), lambda: locate.network_place(plan, view.host))


def _add_node(add: _Add, view: NodeView, plan: Plan) -> None:
    foreign = tuple(route.address for route in view.foreign) + tuple(
        pod.address for pod in view.pods if pod.address not in plan.network
    )
    gateway = view.gateway
    if gateway is not None:
        add(
            "gateway",
            (gateway, view.host, plan, foreign),
            lambda: guard.gateway_guard(gateway, view.host, plan.network, foreign),
        )
        add("way out", (gateway, plan, view.host), lambda: locate.gateway_place(gateway, plan, view.host))
        own = (view.host, gateway.addresses)
        add("node's errors", own, lambda: related.node_errors(*own))
    for trunk in view.trunks:
        add(("trunk", trunk.ofport), trunk, partial(guard.trunk_guard, trunk))
    routes = tuple(route for route in view.foreign if not _is_own(view, route.address))
    add("hosts", (plan, view.hosts, routes), lambda: locate.remote_places(plan, view.hosts, routes))


def _is_own(view: NodeView, address: IPv4Address) -> bool:
    """Whether the node itself has what is a pod's address too: here it goes to the node, whose probes need it."""
    return view.gateway is not None and address in view.gateway.addresses


def _pod_meters(view: NodeView, kept: CompileCache) -> dict[PodKey, PodMeters]:
    rates = (view.settings.new_connections, view.settings.fragments)
    return {
        pod.key: kept.part(("meters", pod.key), (pod.key, pod.ofport, rates), partial(pod_meters, pod, view.settings))
        for pod in view.pods
    }


def _add_policy(add: _Add, view: NodeView, verdicts: Verdicts, plan: Plan) -> None:
    cut_off = verdicts.cut_off
    add("egress", (plan, view.host, cut_off), lambda: decide.egress_frame(plan, view.host, cut_off))
    add("open egress", view.host, lambda: decide.open_frame(view.host))
    add("tenancy", (verdicts.tenancy, cut_off), lambda: decide.tenancy_rows(verdicts.tenancy, cut_off))
    add("ingress", (), decide.ingress_frame)
    groups: tuple[ServerGroup | ClientGroup, ...] = (*verdicts.clients, *verdicts.servers)
    for group in groups:
        for part in _group_parts(group):
            add(*part)
    former = frozenset((pod.identity, number) for pod in view.pods for number in pod.formerly if number != pod.identity)
    add("former receivers", former, lambda: stale.former_receivers(former))


def _group_parts(group: ServerGroup | ClientGroup) -> tuple[tuple[Hashable, object, Callable[[], Section]], ...]:
    """The sections of one group: name, inputs, and how each is made."""
    if isinstance(group, ClientGroup):
        origin = group.accepted[0].origin if group.accepted else feature_origin("egress")
        return ((("client", group.number), group, partial(decide.client_rows, group, origin)),)
    return (
        (("open", group.number), group.open_egress, partial(decide.open_rows, group)),
        (("server", group.number), group.ingress, partial(decide.ingress_rows, group)),
    )


def group_entries(group: ServerGroup | ClientGroup) -> dict[Hashable, tuple[object, Section]]:
    """The sections of `group` with what they are made from, ready to be put into a cache. Raises PipelineError."""
    return {name: (inputs, sendable(build())) for name, inputs, build in _group_parts(group)}


def is_group(name: Hashable) -> bool:
    """Whether the section `name` has the rows of a group, and its number beside the kind."""
    return isinstance(name, tuple) and name[0] in ("client", "open", "server")
