"""Limits of conntrack zones, as dpctl of ovs-vswitchd(8) sets and shows them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from romana_ovs.switch.vswitchd import Vswitchd

KERNEL = "system"
"""The datapath type of a bridge that says none (vswitchd.conf.db(5)): the kernel's datapath."""
KERNEL_TABLE = Path("/proc/sys/net/netfilter/nf_conntrack_max")
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

    def read(self) -> dict[int, ZoneUse]:
        """Every zone that has a limit, in one question."""
        shown = self._switch.ask("dpctl/ct-get-limits", self._name)
        return {int(zone): ZoneUse(int(limit), int(count)) for zone, limit, count in _ZONE.findall(shown)}

    def set(self, limits: Mapping[int, int]) -> None:
        """Give zones limits, of 1 at least. A zone that has one keeps its count; another starts to count at 0."""
        if limits:
            words = [f"zone={zone},limit={limit}" for zone, limit in sorted(limits.items())]
            self._switch.ask("dpctl/ct-set-limits", self._name, *words)

    def remove(self, zones: Collection[int]) -> None:
        """Take zones' limits away."""
        if zones:
            self._switch.ask("dpctl/ct-del-limits", self._name, f"zone={','.join(map(str, sorted(zones)))}")

    def set_fragments(self, count: int) -> None:
        """How many fragments userspace's datapath keeps at a time, of all zones; the kernel's datapath has no such."""
        if not self._kernel:
            self._switch.ask("dpctl/ipf-set-max-nfrags", self._name, str(count))


def _number(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() else None
