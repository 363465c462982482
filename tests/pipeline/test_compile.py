"""The compiler's own promises: declarations are kept, ranges are exact, conjunctions are merged and bounded."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.model.cluster import SegmentKey
from romana_ovs.model.errors import PipelineError
from romana_ovs.model.identity import IdentityMatch, identity, whole_segments
from romana_ovs.model.labels import NO_LABELS
from romana_ovs.model.objects import PodKey, Protocol
from romana_ovs.model.settings import Settings
from romana_ovs.pipeline import priorities
from romana_ovs.pipeline.actions import ApplyMeter, Bits, Conjunction, Goto, Load, Move, Resubmit
from romana_ovs.pipeline.compile import CompileCache, Program, compile_node
from romana_ovs.pipeline.compile.port_masks import masks
from romana_ovs.pipeline.compile.spoof_guard import uplink_guard
from romana_ovs.pipeline.cookies import MAGIC, MAGIC_SHIFT, Feature, cookie
from romana_ovs.pipeline.flow import Flow
from romana_ovs.pipeline.registers import REGISTERS
from romana_ovs.pipeline.tables import TABLE, TABLE_IDS, TABLES, flow
from romana_ovs.policy.rules import PortRange
from romana_ovs.policy.view import Allow, LocalPod, Membership, NodePermissions, NodeView, Origin, ServerGroup, Uplink

PLAN = AddressPlan.of(Settings())
ORIGIN = Origin("NetworkPolicy", "d", "p", "ingress[0]")
OTHER = Origin("NetworkPolicy", "d", "q", "ingress[0]")
SOURCES = frozenset(IdentityMatch(identity(number, 1)) for number in range(1, 9))
PORTS = tuple(PortRange(Protocol.TCP, port, port) for port in (80, 443, 8080))


def compiled(*allows: Allow, cache: CompileCache | None = None, pods: int = 1) -> dict[str, list[Flow]]:
    """Flows by table of a node whose pods are in one server group that admits `allows`."""
    tables: dict[str, list[Flow]] = {table.name: [] for table in TABLES}
    for item in program(*allows, cache=cache, pods=pods).flows.values():
        tables[item.table].append(item)
    return tables


def program(*allows: Allow, cache: CompileCache | None = None, pods: int = 1) -> Program:
    """The same as a program."""
    local = tuple(
        LocalPod(
            PodKey(f"d/{number}"),
            "d",
            NO_LABELS,
            SegmentKey("t", "x"),
            identity(1, 1),
            PLAN.address(1, 1, number),
            PLAN.mac(PLAN.address(1, 1, number)),
            number,
        )
        for number in range(1, pods + 1)
    )
    view = NodeView(Settings(), "node1", 1, local, {"t": (whole_segments(0, 4),)}, {}, {}, {}, ())
    permissions = NodePermissions({pod.key: Membership(7) for pod in local}, (ServerGroup(7, allows, ()),), (), None)
    return compile_node(view, permissions, cache)


@given(st.integers(0, 65535), st.integers(0, 65535), st.sampled_from(Protocol))
def test_ranges_become_exact_masks(one: int, other: int, protocol: Protocol) -> None:
    """docs/hazards.md A7, for every protocol: the union of the masks is the range, 30 at most."""
    low, high = sorted((one, other))
    found = list(masks(low, high))
    assert len(found) <= 30
    covered = sorted((value, value + (0xFFFF & ~mask)) for value, mask in found)
    assert covered[0][0] == low and covered[-1][1] == high
    assert all(after[0] == before[1] + 1 for before, after in zip(covered, covered[1:], strict=False))
    rows = compiled(Allow(ORIGIN, ports=(PortRange(protocol, low, high),)))["Ingress"]
    words = (f"{protocol.value},", f"ct_nw_proto={protocol.number},")
    texts = [row.match_text() + "," for row in rows if row.priority == priorities.Ingress.ALLOW]
    assert all(any(word in text for word in words) for text in texts)


@pytest.mark.parametrize("bounds", [(5, 4), (-1, 4), (0, 65536)])
def test_an_invalid_port_range_is_refused(bounds: tuple[int, int]) -> None:
    with pytest.raises(PipelineError, match="not a range"):
        list(masks(*bounds))


@pytest.mark.parametrize(
    ("match", "actions", "reason"),
    [
        ([("arp_op", 1)], [], "does not match arp_op"),
        ([("nw_src", 1, 0x2)], [], "not a valid match"),
        ([("conj_id", 1, 0xFF)], [], "not a valid match"),
        ([("tcp_dst", 80), ("udp_dst", 80)], [], "can never match"),
        ([], [Load(Bits("reg1", 0, 32), 1)], "does not write reg1"),
        ([], [Goto("SpoofGuard")], "does not lead to SpoofGuard"),
        ([], [Goto("ConntrackCommit"), Goto("ConntrackRevoke")], "must be last"),
        ([], [Conjunction(1, 1, 2), Goto("ConntrackCommit")], "no other actions"),
        ([], [ApplyMeter(1), Goto("ConntrackCommit"), ApplyMeter(1)], "must be last"),
        ([], [Resubmit("ConntrackCommit"), ApplyMeter(1)], "must come first"),
    ],
)
def test_a_flow_off_its_tables_declaration_is_refused(match: list[Any], actions: list[Any], reason: str) -> None:
    with pytest.raises(PipelineError, match=reason):
        flow(priorities.Ingress.ALLOW, match, actions, feature=Feature.POLICY, origin=ORIGIN)


def test_loads_and_moves_must_fit() -> None:
    for action, reason in (
        (Load(Bits("reg0", 0, 2), 4), "does not fit"),
        (Move(Bits("reg1", 0, 32), Bits("reg0", 0, 2)), "differ in width"),
    ):
        with pytest.raises(PipelineError, match=reason):
            flow(priorities.ConntrackState.REPLY, [], [action], feature=Feature.CONNTRACK, origin=ORIGIN)


def test_registers_do_not_overlap_and_tables_lead_to_tables() -> None:
    used: dict[str, int] = {}
    for register in REGISTERS:
        mask = ((1 << register.bits.width) - 1) << register.bits.low
        assert not used.get(register.bits.field, 0) & mask, register.name
        used[register.bits.field] = used.get(register.bits.field, 0) | mask
        assert register.written in TABLE and register.read in TABLE, register.name
    assert all(target in TABLE for table in TABLES for target in table.leads_to)


def test_cookies_are_ours_and_lead_back() -> None:
    assert cookie(Feature.POLICY, ORIGIN) == cookie(Feature.POLICY, replace(ORIGIN))
    assert cookie(Feature.POLICY, ORIGIN) != cookie(Feature.POLICY, OTHER)
    assert cookie(Feature.POLICY, ORIGIN) >> MAGIC_SHIFT == MAGIC != 0xFFFF


def clause_rows(tables: dict[str, list[Flow]]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Clause rows of table Ingress: actions by match."""
    return {row.match: row.actions for row in tables["Ingress"] if row.priority == priorities.Ingress.CLAUSE}


def test_large_rules_grow_by_sum_not_by_product() -> None:
    """docs/hazards.md B19: sources + ports + a constant."""
    rows = compiled(Allow(ORIGIN, SOURCES, ports=PORTS))["Ingress"]
    port_rows = 3 * len(PORTS) + 1
    assert len(rows) == len(SOURCES) + port_rows + 2
    small = compiled(Allow(ORIGIN, frozenset({IdentityMatch(identity(1, 1))}), ports=PORTS))["Ingress"]
    assert not any(isinstance(action, Conjunction) for row in small for action in row.actions)


def test_clauses_of_one_match_are_one_flow() -> None:
    """docs/hazards.md B17: a shared clause serves both policies, and losing one leaves the other."""
    first = Allow(ORIGIN, SOURCES, ports=PORTS)
    second = Allow(OTHER, SOURCES, ports=(*PORTS, PortRange(Protocol.UDP, 53, 53)))
    both, alone = clause_rows(compiled(first, second)), clause_rows(compiled(first))
    shared = [actions for actions in both.values() if len(actions) == 2]
    assert len(shared) >= len(SOURCES)
    numbers = {action.number for actions in both.values() for action in actions}
    assert len(numbers) == 2
    assert alone.keys() <= both.keys()
    assert all(set(alone[match]) <= set(both[match]) for match in alone)


def test_conjunctions_and_plain_flows_share_no_priority() -> None:
    """docs/hazards.md B18."""
    tables = compiled(Allow(ORIGIN, SOURCES, ports=PORTS), Allow(OTHER, ports=PORTS))
    for rows in tables.values():
        kinds: dict[int, set[bool]] = {}
        for row in rows:
            kinds.setdefault(row.priority, set()).add(any(isinstance(item, Conjunction) for item in row.actions))
        assert all(len(kind) == 1 for kind in kinds.values())
    assert len({priorities.Ingress.CLAUSE, priorities.Ingress.ALLOW, priorities.Ingress.CONJUNCTION}) == 3


def test_order_of_permissions_changes_nothing() -> None:
    """docs/hazards.md A17 and B19: a re-ordered policy sends no flow-mod."""
    allows = [
        Allow(ORIGIN, SOURCES, ports=PORTS),
        Allow(OTHER, SOURCES, ports=(*PORTS, PortRange(Protocol.UDP, 53, 53))),
        Allow(OTHER, cidrs=(IPv4Network("192.0.2.0/24"),), identities=frozenset()),
    ]
    texts = {
        frozenset(row.text(TABLE_IDS) for rows in compiled(*order).values() for row in rows)
        for order in permutations(allows)
    }
    assert len({frozenset(line.partition(", ")[2].partition(", ")[2] for line in text) for text in texts}) == 1


def test_an_empty_permission_admits_nothing() -> None:
    """docs/hazards.md A12: no peers left is no row, never a row without peers."""
    rows = compiled(Allow(ORIGIN, identities=frozenset(), ports=PORTS), Allow(OTHER, ports=()))["Ingress"]
    assert [row.priority for row in rows] == [priorities.Ingress.MISS]


def test_wider_identities_swallow_narrower_ones() -> None:
    wide = frozenset({whole_segments(4, 4), IdentityMatch(identity(5, 1)), IdentityMatch(identity(9, 1))})
    rows = compiled(Allow(ORIGIN, wide))["Ingress"]
    assert len([row for row in rows if row.priority == priorities.Ingress.ALLOW]) == 2


def test_unchanged_sections_are_identical_between_compiles() -> None:
    cache, allow = CompileCache(), Allow(ORIGIN, SOURCES, ports=PORTS)
    before = program(allow, cache=cache).sections
    after = program(allow, cache=cache, pods=2).sections
    changed = {name for name, section in after.items() if before.get(name) is not section}
    assert changed == {(kind, "d/2") for kind in ("spoof guard", "route", "metering")}
    program(allow, cache=cache)
    assert (len(cache.sections), len(cache.meters)) == (len(before), 1)


def test_a_pod_without_verdicts_is_our_own_mistake() -> None:
    pod = LocalPod(
        PodKey("d/a"),
        "d",
        NO_LABELS,
        SegmentKey("t", "x"),
        identity(1, 1),
        PLAN.address(1, 1, 1),
        "0a:58:0a:00:10:41",
        1,
    )
    view = NodeView(Settings(), "node1", 1, (pod,), {}, {}, {}, {}, ())
    with pytest.raises(PipelineError, match="d/a"):
        compile_node(view, NodePermissions({}, (), (), None))


@given(st.sets(st.integers(0xAC100000, 0xAC10001F), min_size=1))
def test_a_tunnel_takes_packets_of_exactly_the_known_nodes(known: set[int]) -> None:
    peers = tuple(IPv4Address(number) for number in sorted(known))
    rows = uplink_guard(Uplink(9, peers))
    senders = [item for row in rows for item in row.match if item.field == "tun_src"]
    assert len(senders) == len(rows)
    for number in range(0xAC0FFFF0, 0xAC100030):
        taking = [item for item in senders if number & item.mask == item.value]
        assert len(taking) == (number in known)


def test_neighbouring_nodes_share_a_row_of_the_tunnel() -> None:
    peers = tuple(IPv4Address("192.0.2.0") + number for number in range(64))
    assert len(uplink_guard(Uplink(9, peers))) == 1
    assert uplink_guard(Uplink(9, ())) == ()
