"""Allocates segment indexes to tenants and their tiers, permanently.

A tenant owns aligned runs of indexes, a segment one or more indexes in its tenant's runs. The first index is the
segment's permanent number, which is part of identities (docs/dataplane.md, "Identity").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from romana_ovs.addressing.plan import NODE_SEGMENT, Plan
from romana_ovs.addressing.runs import FreeRuns, Run
from romana_ovs.model.cluster import SegmentKey
from romana_ovs.model.errors import AddressError

USUAL_RUN = 4
"""Segment indexes in a tenant's first run, unless the plan is too small or the tenant has more tiers."""
SMALLEST_SHARE = 16
"""A first run is at most this part of all indexes (1/16), unless the tenant's tiers need more."""


MOST_TIERS, TIER_SHARE = 16, 16
"""Limit of tiers of one tenant: 16, or 1/16 of all indexes if that is more.

A tier is a pod label, which any user who may create pods can choose, and its index is never freed. Without a limit, a
tenant with one pod at a time could use up all indexes.
"""


class Tenants:
    """The runs of tenants and the indexes of segments. Properties return the same frozen object until it changes."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._runs: dict[str, tuple[Run, ...]] = {}
        self._indexes: dict[SegmentKey, tuple[int, ...]] = {}
        self._owners: dict[int, SegmentKey] = {}
        self._tiers: Counter[str] = Counter()
        self._unused = FreeRuns(plan, [Run(NODE_SEGMENT, 1)])
        self._frozen_runs: Mapping[str, tuple[Run, ...]] | None = None
        self._frozen_numbers: Mapping[SegmentKey, int] | None = None
        self._frozen_indexes: Mapping[SegmentKey, tuple[int, ...]] | None = None

    @property
    def runs(self) -> Mapping[str, tuple[Run, ...]]:
        """Each tenant's runs, sorted."""
        if self._frozen_runs is None:
            self._frozen_runs = MappingProxyType(dict(sorted(self._runs.items())))
        return self._frozen_runs

    @property
    def all_indexes(self) -> Mapping[SegmentKey, tuple[int, ...]]:
        """Each segment's indexes, sorted by segment."""
        if self._frozen_indexes is None:
            self._frozen_indexes = MappingProxyType(dict(sorted(self._indexes.items())))
        return self._frozen_indexes

    @property
    def numbers(self) -> Mapping[SegmentKey, int]:
        """Each segment's permanent number."""
        if self._frozen_numbers is None:
            self._frozen_numbers = MappingProxyType({key: found[0] for key, found in sorted(self._indexes.items())})
        return self._frozen_numbers

    def indexes(self, segment: SegmentKey) -> tuple[int, ...]:
        """The indexes of `segment`, the permanent number first; empty for an unknown one."""
        return self._indexes.get(segment, ())

    def owner(self, index: int) -> SegmentKey | None:
        """The segment that owns `index`."""
        return self._owners.get(index)

    def admit(self, tenant: str, tiers: Collection[str]) -> None:
        """Allocates the first run of `tenant`, with room for `tiers`, and their numbers, in sorted order.

        Tiers above the limit get none: `number` raises AddressError for them.
        """
        room = max(0, self.most_tiers - self._tiers[tenant])
        missing = sorted(tier for tier in tiers if SegmentKey(tenant, tier) not in self._indexes)[:room]
        if tenant not in self._runs:
            self._add_run(tenant, max(usual_run(self._plan), _power_of_two(len(missing))))
        for tier in missing:
            if not self._add_index(SegmentKey(tenant, tier)):
                return

    def number(self, segment: SegmentKey) -> int:
        """The permanent number of `segment`, allocated at first use. Raises AddressError when no index is left."""
        if segment not in self._indexes:
            self.admit(segment.tenant, (segment.tier,))
        if segment not in self._indexes:
            raise AddressError(f"{named(segment)} gets no range: {self._refusal(segment.tenant)}")
        return self._indexes[segment][0]

    @property
    def most_tiers(self) -> int:
        """The limit of tiers of one tenant."""
        return max(MOST_TIERS, self._plan.segments // TIER_SHARE)

    def _refusal(self, tenant: str) -> str:
        if self._tiers[tenant] >= self.most_tiers:
            return f"its tenant has {self._tiers[tenant]} tiers, and one may have {self.most_tiers} at most, ever"
        return self.exhausted()

    def grow(self, segment: SegmentKey) -> bool:
        """Allocates one more index to `segment`, of its tenant's runs or of a further run; returns whether it could."""
        return self._add_index(segment)

    def exhausted(self) -> str:
        """The reason why no tenant can get a further index, with the arithmetic."""
        plan = self._plan
        return (
            f"all {plan.segments} - 1 = {plan.segments - 1} segment indexes of network {plan.network} "
            f"(segment_bits {plan.segment_bits}) belong to tenants"
        )

    def to_json(self) -> dict[str, Any]:
        """The state as JSON values, for `from_json`."""
        return {
            "runs": {tenant: [list(run) for run in runs] for tenant, runs in sorted(self._runs.items())},
            "segments": [[*key, *indexes] for key, indexes in sorted(self._indexes.items())],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], plan: Plan) -> Tenants:
        """The state of `to_json`. Raises ValueError, TypeError or KeyError when it is invalid."""
        runs = {
            tenant: tuple(Run(int(base), int(size)) for base, size in each) for tenant, each in data["runs"].items()
        }
        indexes = {SegmentKey(tenant, tier): tuple(map(int, each)) for tenant, tier, *each in data["segments"]}
        return cls.of(plan, runs, indexes)

    @classmethod
    def of(
        cls, plan: Plan, runs: Mapping[str, tuple[Run, ...]], indexes: Mapping[SegmentKey, tuple[int, ...]]
    ) -> Tenants:
        """A state with these runs and indexes. Raises ValueError or KeyError when they contradict each other."""
        tenants = cls(plan)
        tenants._runs.update(runs)
        taken = [run for runs in tenants._runs.values() for run in runs]
        covered = [index for run in taken for index in run.indexes]
        if len(set(covered)) != len(covered) or any(not 0 < index < plan.segments for index in covered):
            raise ValueError("runs overlap or lie outside the plan")
        for key, found in indexes.items():
            tenants._give(key, found)
        tenants._unused = FreeRuns(plan, [Run(NODE_SEGMENT, 1), *taken])
        return tenants

    def _give(self, segment: SegmentKey, indexes: tuple[int, ...]) -> None:
        own = {index for run in self._runs[segment.tenant] for index in run.indexes}
        if not indexes or not own.issuperset(indexes) or any(index in self._owners for index in indexes):
            raise ValueError(f"{named(segment)} has indexes that are not its own")
        self._indexes[segment] = indexes
        self._tiers[segment.tenant] += 1
        self._frozen_numbers = self._frozen_indexes = None
        self._owners.update((index, segment) for index in indexes)

    def _add_index(self, segment: SegmentKey) -> bool:
        while True:
            for run in self._runs.get(segment.tenant, ()):
                for index in run.indexes:
                    if index not in self._owners:
                        self._tiers[segment.tenant] += segment not in self._indexes
                        self._indexes[segment] = (*self.indexes(segment), index)
                        self._owners[index] = segment
                        self._frozen_numbers = self._frozen_indexes = None
                        return True
            sizes = [run.size for run in self._runs.get(segment.tenant, ())]
            if not self._add_run(segment.tenant, max(sizes, default=1)):
                return False

    def _add_run(self, tenant: str, size: int) -> bool:
        """Adds a run of `size`, or else the largest smaller one; if possible, extends an own run by its buddy."""
        runs = self._runs.get(tenant, ())
        for run in reversed(runs):
            if self._unused.take_exactly(run.buddy):
                return self._own(tenant, tuple(run.with_buddy() if run == other else other for other in runs))
        while size:
            found = self._unused.take(size)
            if found is not None:
                return self._own(tenant, (*runs, found))
            size //= 2
        return False

    def _own(self, tenant: str, runs: tuple[Run, ...]) -> bool:
        self._runs[tenant] = tuple(sorted(runs))
        self._frozen_runs = None
        return True


def usual_run(plan: Plan) -> int:
    """Segment indexes in the first run of a tenant with few tiers: a power of two."""
    return max(1, min(USUAL_RUN, plan.segments // SMALLEST_SHARE))


def named(segment: SegmentKey) -> str:
    """The text of a segment in messages."""
    tenant = f"tenant {segment.tenant!r}" if segment.tenant else "pods without tenant"
    return f"{tenant}, tier {segment.tier!r}"


def _power_of_two(count: int) -> int:
    return 1 << max(0, count - 1).bit_length()
