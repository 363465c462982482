"""Declares the meters of each pod, for new connections, ARP requests and fragments, and of each tenant, for fragments.

Source: OpenFlow 1.5.1 section 7.3.4.5.

Meters have no cookie: the numbers in `METERS` are of this controller, which changes no other meters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from romana_ovs.model.errors import PipelineError
from romana_ovs.policy.view import Origin

METERS = range(0x524F0000, 0x52530000)
"""Numbers of our meters: the first, plus the OpenFlow port of the pod, plus _ARP for ARP, _FRAGMENTS for fragments; or
plus the conntrack zone of the tenant, plus _TENANT_FRAGMENTS."""
_PORTS = 0x10000
_ARP, _FRAGMENTS, _TENANT_FRAGMENTS = _PORTS, 2 * _PORTS, 3 * _PORTS
ARP_RATE, ARP_BURST = 50, 100
"""ARP requests of a pod a second, and the burst of a quiet pod. Each requested address is a megaflow for ten seconds,
and with the kernel's datapath ovs-vswitchd itself answers each request."""
BURST_SECONDS = 10
"""Seconds' worth of new connections that a quiet pod may open at once."""
FRAGMENT_BURST_SECONDS = 2
"""Seconds' worth of fragments that a quiet pod or tenant may send at once. A fragment of an unfinished datagram is
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
    """The number of the connection meter of the pod at this port. Raises PipelineError for an invalid port number."""
    if not 0 <= ofport < _PORTS:
        raise PipelineError(f"port {ofport} has no meter")
    return METERS[ofport]


def arp_meter_number(ofport: int) -> int:
    """The number of the meter for the ARP requests of the pod at this port. Raises PipelineError as `meter_number`."""
    return meter_number(ofport) + _ARP


def fragment_meter_number(ofport: int) -> int:
    """The number of the meter for the fragments of the pod at this port. Raises PipelineError as `meter_number`."""
    return meter_number(ofport) + _FRAGMENTS


def tenant_fragment_meter_number(zone: int) -> int:
    """The number of the meter for the fragments of the tenant with this conntrack zone.

    Raises PipelineError as `meter_number`.
    """
    return meter_number(zone) + _TENANT_FRAGMENTS


def setting_of(number: int) -> str:
    """The setting whose value 0 removes this meter; empty for one that always exists."""
    settings = {0: "new_connections", _FRAGMENTS: "fragments", _TENANT_FRAGMENTS: "tenant_fragments"}
    return settings.get((number - METERS.start) // _PORTS * _PORTS, "")


def fragment_meter(ofport: int, rate: int, origin: Origin) -> Meter:
    """The meter for the pod at `ofport`, which may send `rate` fragments a second."""
    return Meter(fragment_meter_number(ofport), rate, rate * FRAGMENT_BURST_SECONDS, origin)


def tenant_fragment_meter(zone: int, rate: int, origin: Origin) -> Meter:
    """The meter for the tenant with this conntrack zone, whose pods may send `rate` fragments a second together."""
    return Meter(tenant_fragment_meter_number(zone), rate, rate * FRAGMENT_BURST_SECONDS, origin)


def arp_meter(ofport: int, origin: Origin) -> Meter:
    """The meter for the ARP requests of the pod at `ofport`."""
    return Meter(arp_meter_number(ofport), ARP_RATE, ARP_BURST, origin)


def connection_meter(ofport: int, rate: int, origin: Origin) -> Meter:
    """The meter for the pod at `ofport`, which may open `rate` connections a second."""
    return Meter(meter_number(ofport), rate, rate * BURST_SECONDS, origin)
