"""Simulates the connection tracking of Open vSwitch's userspace datapath, as far as flows can match it.

Source: ovs-fields(7) "Connection Tracking Fields", ovs-actions(7) "ct", and the behaviour of Open vSwitch
3.1.0 itself, which tests/integration/test_conntrack_model.py compares with this packet by packet.
Not modelled: timeouts, TCP sequence numbers (`Packet.in_window` stands for them), NAT, helpers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import NamedTuple

from romana_ovs.pipeline.fields import CT_STATE_BITS, ETH_IP, ICMP, SCTP, TCP, TCP_FLAG_BITS, UDP
from romana_ovs.simulator.packet import ACK, ECHO_REPLY, ECHO_REQUEST, FIN, RST, SYN, Packet

NEW, EST, REL, RPL, INV, TRK = (CT_STATE_BITS[word] for word in ("new", "est", "rel", "rpl", "inv", "trk"))
_NEEDS_ACK = TCP_FLAG_BITS["fin"] | TCP_FLAG_BITS["psh"] | TCP_FLAG_BITS["urg"]


class FiveTuple(NamedTuple):
    """The tuple of a connection in one direction; ports are 0 if the protocol is tracked without ports."""

    zone: int
    proto: int
    source: int
    source_port: int
    target: int
    target_port: int

    def reversed(self) -> FiveTuple:
        """The tuple of the other direction."""
        return FiveTuple(self.zone, self.proto, self.target, self.target_port, self.source, self.source_port)


class _Peer(IntEnum):
    """The TCP state of one end."""

    CLOSED = 0
    SYN_SENT = 1
    ESTABLISHED = 2
    CLOSING = 3
    FIN_WAIT = 4
    TIME_WAIT = 5


@dataclass(frozen=True, slots=True)
class Entry:
    """A committed connection; `sent` and `answered` are the TCP states of its original source and destination.

    `replied`: a packet of the reply direction was seen (which makes UDP and ICMP established).
    """

    original: FiveTuple
    mark: int = 0
    label: int = 0
    sent: _Peer = _Peer.SYN_SENT
    answered: _Peer = _Peer.CLOSED
    replied: bool = False


class Write(NamedTuple):
    """What `ct(exec(...))` writes: bits of `mask` become those of `value`."""

    value: int
    mask: int

    def over(self, old: int) -> int:
        """`old` with the written bits in place."""
        return self.value & self.mask | old & ~self.mask


NO_WRITE = Write(0, 0)


class Tracked(NamedTuple):
    """The conntrack fields of a packet after ct()."""

    zone: int
    state: int
    mark: int
    label: int
    original: FiveTuple | None = None
    """The tuple of the connection's first packet; None if the packet belongs to no connection."""


@dataclass(frozen=True, slots=True)
class Commitment:
    """How a ct action commits; `force` reverses an entry if the packet is a reply."""

    force: bool = False
    mark: Write = NO_WRITE
    label: Write = NO_WRITE


class Conntrack:
    """The table of one switch process: connections by zone and tuple.

    `sctp_ports`: whether SCTP is tracked by ports (Open vSwitch 3.2 or later).
    """

    def __init__(self, *, sctp_ports: bool = False) -> None:
        self._sctp_ports = sctp_ports
        self._entries: dict[FiveTuple, Entry] = {}

    def entries(self) -> tuple[Entry, ...]:
        """All connections, in the order in which they were committed."""
        return tuple(self._entries.values())

    def flush(self, *, zone: int | None = None, address: int | None = None) -> None:
        """Flushes every connection of the zone with the address at either end; None is any."""
        self._entries = {
            key: entry
            for key, entry in self._entries.items()
            if not ((zone is None or key.zone == zone) and (address is None or address in (key.source, key.target)))
        }

    def process(self, packet: Packet, zone: int, commit: Commitment | None = None) -> Tracked:
        """Tracks the packet in `zone`; with `commit` None a new connection is not committed."""
        key = self._tuple(packet, zone)
        if key is None:
            return Tracked(zone, INV | TRK, 0, 0)
        entry, reply = self._find(key)
        if commit is not None and commit.force and reply and entry is not None:
            del self._entries[entry.original]
            entry = None
        state = 0
        if entry is not None:
            entry, state = self._track_known(entry, reply, packet)
        if entry is None:
            return self._track_new(key, packet, commit)
        if commit is not None:
            entry = replace(entry, mark=commit.mark.over(entry.mark), label=commit.label.over(entry.label))
        self._entries[entry.original] = entry
        return Tracked(zone, state | TRK, entry.mark, entry.label, entry.original)

    def _find(self, key: FiveTuple) -> tuple[Entry | None, bool]:
        entry = self._entries.get(key)
        if entry is not None:
            return entry, False
        return self._entries.get(key.reversed()), True

    def _track_new(self, key: FiveTuple, packet: Packet, commit: Commitment | None) -> Tracked:
        if packet.is_error or not _may_begin(packet):
            return Tracked(key.zone, INV | TRK, 0, 0)
        if commit is None:
            return Tracked(key.zone, NEW | TRK, 0, 0, key)
        entry = Entry(key, commit.mark.over(0), commit.label.over(0))
        self._entries[key] = entry
        return Tracked(key.zone, NEW | TRK, entry.mark, entry.label, key)

    def _track_known(self, entry: Entry, reply: bool, packet: Packet) -> tuple[Entry | None, int]:
        """The entry after the packet and the packet's state; no entry when a new connection replaces it."""
        side = RPL if reply else 0
        if packet.is_error:
            return entry, REL | side
        if packet.nw_proto != TCP:
            entry = replace(entry, replied=entry.replied or reply)
            return entry, EST | side if entry.replied else NEW
        return self._tcp(entry, reply, packet)

    def _tcp(self, entry: Entry, reply: bool, packet: Packet) -> tuple[Entry | None, int]:
        flags = packet.tcp_flags
        near, far = (entry.answered, entry.sent) if reply else (entry.sent, entry.answered)
        if _invalid_flags(flags):
            return entry, INV
        if flags & (SYN | ACK) == SYN:
            if near >= _Peer.FIN_WAIT and far >= _Peer.FIN_WAIT:
                del self._entries[entry.original]
                return None, 0
            if near <= _Peer.SYN_SENT:
                return _with_peers(entry, reply, _Peer.SYN_SENT, far), NEW
        # The first segment of an end defines its window, whatever it is.
        if not packet.in_window and near >= _Peer.SYN_SENT:
            return entry, INV
        near, far = _next_peer_states(near, far, flags)
        return _with_peers(entry, reply, near, far), EST | (RPL if reply else 0)

    def _tuple(self, packet: Packet, zone: int) -> FiveTuple | None:
        """The packet's tuple, None if conntrack cannot track it."""
        if packet.eth_type != ETH_IP:
            return None
        if packet.is_error:
            inner = packet.inner
            if inner is None or inner.nw_src != packet.nw_dst:
                return None
            quoted = self._tuple(inner, zone)
            return quoted.reversed() if quoted is not None else None
        source, target = 0, 0
        if packet.nw_proto in (TCP, UDP) or (packet.nw_proto == SCTP and self._sctp_ports):
            source, target = packet.tp_src, packet.tp_dst
        elif packet.nw_proto == ICMP:
            if packet.icmp_type not in (ECHO_REQUEST, ECHO_REPLY) or packet.icmp_code:
                return None
            # An echo and its answer differ in type; telling the two directions apart needs it in the key.
            kind = (ECHO_REQUEST, ECHO_REPLY) if packet.icmp_type == ECHO_REQUEST else (ECHO_REPLY, ECHO_REQUEST)
            source, target = packet.icmp_id << 8 | kind[0], packet.icmp_id << 8 | kind[1]
        return FiveTuple(zone, packet.nw_proto, packet.nw_src, source, packet.nw_dst, target)


def _with_peers(entry: Entry, reply: bool, near: _Peer, far: _Peer) -> Entry:
    sent, answered = (far, near) if reply else (near, far)
    return replace(entry, sent=sent, answered=answered, replied=entry.replied or reply)


def _next_peer_states(near: _Peer, far: _Peer, flags: int) -> tuple[_Peer, _Peer]:
    near = max(near, _Peer.SYN_SENT)
    if flags & FIN and near < _Peer.CLOSING:
        near = _Peer.CLOSING
    if flags & ACK:
        if far == _Peer.SYN_SENT:
            far = _Peer.ESTABLISHED
        elif far == _Peer.CLOSING:
            far = _Peer.FIN_WAIT
    if flags & RST:
        near = far = _Peer.TIME_WAIT
    return near, far


def _invalid_flags(flags: int) -> bool:
    """Whether the combination of TCP flags is invalid (ovs 3.1 reports such segments as +inv)."""
    if flags & SYN:
        return bool(flags & (RST | FIN))
    if not flags & (ACK | RST):
        return True
    return not flags & ACK and bool(flags & _NEEDS_ACK)


def _may_begin(packet: Packet) -> bool:
    """Whether a packet of an unknown connection is +new (else +inv)."""
    if packet.nw_proto == TCP:
        return not _invalid_flags(packet.tcp_flags) and packet.tcp_flags & (SYN | ACK) != SYN | ACK
    return packet.nw_proto != ICMP or packet.icmp_type == ECHO_REQUEST
