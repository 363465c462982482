"""The allocator under any sequence of events, beside a copy that is saved and loaded before every one of them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from romana_ovs.addressing.allocator import Allocator, Endpoint
from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.model.cluster import SegmentKey
from romana_ovs.model.errors import AddressError
from romana_ovs.model.objects import PodKey, same_uid
from tests.support.hypothesis_profiles import examples

PLANS = (
    AddressPlan(IPv4Network("10.9.0.0/24"), 4, 2, 2),
    AddressPlan(IPv4Network("10.9.0.0/26"), 2, 2, 2),
    AddressPlan(IPv4Network("10.9.0.0/25"), 2, 1, 4),
)
PODS = st.sampled_from([PodKey(f"ns/{letter}{number}") for letter in "abc" for number in range(6)])
UIDS = st.sampled_from(["", "1", "2"])
NODES = st.sampled_from(["n1", "n2", "n3", "n4", "n5"])
SEGMENTS = st.builds(SegmentKey, st.sampled_from(["t1", "t2", ""]), st.sampled_from(["web", "db"]))
ADDRESSES = st.one_of(
    st.integers(0, 255).map(lambda low: IPv4Address("10.9.0.0") + low), st.just(IPv4Address("192.168.0.1"))
)


class Events(RuleBasedStateMachine):
    """What must hold of the registry, whatever happens."""

    @initialize(plan=st.sampled_from(PLANS))
    def start(self, plan: AddressPlan) -> None:
        self.plan = plan
        self.registry = Allocator(plan)
        self.restarted = Allocator(plan)
        self.numbers: dict[SegmentKey, int] = {}
        self.freed: dict[tuple[SegmentKey, str], list[IPv4Address]] = defaultdict(list)

    def both(self, act: Callable[[Allocator], Any]) -> Any:
        """The result of one event, which is the same after a restart."""
        self.restarted = Allocator.from_json(json.loads(json.dumps(self.restarted.to_json())), self.plan)
        results = []
        for registry in (self.registry, self.restarted):
            try:
                results.append(act(registry))
            except AddressError as refused:
                results.append(str(refused))
        assert results[0] == results[1]
        return results[0]

    @rule(pod=PODS, uid=UIDS, node=NODES, segment=SEGMENTS)
    def attach(self, pod: PodKey, uid: str, node: str, segment: SegmentKey) -> None:
        held = self.registry.endpoint(pod)
        kept = held is not None and same_uid(held.uid, uid) and held.node == node and not held.foreign
        before = {key: end for key, end in self.registry.endpoints.items() if key != pod}
        if held is not None and not kept:
            self._freed(held)
        result = self.both(lambda registry: registry.attach(pod, uid=uid, node=node, segment=segment))
        assert {key: end for key, end in self.registry.endpoints.items() if key != pod} == before
        if isinstance(result, str):
            self._exhausted(node, segment)
            return
        assert held is None or not kept or result == replace(held, uid=held.uid or uid)
        if not kept:
            place = self.plan.split(result.address)
            assert place is not None and place.segment in self.registry.indexes(segment)
            assert place.host == self.registry.hosts[node]
            self._was_longest_free(result)

    def _freed(self, held: Endpoint) -> None:
        if held.segment is not None:
            self.freed[held.segment, held.node].append(held.address)

    def _was_longest_free(self, end: Endpoint) -> None:
        """What was freed is used again only after every other free number, and in the order of freeing."""
        assert end.segment is not None
        waiting = self.freed[end.segment, end.node]
        if end.address in waiting:
            usable = [address for address in waiting if not self._reserved(address, but=end.pod)]
            assert usable[0] == end.address
            waiting.remove(end.address)

    def _reserved(self, address: IPv4Address, but: PodKey | None = None) -> bool:
        owners = {end.address for end in self.registry.endpoints.values() if end.pod != but}
        return address in owners or address in self.blocked

    blocked: frozenset[IPv4Address] = frozenset()

    def _exhausted(self, node: str, segment: SegmentKey) -> None:
        """A refusal is true: no host number is left, or no index, or nothing in all of the indexes on this node."""
        if node not in self.registry.hosts:
            assert len(self.registry.hosts) + self._hosts_passed_over() == self.plan.hosts
            return
        owned = sum(run.size for runs in self.registry.tenants.values() for run in runs)
        assert owned == self.plan.segments - 1
        host = self.registry.hosts[node]
        for index in self.registry.indexes(segment):
            for endpoint in range(self.plan.endpoints):
                value = int(self.plan.segment_cidr(index)[0]) + (host << self.plan.endpoint_bits) + endpoint
                assert not self.plan.usable(value) or self._reserved(IPv4Address(value))

    def _hosts_passed_over(self) -> int:
        used = set(self.registry.hosts.values())
        free = set(range(self.plan.hosts)) - used
        return sum(1 for number in free if self._reserved(self.plan.gateway(number)))

    @rule(pod=PODS, uid=UIDS, node=NODES, address=ADDRESSES)
    def claim(self, pod: PodKey, uid: str, node: str, address: IPv4Address) -> None:
        held = self.registry.endpoint(pod)
        same = held is not None and same_uid(held.uid, uid) and (held.node, held.address) == (node, address)
        ours = held is not None and same and not held.foreign
        owner = next((end.pod for end in self.registry.endpoints.values() if end.address == address), None)
        result = self.both(lambda registry: registry.claim(pod, uid=uid, node=node, address=address))
        if isinstance(result, str):
            nobodys = address in self.blocked or address in self.plan.node_addresses()
            assert owner not in (None, pod) or nobodys or self.plan.address_fault(address)
            assert self.registry.endpoint(pod) == held
            return
        assert owner in (None, pod) and result.address == address and result.foreign != ours
        if held is not None and not same:
            self._freed(held)

    @rule(pod=PODS, uid=UIDS)
    def release(self, pod: PodKey, uid: str) -> None:
        held = self.registry.endpoint(pod)
        gone = self.both(lambda registry: registry.release(pod, uid=uid))
        assert gone == (held is not None and held.uid == uid)
        assert (self.registry.endpoint(pod) is None) == (gone or held is None)
        if gone and held is not None:
            self._freed(held)

    @rule(node=NODES)
    def forget_host(self, node: str) -> None:
        self.both(lambda registry: registry.forget_host(node))
        assert node not in self.registry.hosts or any(end.node == node for end in self.registry.endpoints.values())

    @rule(node=NODES)
    def host(self, node: str) -> None:
        known = self.registry.hosts.get(node)
        number = self.both(lambda registry: registry.host(node))
        assert known is None or known == number

    @rule(addresses=st.frozensets(ADDRESSES, max_size=3))
    def block(self, addresses: frozenset[IPv4Address]) -> None:
        self.both(lambda registry: registry.reserve(addresses))
        self.blocked = addresses

    @rule(tenant=st.sampled_from(["t1", "t3"]), tiers=st.sets(st.sampled_from(["web", "db", "x", "y", "z"])))
    def admit(self, tenant: str, tiers: list[str]) -> None:
        self.both(lambda registry: registry.allocate_tiers(tenant, tiers))

    @invariant()
    def no_address_has_two_owners(self) -> None:
        addresses = [end.address for end in self.registry.endpoints.values()]
        assert len(set(addresses)) == len(addresses)

    @invariant()
    def addresses_belong_to_the_tenant_of_their_segment(self) -> None:
        for end in self.registry.endpoints.values():
            if end.segment is not None:
                parts = self.plan.split(end.address)
                assert parts is not None
                assert any(parts.segment in run.indexes for run in self.registry.tenants[end.segment.tenant])

    @invariant()
    def runs_are_aligned_and_apart(self) -> None:
        seen = {0}
        for runs in self.registry.tenants.values():
            for run in runs:
                assert run.base % run.size == 0 and run.size & run.size - 1 == 0
                assert seen.isdisjoint(run.indexes)
                seen.update(run.indexes)

    @invariant()
    def numbers_are_for_good_and_hosts_apart(self) -> None:
        assert self.numbers.items() <= self.registry.segments.items()
        self.numbers = dict(self.registry.segments)
        assert len(set(self.registry.hosts.values())) == len(self.registry.hosts)

    @invariant()
    def a_restart_changes_nothing(self) -> None:
        assert self.registry.to_json() == self.restarted.to_json()


TestEvents = Events.TestCase
TestEvents.settings = settings(max_examples=examples(60), stateful_step_count=60, deadline=None)
