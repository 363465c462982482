"""Defines match conditions and register loads that several modules use."""

from __future__ import annotations

from romana_ovs.model.identity import IdentityMatch
from romana_ovs.pipeline.actions import Action, Bits, Load, Move
from romana_ovs.pipeline.fields import ETH_IP, VLAN_PRESENT, ct_state, tcp_flags
from romana_ovs.pipeline.registers import (
    DIRECTION,
    GATEWAY,
    LOCAL,
    PKT_DESTINATION,
    PKT_SOURCE,
    RELATED,
    REPLY,
    SCRATCH,
    UPLINK,
    Register,
)
from romana_ovs.pipeline.tables import Condition
from romana_ovs.policy.view import Origin

IP: Condition = ("eth_type", ETH_IP)
FROM_CLIENT = DIRECTION.match(1, mask=1)
"""Original or midstream: taken as sent by the client of the connection (bit 0 of the direction mark)."""
FROM_SERVER = DIRECTION.match(REPLY)
DIRECT = RELATED.match(0)
"""Not an ICMP error about another packet."""
FROM_LOCAL, FROM_UPLINK, FROM_GATEWAY = (PKT_SOURCE.match(side) for side in (LOCAL, UPLINK, GATEWAY))
TO_LOCAL, TO_UPLINK, TO_GATEWAY = (PKT_DESTINATION.match(side) for side in (LOCAL, UPLINK, GATEWAY))
FROM_ELSEWHERE = PKT_SOURCE.match(UPLINK, mask=UPLINK)
"""From an uplink or the gateway: not from a local pod."""
TO_ELSEWHERE = PKT_DESTINATION.match(UPLINK, mask=UPLINK)
UNTAGGED: Condition = ("vlan_tci", 0, VLAN_PRESENT)
"""One bit, so that few megaflows drop all tagged frames."""


def feature_origin(name: str) -> Origin:
    """The origin of flows that stand for no object of the cluster."""
    return Origin("Pipeline", name=name)


def ct_state_match(text: str) -> Condition:
    """A condition on the conntrack state, such as `+trk+new`."""
    return ("ct_state", *ct_state(text))


def tcp_flags_match(text: str) -> Condition:
    """A condition on TCP flags, such as `+syn-ack`."""
    return ("tcp_flags", *tcp_flags(text))


def load(register: Register, value: int) -> Load:
    """Write `value` into a register."""
    return Load(register.bits, value)


def loads(*pairs: tuple[Register, int]) -> tuple[Load, ...]:
    """Write several registers; zeros are left out, as registers start at 0."""
    return tuple(load(register, value) for register, value in pairs if value)


def swapped(left: Bits, right: Bits) -> tuple[Action, ...]:
    """Exchange the bits of two fields."""
    scratch = Bits(SCRATCH.bits.field, 0, left.width)
    return (Move(left, scratch), Move(right, left), Move(scratch, right))


def identified(register: Register, match: IdentityMatch) -> Condition:
    """A condition on an identity register."""
    return register.match(match.value, match.mask)
