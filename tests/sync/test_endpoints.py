"""Which pods flows serve, and whose connections a plan makes obsolete: over flows as the compiler writes them."""

from __future__ import annotations

from ipaddress import IPv4Address

from romana_ovs.model.objects import PodKey
from romana_ovs.pipeline.actions import Action, Goto, Load
from romana_ovs.pipeline.cookies import OURS
from romana_ovs.pipeline.flow import Flow, FlowKey, canonical
from romana_ovs.pipeline.priorities import L3Forward
from romana_ovs.pipeline.registers import LOCAL, OUT_PORT, PKT_DESTINATION, RECEIVER_ID, RECEIVER_PRE_RESTART, UPLINK
from romana_ovs.policy.view import Origin
from romana_ovs.sync.attached_pods import AttachedPod, attached_pod_changes, attached_pods, reassigned
from romana_ovs.sync.diff import flow_diff

A, B, C = (IPv4Address(f"10.0.0.{number}") for number in (1, 2, 3))


def _place(address: IPv4Address, port: int, *, exit_: int = LOCAL, pre_restart: int = 0, identity: int = 7) -> Flow:
    actions: tuple[Action, ...] = (
        Load(PKT_DESTINATION.bits, exit_),
        *([Load(RECEIVER_PRE_RESTART.bits, 1)] if pre_restart else []),
        Load(RECEIVER_ID.bits, identity),
        Load(OUT_PORT.bits, port),
        Goto("ConntrackZone"),
    )
    match = canonical({"eth_type": (0x800, 0xFFFF), "nw_dst": (int(address), 0xFFFFFFFF)})
    return Flow("L3Forward", L3Forward.ENDPOINT, match, actions, OURS, Origin("Pod"))


def _map(*flows: Flow) -> dict[FlowKey, Flow]:
    return {flow.key: flow for flow in flows}


def test_local_pods_alone_are_endpoints() -> None:
    flows = [
        _place(A, 3, pre_restart=1),
        _place(B, 4, exit_=UPLINK),
        Flow("ArpSpoofGuard", 400, (), (), OURS, Origin("x")),
    ]
    assert attached_pods(flows) == {A: AttachedPod(3, True)}


def test_who_comes_and_who_goes() -> None:
    before, after = _map(_place(A, 3)), _map(_place(B, 4))
    found = attached_pod_changes(before, flow_diff(after, before))
    assert (found.added, found.removed) == ({B: AttachedPod(4, False)}, {A: AttachedPod(3, False)})


def test_another_port_is_another_attachment() -> None:
    before, after = _map(_place(A, 3)), _map(_place(A, 4))
    found = attached_pod_changes(before, flow_diff(after, before))
    assert (found.added, found.removed) == ({A: AttachedPod(4, False)}, {})


def test_a_reassigned_address_is_found_by_uid() -> None:
    a, b = PodKey("ns/a"), PodKey("ns/b")
    before = {A: (a, "1"), B: (b, ""), C: (a, "1")}
    assert reassigned(before, {A: (a, "1"), B: (b, "2"), C: (a, "")}) == (), "of an unknown UID nothing can be said"
    assert reassigned(before, {A: (a, "2"), B: (a, "1")}) == (A, B)
    assert reassigned({}, before) == () and reassigned(before, {}) == ()


def test_a_new_identity_interrupts_nothing() -> None:
    before, after = _map(_place(A, 3)), _map(_place(A, 3, identity=8))
    found = attached_pod_changes(before, flow_diff(after, before))
    assert (found.added, found.removed) == ({}, {})
