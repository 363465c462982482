"""Every set of frames. To add one: a line in one of these modules, or a module and its name here."""

from __future__ import annotations

from tests.attacks.frameset import FrameSet
from tests.attacks.sets import arp, connections, errors, ipv6, layer2, odd, one_port, plain, spoofed, tunnels

SETS: tuple[FrameSet, ...] = (
    *plain.SETS,
    *spoofed.SETS,
    *arp.SETS,
    *layer2.SETS,
    *ipv6.SETS,
    *tunnels.SETS,
    *odd.SETS,
    *connections.SETS,
    *errors.SETS,
    *one_port.SETS,
)
