"""Simulates the connection tracking of Open vSwitch's two datapaths, as far as flows can match it.

Source: ovs-fields(7) "Connection Tracking Fields", ovs-actions(7) "ct", and the behaviour of Open vSwitch 3.1.0
and Linux 6.1 themselves, which tests/integration/test_conntrack_model.py compares with this packet by packet.
Not modelled: timeouts, TCP sequence numbers (`Packet.in_window` stands for them), NAT, helpers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from romana_ovs.pipeline.fields import CT_STATE_BITS, ETH_IP, ICMP
from romana_ovs.simulator.conntrack_behaviour import NETDEV, ConntrackBehaviour
from romana_ovs.simulator.packet import ECHO_REPLY, ECHO_REQUEST, Packet
from romana_ovs.simulator.protocol_states import ProtocolState, Verdict

NEW, EST, REL, RPL, INV, TRK = (CT_STATE_BITS[word] for word in ("new", "est", "rel", "rpl", "inv", "trk"))


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


@dataclass(frozen=True, slots=True)
class Entry:
    """A committed connection and the state of its protocol.

    `replied`: a packet of the reply direction was seen.
    """

    original: FiveTuple
    state: ProtocolState
    mark: int = 0
    label: int = 0
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
    """The table of one switch process: connections by zone and tuple, tracked as `behaviour` says."""

    def __init__(self, behaviour: ConntrackBehaviour = NETDEV) -> None:
        self.behaviour = behaviour
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

    def process(self, packet: Packet, zone: int, commit: Commitment | None = None, *, before: int = 0) -> Tracked:
        """Tracks the packet in `zone`; with `commit` None a new connection is not committed.

        `before`: the state that the packet got when it was tracked in this zone earlier on its way; 0 if it was not.
        """
        key = self._tuple(packet, zone)
        if key is None:
            return Tracked(zone, INV | TRK, 0, 0)
        if not self.behaviour.packet_keeps_entry:
            before = 0
        entry, reply = self._find(key)
        force = commit is not None and commit.force and not before & INV and self._may_force(packet)
        if entry is not None and reply and force:
            del self._entries[entry.original]
            entry, before = None, 0
        if entry is None:
            return self._track_new(key, packet, commit)
        if before & TRK and not before & INV:
            return _tracked(self._commit(entry, commit), before)
        return self._track_known(entry, reply, packet, commit)

    def _may_force(self, packet: Packet) -> bool:
        return self.behaviour.force_by_errors or not packet.is_error

    def _find(self, key: FiveTuple) -> tuple[Entry | None, bool]:
        entry = self._entries.get(key)
        if entry is not None:
            return entry, False
        return self._entries.get(key.reversed()), True

    def _track_new(self, key: FiveTuple, packet: Packet, commit: Commitment | None) -> Tracked:
        state = None if packet.is_error else self.behaviour.protocol(packet.nw_proto).begin(packet)
        if state is None:
            return Tracked(key.zone, INV | TRK, 0, 0)
        if commit is None:
            return Tracked(key.zone, NEW | TRK, 0, 0, key)
        entry = self._commit(Entry(key, state), commit)
        return Tracked(key.zone, NEW | TRK, entry.mark, entry.label, key)

    def _track_known(self, entry: Entry, reply: bool, packet: Packet, commit: Commitment | None) -> Tracked:
        zone, side = entry.original.zone, RPL if reply else 0
        if packet.is_error:
            return _tracked(self._commit(entry, commit), REL | side)
        verdict, state = entry.state.after(packet, reply=reply, replied=entry.replied)
        if verdict is Verdict.INVALID:
            if not self.behaviour.invalid_keeps_entry:
                return Tracked(zone, INV | TRK, 0, 0)
            return _tracked(self._commit(entry, commit), INV)
        if verdict is Verdict.REOPENS:
            del self._entries[entry.original]
            key = entry.original.reversed() if reply else entry.original
            return self._track_new(key, packet, commit)
        entry = self._commit(replace(entry, state=state, replied=entry.replied or reply), commit)
        if verdict is Verdict.LAST:
            del self._entries[entry.original]
        if verdict is Verdict.NEW or (verdict is not Verdict.ESTABLISHED and not entry.replied):
            return _tracked(entry, NEW)
        return _tracked(entry, EST | side)

    def _commit(self, entry: Entry, commit: Commitment | None) -> Entry:
        """Keeps the entry, with what `commit` writes."""
        if commit is not None:
            entry = replace(entry, mark=commit.mark.over(entry.mark), label=commit.label.over(entry.label))
        self._entries[entry.original] = entry
        return entry

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
        if self.behaviour.has_ports(packet.nw_proto):
            source, target = packet.tp_src, packet.tp_dst
        elif packet.nw_proto == ICMP:
            if packet.icmp_type not in (ECHO_REQUEST, ECHO_REPLY) or packet.icmp_code:
                return None
            # An echo and its answer differ in type; telling the two directions apart needs it in the key.
            kind = (ECHO_REQUEST, ECHO_REPLY) if packet.icmp_type == ECHO_REQUEST else (ECHO_REPLY, ECHO_REQUEST)
            source, target = packet.icmp_id << 8 | kind[0], packet.icmp_id << 8 | kind[1]
        return FiveTuple(zone, packet.nw_proto, packet.nw_src, source, packet.nw_dst, target)


def _tracked(entry: Entry, state: int) -> Tracked:
    return Tracked(entry.original.zone, state | TRK, entry.mark, entry.label, entry.original)
