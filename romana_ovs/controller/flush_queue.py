"""Flushes the conntrack entries of pods' addresses within limits.

For each request (a zone, an address, an end) Open vSwitch 3.1 searches its whole connection table in the main thread of
ovs-vswitchd, which answers nobody meanwhile: neither OpenFlow nor the database (docs/dataplane.md, "When entries are
flushed"). What is flushed is hygiene, so it must not delay the tables of a node.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Address

from romana_ovs.pipeline.zones import common_zone, zone
from romana_ovs.switch.channel import Channel, NoAnswer, SwitchRefused
from romana_ovs.sync.attached_pods import AttachedPod

LOG = logging.getLogger("romana_ovs.session")

BUDGET_SECONDS = 1.0
"""For how long flushes may delay flows at a stretch; the last address may exceed it."""
MAX_PENDING = 1000
"""Addresses that wait to be flushed at most; those of a node's last removed pods."""
PAUSES = 3
"""How long no flush runs, as a multiple of how long they ran: most of the time the switch works for others."""


class FlushQueue:
    """The addresses to flush on one switch. `skipped` counts those that were left to the timeouts of their entries.

    Entries that are not flushed are inherited by nobody (docs/dataplane.md), they only take up room.
    """

    def __init__(self, channel: Channel, clock: Callable[[], float] = time.monotonic) -> None:
        self.skipped = 0
        self._channel = channel
        self._clock = clock
        self._budget, self._budget_at = BUDGET_SECONDS, clock()
        self._pending: dict[IPv4Address, tuple[int | None, ...]] = {}

    @property
    def pending(self) -> int:
        """The number of addresses that `flush_one` has left to do."""
        return len(self._pending)

    def flush_now(self, host: int, pods: Mapping[IPv4Address, AttachedPod]) -> None:
        """Flush pods' addresses before their flows are sent, while the budget lasts; the others are skipped.

        They cannot be flushed later, when the connections are the new pods'. Raises ConnectionLost.
        """
        self.cancel(pods)
        left = len(pods)
        for address, pod in pods.items():
            begun = self._clock()
            self._budget = min(BUDGET_SECONDS, self._budget + (begun - self._budget_at) / PAUSES)
            self._budget_at = begun
            if self._budget <= 0 or not self._flush(address, _zones(host, pod)):
                self._skip(left, "new pods would wait too long")
                return
            self._budget_at = self._clock()
            self._budget -= self._budget_at - begun
            left -= 1

    def flush_later(self, host: int, pods: Mapping[IPv4Address, AttachedPod]) -> None:
        """Queue the addresses of pods whose flows are gone."""
        self._pending |= {address: _zones(host, pod) for address, pod in pods.items()}
        excess = len(self._pending) - MAX_PENDING
        if excess > 0:
            self.cancel(list(self._pending)[:excess])
            self._skip(excess, f"more than {MAX_PENDING} addresses wait")

    def cancel(self, addresses: Iterable[IPv4Address]) -> None:
        """Cancel the flushes of these addresses: pods have them, or have them again."""
        for address in addresses:
            self._pending.pop(address, None)

    def flush_one(self) -> float:
        """Flush one queued address; returns for how many seconds to pause. Raises ConnectionLost."""
        address, zones = next(iter(self._pending.items()))
        del self._pending[address]
        begun = self._clock()
        if not self._flush(address, zones):
            self._skip(1, "the switch takes too long")
        return (self._clock() - begun) * PAUSES

    def _flush(self, address: IPv4Address, zones: tuple[int | None, ...]) -> bool:
        """Whether the switch has answered in time."""
        try:
            for number in zones:
                self._channel.flush_connections(number, (address,))
        except SwitchRefused as error:
            # Even then the tables keep a reused address from inheriting connections (docs/dataplane.md).
            LOG.warning(
                "switch %016x cannot delete connections (Open vSwitch before 3.1?): %s", self._channel.dpid, error
            )
        except NoAnswer:
            return False
        return True

    def _skip(self, count: int, why: str) -> None:
        self.skipped += count
        LOG.warning(
            "switch %016x: the old connections of %d addresses are left to their timeouts, as %s (%d so far)",
            self._channel.dpid,
            count,
            why,
            self.skipped,
        )


def _zones(host: int, pod: AttachedPod) -> tuple[int | None, ...]:
    """The zones of a pod's connections: its tenant's and the common one, or all (None).

    The connections of a shared tenant's pod are in the zones of its peers' tenants, which may be thousands: one request
    for all zones also deletes the entries that other bridges of the switch, or the host, have of the address. They are
    of the same pod.
    """
    return (None,) if pod.shared else tuple(sorted({zone(host, pod.zone), common_zone(host)}))
