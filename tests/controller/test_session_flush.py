"""Whose conntrack entries a session flushes: those of addresses that have another owner, whatever the switch forgot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import cast

import eventlet

from romana_ovs import runtime
from romana_ovs.controller.pre_restart import PreRestartPods
from romana_ovs.controller.session import DesiredState, Session
from romana_ovs.flag import Flag
from romana_ovs.model.objects import PodKey
from romana_ovs.pipeline.actions import Goto, Load
from romana_ovs.pipeline.compile import Program
from romana_ovs.pipeline.cookies import OURS
from romana_ovs.pipeline.flow import Flow, FlowKey, canonical
from romana_ovs.pipeline.priorities import L3Forward
from romana_ovs.pipeline.registers import LOCAL, OUT_PORT, PKT_DESTINATION
from romana_ovs.pipeline.zones import common_zone, zone
from romana_ovs.policy.view import Origin
from romana_ovs.switch.channel import Channel
from romana_ovs.sync.attached_pods import PodByAddress
from tests.support.fake_channel import FakeChannel

assert runtime.OFP_VERSION == 6, "Ryu's modules can be imported in its own order alone: runtime comes first"

HOST = 3
KEPT, NEW, GONE = (IPv4Address(f"10.0.0.{number}") for number in (1, 2, 3))
ZONES = sorted({zone(HOST, 0), common_zone(HOST)})


def _row(address: IPv4Address, port: int) -> Flow:
    actions = (Load(PKT_DESTINATION.bits, LOCAL), Load(OUT_PORT.bits, port), Goto("ConntrackZone"))
    match = canonical({"eth_type": (0x800, 0xFFFF), "nw_dst": (int(address), 0xFFFFFFFF)})
    return Flow("L3Forward", L3Forward.ENDPOINT, match, actions, OURS, Origin("Pod"))


def _flows(*pods: tuple[IPv4Address, int]) -> dict[FlowKey, Flow]:
    return {row.key: row for row in (_row(*pod) for pod in pods)}


def _desired(
    *pods: tuple[IPv4Address, int],
    programmed: Iterable[IPv4Address] = (),
    reassigned: Iterable[IPv4Address] = (),
    owners: PodByAddress = MappingProxyType({}),
) -> DesiredState:
    program = Program({"pods": tuple(_flows(*pods).values())}, {})
    return DesiredState(
        1,
        1,
        program,
        HOST,
        pod_by_address=owners,
        unchanged_addresses=frozenset(programmed),
        reassigned_addresses=frozenset(reassigned),
    )


def _asked(before: Mapping[FlowKey, Flow], *desired: DesiredState) -> list[object]:
    """What a switch with these flows is asked for, for one desired state after the other."""
    channel = FakeChannel(before)
    session = Session(cast(Channel, channel), Flag())
    thread = eventlet.spawn(session.run)
    for state in desired:
        session.set_desired(state)
        for _ in range(10):
            eventlet.sleep(0)
        assert session.confirmed is state
    session.on_disconnect()
    thread.wait()
    return channel.asked


def _flushes(*addresses: IPv4Address) -> list[object]:
    return [(number, address) for address in addresses for number in ZONES]


def test_a_switch_without_flows_keeps_what_is_not_anothers() -> None:
    """ovs-vswitchd was restarted: the kernel has the connections still."""
    desired = _desired((KEPT, 1), (NEW, 2), programmed=[KEPT])
    assert _asked({}, desired) == [*_flushes(NEW), "flows"]


def test_flows_in_place_do_not_hide_another_owner() -> None:
    """The controller was away while a port, of the same number, became another pod's of the same address."""
    flows = _flows((KEPT, 1), (NEW, 2))
    desired = _desired((KEPT, 1), (NEW, 2), programmed=[KEPT], reassigned=[NEW, GONE])
    assert _asked(flows, desired) == [*_flushes(NEW), "flows"]


def test_what_is_not_marked_but_has_flows_is_kept() -> None:
    """Where the database takes no marks, a restart of the controller must not cut what goes on."""
    assert _asked(_flows((KEPT, 1)), _desired((KEPT, 1))) == ["flows"]


def test_another_owner_is_seen_once_and_a_removed_pod_after() -> None:
    first, second = {KEPT: (PodKey("a/x"), "1")}, {KEPT: (PodKey("a/x"), "2")}
    started = _desired((KEPT, 1), (GONE, 3), reassigned=[KEPT], owners=first)
    again = _desired((KEPT, 1), (GONE, 3), reassigned=[KEPT], owners=first)
    other = _desired((KEPT, 1), reassigned=[KEPT], owners=second)
    asked = _asked(_flows((KEPT, 1), (GONE, 3)), started, again, other)
    assert asked == [*_flushes(KEPT), "flows", "flows", *_flushes(KEPT), "flows", *_flushes(GONE)]


def test_what_was_found_out_over_the_management_socket_is_kept() -> None:
    """The switch's own connection replaces that one; without flows the switch was restarted once more."""
    former = PreRestartPods({}, fresh=True, lost_at=5.0)
    assert _pre_restart(_flows((KEPT, 1)), former) is former
    assert _pre_restart({}, former) is not former


def _pre_restart(flows: Mapping[FlowKey, Flow], former: PreRestartPods) -> PreRestartPods | None:
    session = Session(cast(Channel, FakeChannel(flows)), Flag(), former)
    thread = eventlet.spawn(session.run)
    for _ in range(10):
        eventlet.sleep(0)
    assert session.ready
    session.on_disconnect()
    thread.wait()
    return session.pre_restart
