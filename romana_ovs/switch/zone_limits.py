"""Sets and reads limits of conntrack zones, by the dpctl commands of ovs-vswitchd(8)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from romana_ovs.switch.vswitchd import Vswitchd

KERNEL = "system"
"""The default datapath type of a bridge (vswitchd.conf.db(5)): the kernel's datapath."""
KERNEL_TABLE = Path("/proc/sys/net/netfilter/nf_conntrack_max")
READ_BATCH = 250
"""Zones in one read: the kernel's answer is one message of a page (net/openvswitch/conntrack.c)."""
ZONES = range(1, 1 << 16)
"""Every zone but 0, which the default limit is for."""
SET_BATCH = 4096
"""Zones in one write: for the kernel they are one attribute of at most 64 kB, 12 bytes each."""
_ZONE = re.compile(r"^zone=(\d+),limit=(\d+),count=(\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ZoneUse:
    """A zone's limit, and its number of connections that began since it has one."""

    limit: int
    count: int


class ZoneLimits:
    """The zones of one datapath. Every method raises as `Vswitchd.transact` does."""

    def __init__(self, remote: str, datapath_type: str) -> None:
        self._switch = Vswitchd(remote)
        self._kernel = datapath_type == KERNEL
        self._name = f"{datapath_type}@ovs-{datapath_type}"

    def table_size(self) -> int | None:
        """The size of the whole connection table; None if unknown.

        The kernel's is a setting of this host: a database by unix socket is on the same host.
        """
        if not self._kernel:
            return _number(self._switch.transact("dpctl/ct-get-maxconns", self._name))
        try:
            return _number(KERNEL_TABLE.read_text())
        except OSError:
            return None

    def read(self, zones: Collection[int] = ()) -> dict[int, ZoneUse]:
        """Those of `zones` that have a limit; the userspace datapath reports all zones with a limit."""
        requests = (
            [f"zone={','.join(map(str, batch))}" for batch in _batches(zones, READ_BATCH)] if self._kernel else [""]
        )
        return self._read(requests)

    def read_any(self) -> dict[int, ZoneUse]:
        """All zones that have a limit.

        The kernel answers with those that fit into one message, more than a batch. So an answer that may have been cut
        is followed by batches of all zones.
        """
        uses = self._read([""])
        return self.read(ZONES) if self._kernel and len(uses) >= READ_BATCH else uses

    def _read(self, requests: Iterable[str]) -> dict[int, ZoneUse]:
        uses: dict[int, ZoneUse] = {}
        for request in requests:
            reply = self._switch.transact("dpctl/ct-get-limits", self._name, *filter(None, [request]))
            uses |= {int(zone): ZoneUse(int(limit), int(count)) for zone, limit, count in _ZONE.findall(reply)}
        # The kernel reports 0 for a zone without limit.
        return {zone: use for zone, use in uses.items() if use.limit}

    def set(self, limits: Mapping[int, int]) -> None:
        """Sets limits, of at least 1. A zone with a limit keeps its count; another starts to count at 0."""
        for batch in _batches(limits, SET_BATCH):
            words = [f"zone={zone},limit={limits[zone]}" for zone in batch]
            self._switch.transact("dpctl/ct-set-limits", self._name, *words)

    def remove(self, zones: Collection[int]) -> None:
        """Removes the limits of `zones`."""
        for batch in _batches(zones, SET_BATCH):
            self._switch.transact("dpctl/ct-del-limits", self._name, f"zone={','.join(map(str, batch))}")

    def set_fragments(self, count: int) -> None:
        """Limits the fragments that the userspace datapath stores, of all zones; the kernel's has no such setting."""
        if not self._kernel:
            self._switch.transact("dpctl/ipf-set-max-nfrags", self._name, str(count))


def _batches(zones: Collection[int], size: int) -> Iterator[list[int]]:
    """The zones, sorted, in batches of `size`."""
    ordered = sorted(zones)
    return (ordered[at : at + size] for at in range(0, len(ordered), size))


def _number(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() else None
