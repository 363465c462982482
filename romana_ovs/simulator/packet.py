"""Represents packets by the fields that Open vSwitch can match, with constructors for each protocol."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from romana_ovs.pipeline.fields import ETH_ARP, ETH_IP, ICMP, SCTP, TCP, TCP_FLAG_BITS, UDP, VLAN_PRESENT
from romana_ovs.pipeline.registers import MAC_PREFIX, NEXT_HOP_MAC

BROADCAST = 0xFFFFFFFFFFFF
ARP_REQUEST, ARP_REPLY = 1, 2
ECHO_REPLY, UNREACHABLE, ECHO_REQUEST = 0, 3, 8
FRAG_NO, FRAG_FIRST, FRAG_LATER = 0, 1, 3
"""Values of nw_frag (ovs-fields(7))."""
INIT, INIT_ACK, COOKIE_ECHO, COOKIE_ACK, DATA = 1, 2, 10, 11, 0
"""Types of SCTP chunks (RFC 9260 section 3.2)."""
_ANSWERING_CHUNK = {INIT: INIT_ACK, COOKIE_ECHO: COOKIE_ACK}
SYN, ACK, RST, FIN = (TCP_FLAG_BITS[word] for word in ("syn", "ack", "rst", "fin"))

_PORT_FIELDS = {TCP: ("tcp_src", "tcp_dst"), UDP: ("udp_src", "udp_dst"), SCTP: ("sctp_src", "sctp_dst")}
_ERRORS = frozenset({UNREACHABLE, 4, 5, 11, 12})
"""ICMP types that quote the packet they are about (RFC 792)."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """The two ends of a frame: MACs and IPv4 addresses as numbers."""

    eth_src: int
    eth_dst: int
    nw_src: int
    nw_dst: int

    @classmethod
    def of(
        cls, source: str | int | IPv4Address, target: str | int | IPv4Address, *, eth_src: int = 0, eth_dst: int = 0
    ) -> Addresses:
        """From IPv4 addresses. By default `eth_src` is `0a:58` + source, and `eth_dst` the next hop's MAC."""
        src, dst = int(IPv4Address(source)), int(IPv4Address(target))
        return cls(eth_src or MAC_PREFIX << 32 | src, eth_dst or NEXT_HOP_MAC, src, dst)


@dataclass(frozen=True, slots=True)
class Packet:
    """A frame. Ports are those of its protocol; fields that its kind does not have are 0.

    `inner` is the packet that an ICMP error is about; `ip_id` ties fragments together; `in_window` False
    is a TCP segment that fits no window of its connection; `sctp_chunk` is the type of the only chunk; `tun_src`
    and `tun_dst` are the outer addresses while it is in a tunnel port; `payload` distinguishes packets in tests.
    """

    eth_src: int = 0
    eth_dst: int = 0
    eth_type: int = ETH_IP
    vlan_tci: int = 0
    nw_src: int = 0
    nw_dst: int = 0
    nw_proto: int = 0
    nw_frag: int = FRAG_NO
    tp_src: int = 0
    tp_dst: int = 0
    tcp_flags: int = 0
    sctp_chunk: int = 0
    icmp_type: int = 0
    icmp_code: int = 0
    icmp_id: int = 0
    arp_op: int = 0
    arp_spa: int = 0
    arp_tpa: int = 0
    arp_sha: int = 0
    arp_tha: int = 0
    tun_src: int = 0
    tun_dst: int = 0
    ip_id: int = 0
    in_window: bool = True
    inner: Packet | None = None
    payload: str = ""

    def fields(self) -> dict[str, int]:
        """Its match fields by ovs-ofctl's names; ports of later fragments are absent, as in Open vSwitch."""
        values = {
            "eth_src": self.eth_src,
            "eth_dst": self.eth_dst,
            "eth_type": self.eth_type,
            "vlan_tci": self.vlan_tci,
            "tun_src": self.tun_src,
            "tun_dst": self.tun_dst,
        }
        if self.eth_type == ETH_ARP:
            values |= {name: getattr(self, name) for name in ("arp_op", "arp_spa", "arp_tpa", "arp_sha", "arp_tha")}
        elif self.eth_type == ETH_IP:
            values |= {name: getattr(self, name) for name in ("nw_src", "nw_dst", "nw_proto", "nw_frag")}
            if self.nw_frag != FRAG_LATER:
                values |= self._transport()
        return values

    def _transport(self) -> dict[str, int]:
        if self.nw_proto == ICMP:
            return {"icmp_type": self.icmp_type, "icmp_code": self.icmp_code}
        names = _PORT_FIELDS.get(self.nw_proto)
        if names is None:
            return {}
        values = {names[0]: self.tp_src, names[1]: self.tp_dst}
        return values | {"tcp_flags": self.tcp_flags} if self.nw_proto == TCP else values

    def rewritten(self, fields: dict[str, int]) -> Packet:
        """This packet with the match fields of `fields` that a flow may have changed."""
        changed = replace(
            self,
            eth_src=fields["eth_src"],
            eth_dst=fields["eth_dst"],
            tun_src=fields["tun_src"],
            tun_dst=fields["tun_dst"],
        )
        if self.eth_type == ETH_IP:
            source, target = _PORT_FIELDS.get(self.nw_proto, ("", ""))
            return replace(
                changed,
                nw_src=fields["nw_src"],
                nw_dst=fields["nw_dst"],
                tp_src=fields.get(source, self.tp_src),
                tp_dst=fields.get(target, self.tp_dst),
            )
        if self.eth_type != ETH_ARP:
            return changed
        return replace(
            changed,
            arp_op=fields["arp_op"],
            arp_spa=fields["arp_spa"],
            arp_tpa=fields["arp_tpa"],
            arp_sha=fields["arp_sha"],
            arp_tha=fields["arp_tha"],
        )

    @property
    def is_error(self) -> bool:
        """Whether it is an ICMP error about another packet."""
        return self.eth_type == ETH_IP and self.nw_proto == ICMP and self.icmp_type in _ERRORS

    def reply(self, *, flags: int = ACK) -> Packet:
        """The reply to this packet, with source and destination swapped, as a pod would send it to its next hop.

        An echo request becomes its reply; a TCP SYN becomes SYN+ACK, any other segment has `flags`; an SCTP
        INIT becomes INIT ACK, a COOKIE ECHO becomes COOKIE ACK.
        """
        turned = replace(
            self,
            eth_src=MAC_PREFIX << 32 | self.nw_dst,
            eth_dst=NEXT_HOP_MAC,
            nw_src=self.nw_dst,
            nw_dst=self.nw_src,
            tp_src=self.tp_dst,
            tp_dst=self.tp_src,
            tun_src=0,
            tun_dst=0,
        )
        if self.nw_proto == ICMP:
            return replace(turned, icmp_type=ECHO_REPLY)
        if self.nw_proto == TCP:
            return replace(turned, tcp_flags=SYN | ACK if self.tcp_flags & SYN and not self.tcp_flags & ACK else flags)
        return replace(turned, sctp_chunk=_ANSWERING_CHUNK.get(self.sctp_chunk, self.sctp_chunk))

    def with_flags(self, flags: int) -> Packet:
        """The same TCP segment with other flags."""
        return replace(self, tcp_flags=flags)

    def fragments(self, ip_id: int = 1) -> tuple[Packet, Packet]:
        """Two fragments of this packet: the first with ports, the later one without."""
        first = replace(self, nw_frag=FRAG_FIRST, ip_id=ip_id)
        later = replace(
            self, nw_frag=FRAG_LATER, ip_id=ip_id, tp_src=0, tp_dst=0, tcp_flags=0, icmp_type=0, icmp_code=0
        )
        return first, later

    def tagged(self, vlan: int) -> Packet:
        """The same frame with an 802.1Q tag."""
        return replace(self, vlan_tci=VLAN_PRESENT | vlan)


def _ip(ends: Addresses, proto: int) -> Packet:
    return Packet(eth_src=ends.eth_src, eth_dst=ends.eth_dst, nw_src=ends.nw_src, nw_dst=ends.nw_dst, nw_proto=proto)


def tcp(ends: Addresses, source: int, target: int, *, flags: int = SYN) -> Packet:
    """A TCP segment, a SYN unless `flags` say otherwise."""
    return replace(_ip(ends, TCP), tp_src=source, tp_dst=target, tcp_flags=flags)


def udp(ends: Addresses, source: int, target: int) -> Packet:
    """A UDP datagram."""
    return replace(_ip(ends, UDP), tp_src=source, tp_dst=target)


def sctp(ends: Addresses, source: int, target: int, *, chunk: int = INIT) -> Packet:
    """An SCTP packet of one chunk, by default the INIT of an association (the userspace datapath reads no chunks)."""
    return replace(_ip(ends, SCTP), tp_src=source, tp_dst=target, sctp_chunk=chunk)


def transport(proto: int, ends: Addresses, source: int, target: int) -> Packet:
    """The first packet of a connection over protocol number `proto`; the port stands for the id of an ICMP echo."""
    if proto == ICMP:
        return echo(ends, source)
    if proto == SCTP:
        return sctp(ends, source, target)
    packet = replace(_ip(ends, proto), tp_src=source, tp_dst=target)
    return packet.with_flags(SYN) if proto == TCP else packet


def echo(ends: Addresses, number: int = 1) -> Packet:
    """An ICMP echo request with identifier `number`."""
    return replace(_ip(ends, ICMP), icmp_type=ECHO_REQUEST, icmp_id=number)


def icmp_error(ends: Addresses, about: Packet, *, kind: int = UNREACHABLE, code: int = 4) -> Packet:
    """An ICMP error about `about` (fragmentation needed by default), sent to its source."""
    return replace(_ip(ends, ICMP), icmp_type=kind, icmp_code=code, inner=about)


def arp_request(ends: Addresses, *, sender: int | None = None) -> Packet:
    """A broadcast ARP request: who has `ends.nw_dst`, tell `ends.nw_src` (whose MAC is `sender`, else eth_src)."""
    return Packet(
        eth_src=ends.eth_src,
        eth_dst=BROADCAST,
        eth_type=ETH_ARP,
        arp_op=ARP_REQUEST,
        arp_spa=ends.nw_src,
        arp_tpa=ends.nw_dst,
        arp_sha=ends.eth_src if sender is None else sender,
    )
