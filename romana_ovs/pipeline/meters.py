"""Meters: how fast a pod may open connections through conntrack, send ARP requests and fragments; declared once.

Source: OpenFlow 1.5.1 section 7.3.4.5.

Meters carry no cookie: that a number is of `METERS` makes a meter ours, and no other is ever touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from romana_ovs.model.errors import PipelineError
from romana_ovs.policy.view import Origin

METERS = range(0x524F0000, 0x52520000)
"""Numbers of our meters: the first, plus the OpenFlow port of the pod that the meter is about, plus _ARP for ARP and
_FRAGMENTS for fragments."""
_PORTS = 0x10000
_ARP, _FRAGMENTS = _PORTS, 2 * _PORTS
ARP_RATE, ARP_BURST = 50, 100
"""ARP requests of a pod a second, and how many of a pod that was quiet. Each target that is asked for is a flow of the
datapath for ten seconds, and on the kernel's datapath each request is answered by ovs-vswitchd itself."""
BURST_SECONDS = 10
"""How many seconds' worth of new connections a pod that was quiet may open at once."""
FRAGMENT_BURST_SECONDS = 2
"""How many seconds' worth of fragments a pod that was quiet may send at once. A fragment whose others never come is
kept for 15 seconds by the userspace datapath, of 5,000 at most, and for 30 by the kernel, of 4 MB."""


@dataclass(frozen=True, slots=True)
class Meter:
    """A meter that drops what is more than `rate` packets a second, once `burst` packets of credit are used up."""

    number: int
    rate: int
    burst: int
    origin: Origin = field(compare=False)

    def text(self) -> str:
        """As `ovs-ofctl -O OpenFlow15 add-meter BRIDGE` takes it."""
        band = f"type=drop,rate={self.rate},burst_size={self.burst}"
        return f"meter={self.number},pktps,burst,stats,bands={band}"


NO_METERS: Mapping[int, Meter] = MappingProxyType({})


def meter_number(ofport: int) -> int:
    """The number of the meter for the pod at this port. Raises PipelineError when no port has such a number."""
    if not 0 <= ofport < _PORTS:
        raise PipelineError(f"port {ofport} has no meter")
    return METERS[ofport]


def arp_meter_number(ofport: int) -> int:
    """The number of the meter for the ARP requests of the pod at this port. Raises PipelineError as `meter_number`."""
    return meter_number(ofport) + _ARP


def fragment_meter_number(ofport: int) -> int:
    """The number of the meter for the fragments of the pod at this port. Raises PipelineError as `meter_number`."""
    return meter_number(ofport) + _FRAGMENTS


def setting_of(number: int) -> str:
    """The setting that makes this meter, and with which 0 does without it; empty for one that there always is."""
    return {0: "new_connections", _FRAGMENTS: "fragments"}.get((number - METERS.start) // _PORTS * _PORTS, "")


def fragment_meter(ofport: int, rate: int, origin: Origin) -> Meter:
    """The meter for the pod at `ofport`, which may send `rate` fragments a second."""
    return Meter(fragment_meter_number(ofport), rate, rate * FRAGMENT_BURST_SECONDS, origin)


def arp_meter(ofport: int, origin: Origin) -> Meter:
    """The meter for the ARP requests of the pod at `ofport`."""
    return Meter(arp_meter_number(ofport), ARP_RATE, ARP_BURST, origin)


def opening_meter(ofport: int, rate: int, origin: Origin) -> Meter:
    """The meter for the pod at `ofport`, which may open `rate` connections a second."""
    return Meter(meter_number(ofport), rate, rate * BURST_SECONDS, origin)
