"""Allocates segment indexes to tenants and their tiers, permanently.

A tenant owns aligned blocks of indexes, a segment one or more indexes in its tenant's blocks. The first index is the
segment's permanent number, which is part of identities (docs/dataplane.md, "Identity").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from romana_ovs.addressing.blocks import Block, FreeBlocks
from romana_ovs.addressing.plan import NODE_SEGMENT, AddressPlan
from romana_ovs.model.cluster import SegmentKey
from romana_ovs.model.errors import AddressError

DEFAULT_BLOCK_SIZE = 4
"""Segment indexes in a tenant's first block, unless the plan is too small or the tenant has more tiers."""
FIRST_BLOCK_DIVISOR = 16
"""A first block has at most 1/16 of all indexes, unless the tenant's tiers need more."""
MAX_TIERS, TIER_LIMIT_DIVISOR = 16, 16
"""Limit of tiers of one tenant: 16, or 1/16 of all indexes if that is more.

A tier is a pod label, which any user who may create pods can choose, and its index is never freed. Without a limit, a
tenant with one pod at a time could use up all indexes.
"""
WAITS_FOR_REGISTRY = "it waits for the registry to give a further range"
"""Why a full segment gets no further index where another process allocates them."""
Blocks = Mapping[str, tuple[Block, ...]]
Indexes = Mapping[SegmentKey, tuple[int, ...]]


class SegmentTable:
    """The blocks of tenants and the indexes of segments as the registry published them; it allocates none itself.

    Properties return the same frozen object until it changes. `exhaustion_reason`: why a full segment gets no further
    index, in words that follow "and".
    """

    def __init__(
        self, plan: AddressPlan, blocks: Blocks, indexes: Indexes, *, exhaustion_reason: str = WAITS_FOR_REGISTRY
    ) -> None:
        self.exhaustion_reason = exhaustion_reason
        self._plan = plan
        self._blocks = dict(blocks)
        self._indexes = dict(indexes)
        self._segment_of_index = {index: key for key, owned in indexes.items() for index in owned}
        self._frozen_blocks: Mapping[str, tuple[Block, ...]] | None = None
        self._frozen_numbers: Mapping[SegmentKey, int] | None = None
        self._frozen_indexes: Mapping[SegmentKey, tuple[int, ...]] | None = None

    @property
    def blocks(self) -> Mapping[str, tuple[Block, ...]]:
        """Each tenant's blocks, sorted."""
        if self._frozen_blocks is None:
            self._frozen_blocks = MappingProxyType(dict(sorted(self._blocks.items())))
        return self._frozen_blocks

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
            self._frozen_numbers = MappingProxyType({key: owned[0] for key, owned in sorted(self._indexes.items())})
        return self._frozen_numbers

    def indexes(self, segment: SegmentKey) -> tuple[int, ...]:
        """The indexes of `segment`, the permanent number first; empty for an unknown one."""
        return self._indexes.get(segment, ())

    def ensure_number(self, segment: SegmentKey) -> int:
        """The permanent number of `segment`. Raises AddressError until the registry has published one."""
        indexes = self._indexes.get(segment)
        if indexes is None:
            raise AddressError(f"{named(segment)} has no range yet: it waits for the registry")
        return indexes[0]

    def allocate_tiers(self, tenant: str, tiers: Collection[str]) -> None:
        """Nothing: the registry allocates for all tiers of a tenant at once."""

    def grow(self, segment: SegmentKey) -> bool:
        """Whether `segment` got one more index: never, as the registry allocates it."""
        return False

    def to_json(self) -> dict[str, Any]:
        """The state as JSON values, for `SegmentAllocator.from_json`; only tests write it."""
        return {
            "runs": {tenant: [list(block) for block in blocks] for tenant, blocks in sorted(self._blocks.items())},
            "segments": [[*key, *indexes] for key, indexes in sorted(self._indexes.items())],
        }


class SegmentAllocator(SegmentTable):
    """Allocates the blocks of tenants and the indexes of segments."""

    def __init__(self, plan: AddressPlan) -> None:
        super().__init__(plan, {}, {}, exhaustion_reason=all_indexes_owned(plan))
        self._tiers: Counter[str] = Counter()
        self._unused = FreeBlocks(plan, [Block(NODE_SEGMENT, 1)])

    def allocate_tiers(self, tenant: str, tiers: Collection[str]) -> None:
        """Allocates the first block of `tenant`, with room for `tiers`, and their numbers, in sorted order.

        Tiers above the limit get none: `ensure_number` raises AddressError for them.
        """
        room = max(0, self.max_tiers - self._tiers[tenant])
        missing = sorted(tier for tier in tiers if SegmentKey(tenant, tier) not in self._indexes)[:room]
        if tenant not in self._blocks:
            self._add_block(tenant, max(default_block_size(self._plan), _power_of_two(len(missing))))
        for tier in missing:
            if not self._add_index(SegmentKey(tenant, tier)):
                return

    def ensure_number(self, segment: SegmentKey) -> int:
        """The permanent number of `segment`, allocated at first use. Raises AddressError when no index is left."""
        if segment not in self._indexes:
            self.allocate_tiers(segment.tenant, (segment.tier,))
        if segment not in self._indexes:
            raise AddressError(f"{named(segment)} gets no range: {self._refusal_reason(segment.tenant)}")
        return self._indexes[segment][0]

    @property
    def max_tiers(self) -> int:
        """The limit of tiers of one tenant."""
        return max(MAX_TIERS, self._plan.segments // TIER_LIMIT_DIVISOR)

    def _refusal_reason(self, tenant: str) -> str:
        if self._tiers[tenant] >= self.max_tiers:
            return f"its tenant has {self._tiers[tenant]} tiers, and one may have {self.max_tiers} at most, ever"
        return self.exhaustion_reason

    def grow(self, segment: SegmentKey) -> bool:
        """Allocates one more index to `segment`, in its tenant's blocks or a new one; returns whether one was left."""
        return self._add_index(segment)

    @classmethod
    def from_json(cls, data: Mapping[str, Any], plan: AddressPlan) -> SegmentAllocator:
        """The state of `to_json`, with the words of state files of version 0.1.0, where a block is a run.

        Raises ValueError, TypeError or KeyError when it is invalid.
        """
        blocks = {
            tenant: tuple(Block(int(base), int(size)) for base, size in values)
            for tenant, values in data["runs"].items()
        }
        indexes = {SegmentKey(tenant, tier): tuple(map(int, values)) for tenant, tier, *values in data["segments"]}
        return cls.of(plan, blocks, indexes)

    @classmethod
    def of(cls, plan: AddressPlan, blocks: Blocks, indexes: Indexes) -> SegmentAllocator:
        """A state with these blocks and indexes. Raises ValueError or KeyError when they contradict each other."""
        allocator = cls(plan)
        allocator._blocks.update(blocks)
        taken = [block for blocks in allocator._blocks.values() for block in blocks]
        covered = [index for block in taken for index in block.indexes]
        if len(set(covered)) != len(covered) or any(not 0 < index < plan.segments for index in covered):
            raise ValueError("blocks overlap or lie outside the plan")
        for key, owned in indexes.items():
            allocator._set_indexes(key, owned)
        allocator._unused = FreeBlocks(plan, [Block(NODE_SEGMENT, 1), *taken])
        return allocator

    def _set_indexes(self, segment: SegmentKey, indexes: tuple[int, ...]) -> None:
        own = {index for block in self._blocks[segment.tenant] for index in block.indexes}
        if not indexes or not own.issuperset(indexes) or any(index in self._segment_of_index for index in indexes):
            raise ValueError(f"{named(segment)} has indexes that are not its own")
        self._indexes[segment] = indexes
        self._tiers[segment.tenant] += 1
        self._frozen_numbers = self._frozen_indexes = None
        self._segment_of_index.update((index, segment) for index in indexes)

    def _add_index(self, segment: SegmentKey) -> bool:
        while True:
            for block in self._blocks.get(segment.tenant, ()):
                for index in block.indexes:
                    if index not in self._segment_of_index:
                        self._tiers[segment.tenant] += segment not in self._indexes
                        self._indexes[segment] = (*self.indexes(segment), index)
                        self._segment_of_index[index] = segment
                        self._frozen_numbers = self._frozen_indexes = None
                        return True
            sizes = [block.size for block in self._blocks.get(segment.tenant, ())]
            if not self._add_block(segment.tenant, max(sizes, default=1)):
                return False

    def _add_block(self, tenant: str, size: int) -> bool:
        """Extends an own block by its buddy; else adds a block of `size`, or the largest smaller one, if any is left.

        An extension is of the block's own size, so that its addresses stay one range. Returns whether it got any.
        """
        blocks = self._blocks.get(tenant, ())
        for block in reversed(blocks):
            if self._unused.take_exactly(block.buddy):
                self._set_blocks(tenant, tuple(block.with_buddy() if block == other else other for other in blocks))
                return True
        while size:
            free_block = self._unused.take(size)
            if free_block is not None:
                self._set_blocks(tenant, (*blocks, free_block))
                return True
            size //= 2
        return False

    def _set_blocks(self, tenant: str, blocks: tuple[Block, ...]) -> None:
        self._blocks[tenant] = tuple(sorted(blocks))
        self._frozen_blocks = None


def all_indexes_owned(plan: AddressPlan) -> str:
    """The reason why no tenant can get a further index of `plan`, with the arithmetic."""
    return (
        f"all {plan.segments} - 1 = {plan.segments - 1} segment indexes of network {plan.network} "
        f"(segment_bits {plan.segment_bits}) belong to tenants"
    )


def default_block_size(plan: AddressPlan) -> int:
    """Segment indexes in the first block of a tenant with few tiers: a power of two."""
    return max(1, min(DEFAULT_BLOCK_SIZE, plan.segments // FIRST_BLOCK_DIVISOR))


def named(segment: SegmentKey) -> str:
    """The text of a segment in messages."""
    tenant = f"tenant {segment.tenant!r}" if segment.tenant else "pods without tenant"
    return f"{tenant}, tier {segment.tier!r}"


def _power_of_two(count: int) -> int:
    return 1 << max(0, count - 1).bit_length()
