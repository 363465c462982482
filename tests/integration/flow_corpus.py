"""Flows that between them use every field, mask and action, for comparisons with a real Open vSwitch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from romana_ovs.pipeline.actions import (
    Bits,
    Conjunction,
    Ct,
    CtClear,
    Goto,
    InPort,
    Load,
    Move,
    Output,
    OutputReg,
    Resubmit,
)
from romana_ovs.pipeline.cookies import OURS
from romana_ovs.pipeline.fields import FIELDS, ct_state, tcp_flags
from romana_ovs.pipeline.flow import Flow, canonical
from romana_ovs.pipeline.registers import CONNTRACK_BITS, OUT_PORT, REGISTERS
from romana_ovs.policy.view import Origin

WHY = Origin("Test")
IP = {"eth_type": (0x0800, 0xFFFF)}
ARP = {"eth_type": (0x0806, 0xFFFF)}


def _transport(number: int) -> dict[str, tuple[int, int]]:
    return {**IP, "nw_proto": (number, 0xFF)}


def _matches() -> Iterator[dict[str, tuple[int, int]]]:
    for field in FIELDS.values():
        needs = {name: (value, FIELDS[name].ones) for name, value in field.needs}
        if field.name.startswith(("ct_nw_", "ct_tp_")):
            needs["ct_state"] = ct_state("+trk+rel")
        if field.name.startswith("ct_tp_"):
            needs["ct_nw_proto"] = (6, 0xFF)
        sample = {"eth_type": 0x0800, "in_port": 7, "vlan_tci": 0, "arp_op": 2}.get(field.name, 0x5A5A5A & field.ones)
        if field.name not in ("tcp_flags", "ct_state", "nw_frag"):
            yield {**needs, field.name: (sample, field.ones)}
        if field.maskable and field.name not in ("vlan_tci", "nw_frag", "ct_state", "tcp_flags"):
            mask = field.ones & ~0b111
            yield {**needs, field.name: (sample & mask, mask)}
            low = (1 << (field.width // 2)) - 1
            if field.name not in ("nw_src", "nw_dst", "ct_nw_src", "ct_nw_dst"):
                yield {**needs, field.name: (sample & low, low)}
    yield {"in_port": (0xFFFE, FIELDS["in_port"].ones)}
    yield {"ct_state": ct_state("+trk+new")}
    yield {**IP, "ct_state": ct_state("+trk+est-rpl-inv")}
    yield {"ct_state": ct_state("+trk+rel+rpl")}
    yield {**_transport(6), "tcp_flags": tcp_flags("+syn-ack")}
    for value, mask in ((0, 3), (1, 1), (1, 3), (3, 3), (2, 2), (0, 2)):
        yield {**IP, "nw_frag": (value, mask)}
    yield {**_transport(6), "tcp_dst": (80, 0xFFF0), "nw_frag": (0, 2), "reg0": (5, 0xFF), "reg7": (1, 0xFFFFFFFF)}
    yield {
        "in_port": (3, 0xFFFFFFFF),
        "eth_src": (0x0A5801020304, (1 << 48) - 1),
        "vlan_tci": (0, 0xFFFF),
        **IP,
        "nw_src": (0x01020304, 0xFFFFFFFF),
    }
    yield {**IP, "nw_src": (0x0A000700, 0xFF003F00)}
    yield {**ARP, "arp_op": (1, 0xFFFF), "arp_spa": (0, 0xFFFFFFFF), "vlan_tci": (0, 0xFFFF)}
    yield {}


def _actions() -> Iterator[tuple[Any, ...]]:
    for register in REGISTERS:
        yield (Load(register.bits, (1 << register.bits.width) - 1), Goto("Output"))
        yield (Load(register.bits, 0),)
    for name in ("eth_src", "eth_dst", "tun_dst"):
        width = FIELDS[name].width
        yield (Load(Bits(name, 0, width), 0x5A5A5A),)
        partial = () if name == "tun_dst" else (Load(Bits(name, 4, 16), 0x5A5A),)
        yield (*partial, Move(Bits("reg1", 0, 32), Bits(name, 0, 32)))
    yield (Move(Bits("reg1", 3, 5), Bits("reg2", 7, 5)), Move(Bits("eth_src", 0, 48), Bits("eth_dst", 0, 48)))
    yield (Output(0xFFFE),)
    yield (Output(3), Output(4))
    yield (OutputReg(OUT_PORT.bits),)
    yield (OutputReg(Bits("reg3", 16, 16)),)
    yield (InPort(),)
    yield (Resubmit("ClientServer"), Goto("Output"))
    yield (CtClear(), Resubmit("SpoofGuard"))
    yield (Conjunction(0xFFFFFFFE, 1, 3),)
    yield (Conjunction(7, 1, 2), Conjunction(9, 2, 2))
    yield (Goto("Output"),)
    yield ()


def _ip_actions() -> Iterator[tuple[Any, ...]]:
    writes = tuple(Load(bit.bits, 1) for bit in CONNTRACK_BITS)
    yield (Ct(0x1001, "ClientServer"),)
    yield (Ct(0x1001),)
    yield (Ct(0x1001, "Output", True, False, (Load(Bits("ct_mark", 0, 32), 0xFFFF0001),)),)
    yield (Ct(0xFFFF, None, True, True, (*writes, Move(Bits("reg7", 0, 32), Bits("ct_mark", 0, 32)))), Output(2))
    yield (Ct(1, "Output", True, False, (Move(Bits("reg0", 0, 2), Bits("ct_label", 2, 2)),)),)


def corpus() -> list[Flow]:
    """Flows that between them use every field, mask and action that we have."""
    flows = [Flow("ClientServer", 100, canonical(match), (Output(1),), OURS | 1, WHY) for match in _matches()]
    flows += [
        Flow("Egress", 1000 + number, (), actions, OURS | number, WHY) for number, actions in enumerate(_actions())
    ]
    flows += [
        Flow("Ingress", number, canonical(IP), actions, OURS | 0xFFFFFFFFFF, WHY)
        for number, actions in enumerate(_ip_actions())
    ]
    arp = (
        Move(Bits("arp_spa", 0, 32), Bits("reg13", 0, 32)),
        Load(Bits("arp_op", 0, 16), 2),
        Move(Bits("arp_tha", 0, 48), Bits("arp_sha", 0, 48)),
        Move(Bits("arp_tpa", 0, 32), Bits("arp_spa", 0, 32)),
        InPort(),
    )
    flows.append(Flow("ArpSpoofGuard", 5, canonical(ARP), arp, OURS, WHY))
    return flows
