"""Defines what the registry publishes to node agents: every number that it has allocated (`Published`).

The registry sees every pod, a node agent its own. So the registry publishes which numbers there are, and a node agent
finds its own pods' classes among them by exact labels. A new label requirement comes into use in steps (`Stage`), and
so does a new class (`ClassSet.pending`): a step is taken when the nodes have acknowledged the one before (`Report`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import Any

from romana_ovs.addressing.blocks import Block
from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.model.cluster import SegmentKey
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.view import LabelRequirement


def _frozen() -> Mapping[Any, Any]:
    return MappingProxyType({})


class Stage(Enum):
    """The stage of a label requirement; the value is its spelling in ClassSet objects."""

    INTRODUCED = "Introduced"
    """Classes are split by it, and tables match their new numbers; pods keep the class that they have without it."""
    ADOPTED = "Adopted"
    """Pods use the class that they have with it; no rule relies on it yet, as some node may be late."""
    ACTIVE = "Active"
    """Every pod uses the class that it has with it, so rules may rely on it."""
    RETIRING = "Retiring"
    """No policy has it any more: rules that rely on it may go on until their policies change, no others begin to."""


@dataclass(frozen=True, slots=True)
class ClassSet:
    """The classes of one namespace. `classes`: for each identity, the requirements that match; the others do not.

    `pending`: not every node knows the class yet, so no pod changes to it. `retiring`: the class has a new number; only
    pods on nodes that have not acknowledged the new one still use this one. `overrides`: pods whose class is not the
    lowest that fits. `tombstones` (segment, labels; oldest first) keep classes without pods. `retired` identities must
    not be reused yet. `epoch` and `revision` are those of the last change.
    """

    namespace: str
    requirements: Mapping[LabelRequirement, Stage] = field(default_factory=_frozen)
    classes: Mapping[int, frozenset[LabelRequirement]] = field(default_factory=_frozen)
    pending: frozenset[int] = frozenset()
    retiring: frozenset[int] = frozenset()
    overrides: Mapping[PodKey, int] = field(default_factory=_frozen)
    tombstones: tuple[tuple[int, Labels], ...] = ()
    retired: frozenset[int] = frozenset()
    epoch: int = 0
    revision: int = 0

    @property
    def empty(self) -> bool:
        """Whether it has no class, no retired identity and no tombstone, so that it need not be published."""
        return not (self.classes or self.retired or self.tombstones)


@dataclass(frozen=True, slots=True)
class Claim:
    """A node's claim to the foreign address of one of its pods; no node routes it until it is granted."""

    node: str
    granted: bool


@dataclass(frozen=True, slots=True)
class Published:
    """Every number that the registry has allocated, complete up to `revision`.

    `epoch` counts leadership terms, `writer` names the registry of this term. `indexes` are each segment's, first the
    permanent one; `next_class` is the class number to try next, by segment number. `free_hosts` are the lowest host
    number never used, then the free ones below it in the order of allocation
    (`addressing.numbers.NumberAllocator.to_json`); `retired_hosts` must not be reused yet.
    """

    plan: AddressPlan
    epoch: int = 0
    writer: str = ""
    revision: int = 0
    blocks: Mapping[str, tuple[Block, ...]] = field(default_factory=_frozen)
    indexes: Mapping[SegmentKey, tuple[int, ...]] = field(default_factory=_frozen)
    next_class: Mapping[int, int] = field(default_factory=_frozen)
    hosts: Mapping[str, int] = field(default_factory=_frozen)
    free_hosts: tuple[int, ...] = (0,)
    retired_hosts: frozenset[int] = frozenset()
    foreign: Mapping[IPv4Address, Claim] = field(default_factory=_frozen)
    class_sets: Mapping[str, ClassSet] = field(default_factory=_frozen)
