"""Meters: how fast a pod may open connections through conntrack, declared once. Source: OpenFlow 1.5.1 section 7.3.4.5.

Meters carry no cookie: that a number is of `METERS` makes a meter ours, and no other is ever touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from romana_ovs.model.errors import PipelineError
from romana_ovs.policy.view import Origin

METERS = range(0x524F0000, 0x52500000)
"""Numbers of our meters: the first, plus the OpenFlow port of the pod that the meter is about."""
BURST_SECONDS = 10
"""How many seconds' worth of new connections a pod that was quiet may open at once."""


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
    if not 0 <= ofport < len(METERS):
        raise PipelineError(f"port {ofport} has no meter")
    return METERS[ofport]


def opening_meter(ofport: int, rate: int, origin: Origin) -> Meter:
    """The meter for the pod at `ofport`, which may open `rate` connections a second."""
    return Meter(meter_number(ofport), rate, rate * BURST_SECONDS, origin)
