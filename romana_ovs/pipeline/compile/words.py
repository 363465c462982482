"""Conditions and loads that several sections use, named once."""

from __future__ import annotations

from romana_ovs.model.identity import IdentityMatch
from romana_ovs.pipeline.actions import Action, Bits, Load, Move
from romana_ovs.pipeline.fields import ETH_IP, VLAN_PRESENT, ct_state, tcp_flags
from romana_ovs.pipeline.registers import DIRECTION, EXIT, RELATED, REPLY, SCRATCH, SIDE, TRUNK, Register
from romana_ovs.pipeline.tables import Condition
from romana_ovs.policy.view import Origin

IP: Condition = ("eth_type", ETH_IP)
FORWARD = DIRECTION.match(1, mask=1)
"""Original or orphan: the client sent it (bit 0 of the direction mark)."""
BACKWARD = DIRECTION.match(REPLY)
DIRECT = RELATED.match(0)
"""No ICMP error about something else."""
FROM_ELSEWHERE = SIDE.match(TRUNK, mask=TRUNK)
"""Came by a trunk or the gateway: not from a local pod."""
TO_ELSEWHERE = EXIT.match(TRUNK, mask=TRUNK)
UNTAGGED: Condition = ("vlan_tci", 0, VLAN_PRESENT)
"""One bit, so that what is tagged is refused by few datapath flows."""


def feature_origin(name: str) -> Origin:
    """The origin of flows that no object of the cluster asks for."""
    return Origin("Pipeline", name=name)


def state(text: str) -> Condition:
    """A condition on the conntrack state, such as `+trk+new`."""
    return ("ct_state", *ct_state(text))


def flags(text: str) -> Condition:
    """A condition on TCP flags, such as `+syn-ack`."""
    return ("tcp_flags", *tcp_flags(text))


def load(register: Register, value: int) -> Load:
    """Write `value` into a register."""
    return Load(register.bits, value)


def loads(*pairs: tuple[Register, int]) -> tuple[Load, ...]:
    """Write several registers; zeros are left out, as registers start at 0."""
    return tuple(load(register, value) for register, value in pairs if value)


def swapped(one: Bits, other: Bits) -> tuple[Action, ...]:
    """Exchange the bits of two fields."""
    scratch = Bits(SCRATCH.bits.field, 0, one.width)
    return (Move(one, scratch), Move(other, one), Move(scratch, other))


def identified(register: Register, match: IdentityMatch) -> Condition:
    """A condition on an identity register."""
    return register.match(match.value, match.mask)
