"""Keeps the free ranges of the address plan, as aligned power-of-two runs of segment indexes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from romana_ovs.addressing.cidrs import CidrSet
from romana_ovs.addressing.plan import Plan


class Run(NamedTuple):
    """The segment indexes `base` to `base + size - 1`; `size` is a power of two that divides `base`."""

    base: int
    size: int

    @property
    def indexes(self) -> range:
        """Its segment indexes."""
        return range(self.base, self.base + self.size)

    @property
    def buddy(self) -> Run:
        """The only run of the same size that forms an aligned run of twice the size with this one."""
        return Run(self.base ^ self.size, self.size)

    def with_buddy(self) -> Run:
        """The run of twice the size that contains this one."""
        return Run(self.base & ~self.size, self.size * 2)


class FreeRuns:
    """The largest aligned free runs of a plan. A run that was taken is never returned.

    The state depends only on the runs taken, so it need not be saved. A take costs about 0.2 ms, once for each run of a
    tenant.
    """

    def __init__(self, plan: Plan, taken: Iterable[Run]) -> None:
        """All segment indexes of `plan` except those of `taken`, which must not overlap."""
        self._plan = plan
        self._free = CidrSet([plan.network], (plan.run_cidr(*run) for run in taken))

    def runs(self) -> list[Run]:
        """The free runs in order."""
        base, bits = int(self._plan.network.network_address), self._plan.host_bits + self._plan.endpoint_bits
        return [Run(int(cidr.network_address) - base >> bits, cidr.num_addresses >> bits) for cidr in self._free]

    def take(self, size: int) -> Run | None:
        """The lowest run of `size` in the smallest free run that has room, or None."""
        fitting = [run for run in self.runs() if run.size >= size]
        if not fitting:
            return None
        smallest = min(fitting, key=lambda run: (run.size, run.base))
        found = Run(smallest.base, size)
        self._free.remove(self._plan.run_cidr(*found))
        return found

    def take_exactly(self, run: Run) -> bool:
        """Takes `run` if it is one of the free runs, and returns whether it was."""
        if run not in self.runs():
            return False
        self._free.remove(self._plan.run_cidr(*run))
        return True
