"""Limits of conntrack zones, as dpctl of ovs-vswitchd(8) sets and shows them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from romana_ovs.switch.vswitchd import Vswitchd

KERNEL = "system"
"""The datapath type of a bridge that says none (vswitchd.conf.db(5)): the kernel's datapath."""
KERNEL_TABLE = Path("/proc/sys/net/netfilter/nf_conntrack_max")
MOST_ASKED = 250
"""Zones that the kernel is asked about at a time: its answer is one message of a page (net/openvswitch/conntrack.c)."""
MOST_SET = 4096
"""Zones that are given limits at a time: for the kernel they are one attribute of at most 64 kB, 12 bytes each."""
_ZONE = re.compile(r"^zone=(\d+),limit=(\d+),count=(\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ZoneUse:
    """A zone's limit, and how many connections it has of those that began since it has one."""

    limit: int
    count: int


class ZoneLimits:
    """The zones of one datapath. Every method raises NotThere and SwitchError as `Vswitchd.ask` does."""

    def __init__(self, remote: str, datapath_type: str) -> None:
        self._switch = Vswitchd(remote)
        self._kernel = datapath_type == KERNEL
        self._name = f"{datapath_type}@ovs-{datapath_type}"

    def table_size(self) -> int | None:
        """How many connections the whole table takes; None where that is not known.

        The kernel's is a setting of the host, which may be another machine's than ours only over a socket that is not.
        """
        if not self._kernel:
            return _number(self._switch.ask("dpctl/ct-get-maxconns", self._name))
        try:
            return _number(KERNEL_TABLE.read_text())
        except OSError:
            return None

    def read(self, zones: Collection[int] = ()) -> dict[int, ZoneUse]:
        """Those of `zones` that have a limit; userspace's datapath, which tells all at once, also others that have."""
        questions = [f"zone={','.join(map(str, part))}" for part in _parts(zones, MOST_ASKED)] if self._kernel else [""]
        found: dict[int, ZoneUse] = {}
        for question in questions:
            shown = self._switch.ask("dpctl/ct-get-limits", self._name, *filter(None, [question]))
            found |= {int(zone): ZoneUse(int(limit), int(count)) for zone, limit, count in _ZONE.findall(shown)}
        # The kernel says 0 of one that has none.
        return {zone: use for zone, use in found.items() if use.limit}

    def set(self, limits: Mapping[int, int]) -> None:
        """Give zones limits, of 1 at least. A zone that has one keeps its count; another starts to count at 0."""
        for part in _parts(limits, MOST_SET):
            words = [f"zone={zone},limit={limits[zone]}" for zone in part]
            self._switch.ask("dpctl/ct-set-limits", self._name, *words)

    def remove(self, zones: Collection[int]) -> None:
        """Take zones' limits away."""
        for part in _parts(zones, MOST_SET):
            self._switch.ask("dpctl/ct-del-limits", self._name, f"zone={','.join(map(str, part))}")

    def set_fragments(self, count: int) -> None:
        """How many fragments userspace's datapath keeps at a time, of all zones; the kernel's datapath has no such."""
        if not self._kernel:
            self._switch.ask("dpctl/ipf-set-max-nfrags", self._name, str(count))


def _parts(zones: Collection[int], most: int) -> Iterator[list[int]]:
    """The zones, sorted, so many at a time."""
    ordered = sorted(zones)
    return (ordered[at : at + most] for at in range(0, len(ordered), most))


def _number(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() else None
