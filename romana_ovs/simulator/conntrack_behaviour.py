"""Declares in what the connection tracking of Open vSwitch's two datapaths differs.

Each value was observed on Open vSwitch 3.1.0: on its userspace datapath, and on the module of Linux 6.1. Userspace of
3.5.0 and 3.7.1 differs in sctp_ports alone.
tests/integration/test_conntrack_model.py compares both with the model packet by packet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from romana_ovs.model.bridge import DatapathType
from romana_ovs.pipeline.fields import ICMP, SCTP, TCP, UDP
from romana_ovs.simulator.protocol_states import Echo, KernelSctp, KernelTcp, ProtocolState, Stateless, UserspaceTcp


@dataclass(frozen=True, slots=True, kw_only=True)
class ConntrackBehaviour:
    """What a datapath's connection tracking does where the two differ."""

    datapath_type: DatapathType
    tcp: type[ProtocolState]
    sctp: type[ProtocolState]
    sctp_ports: bool
    """Whether SCTP is tracked by ports; in userspace since Open vSwitch 3.2, where its chunks do not matter either."""
    invalid_keeps_entry: bool
    """Whether an invalid packet of an entry has its mark, label and original tuple, and a commit writes them."""
    packet_keeps_entry: bool
    """Whether ct() does not track a packet again that it has tracked in this zone before."""
    force_by_errors: bool
    """Whether `force` deletes the entry that a related ICMP error is about."""
    reassembles: bool
    """Whether fragments leave ct() as one whole datagram, which is cut again on output."""

    def protocol(self, number: int) -> type[ProtocolState]:
        """How connections of an IP protocol are tracked."""
        return {TCP: self.tcp, SCTP: self.sctp, ICMP: Echo}.get(number, Stateless)

    def has_ports(self, number: int) -> bool:
        """Whether connections of an IP protocol are told apart by their ports."""
        return number in (TCP, UDP) or (number == SCTP and self.sctp_ports)


NETDEV = ConntrackBehaviour(
    datapath_type=DatapathType.NETDEV,
    tcp=UserspaceTcp,
    sctp=Stateless,
    sctp_ports=False,
    invalid_keeps_entry=True,
    packet_keeps_entry=False,
    force_by_errors=True,
    reassembles=False,
)
"""The userspace datapath of Open vSwitch 3.1."""

KERNEL = ConntrackBehaviour(
    datapath_type=DatapathType.SYSTEM,
    tcp=KernelTcp,
    sctp=KernelSctp,
    sctp_ports=True,
    invalid_keeps_entry=False,
    packet_keeps_entry=True,
    force_by_errors=False,
    reassembles=True,
)
"""The kernel's datapath."""

BEHAVIOURS: Mapping[DatapathType, ConntrackBehaviour] = {one.datapath_type: one for one in (NETDEV, KERNEL)}
