"""What the registry tells nodes, and what nodes tell the registry: two frozen values.

The registry sees every pod; a node sees its own. So the registry says which numbers there are, and a node finds its
own pods' classes among them by exact labels. How a new question comes into use without anything stopping meanwhile
is the life of an atom (`Stage`); how a new class does, `ClassSet.coming`. A step is taken when the nodes have
acknowledged the one before (`Report`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import Any

from romana_ovs.addressing.plan import Plan
from romana_ovs.addressing.runs import Run
from romana_ovs.model.cluster import SegmentKey
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.view import Atom


def _frozen() -> Mapping[Any, Any]:
    return MappingProxyType({})


class Stage(Enum):
    """How far a question is in its life; the value is how objects write it."""

    NEW = "New"
    """Classes answer it, so that tables learn the numbers; pods wear what fits them without it."""
    WORN = "Worn"
    """Pods wear what fits them with it; no rule relies on it, for some pod may be late."""
    SETTLED = "Settled"
    """Every pod wears what fits it: rules may rely on it."""
    LEAVING = "Leaving"
    """No policy asks it any more: who relies on it may until his policies change, nobody else begins to."""


@dataclass(frozen=True, slots=True)
class ClassSet:
    """The classes of one namespace. `classes`: for each identity the atoms that hold; the other ones do not.

    `coming`: not every node knows it yet, so no pod changes to it. `going`: it has another number now, and no pod wears
    it any more but on nodes that have not heard. `pins`: pods that wear another class than the
    lowest that fits. `remnants` (segment, labels; oldest first) are what keeps classes that no pod is in. `retired`
    identities are not to be given again yet. `epoch` and `revision` are those of the last change.
    """

    namespace: str
    atoms: Mapping[Atom, Stage] = field(default_factory=_frozen)
    classes: Mapping[int, frozenset[Atom]] = field(default_factory=_frozen)
    coming: frozenset[int] = frozenset()
    going: frozenset[int] = frozenset()
    pins: Mapping[PodKey, int] = field(default_factory=_frozen)
    remnants: tuple[tuple[int, Labels], ...] = ()
    retired: frozenset[int] = frozenset()
    epoch: int = 0
    revision: int = 0

    @property
    def empty(self) -> bool:
        """Whether there is nothing in it that anybody must know."""
        return not (self.classes or self.retired or self.remnants)


@dataclass(frozen=True, slots=True)
class Claim:
    """A node's claim to the address of one of its pods that is not from the plan; nobody routes it until granted."""

    node: str
    granted: bool


@dataclass(frozen=True, slots=True)
class Published:
    """Every number that the registry has given, as of `revision`: everything up to it is in here.

    `epoch` counts the terms of registries, `writer` names the one of this term. `indexes` are each segment's, first
    the permanent one; `next_class` is the class number to try next, by segment number. `host_line` is the line in
    which host numbers wait (`addressing.numbers.Numbers.to_json`), `retired_hosts` are those not to be given again yet.
    """

    plan: Plan
    epoch: int = 0
    writer: str = ""
    revision: int = 0
    runs: Mapping[str, tuple[Run, ...]] = field(default_factory=_frozen)
    indexes: Mapping[SegmentKey, tuple[int, ...]] = field(default_factory=_frozen)
    next_class: Mapping[int, int] = field(default_factory=_frozen)
    hosts: Mapping[str, int] = field(default_factory=_frozen)
    host_line: tuple[int, ...] = (0,)
    retired_hosts: frozenset[int] = frozenset()
    foreign: Mapping[IPv4Address, Claim] = field(default_factory=_frozen)
    namespaces: Mapping[str, ClassSet] = field(default_factory=_frozen)


@dataclass(frozen=True, slots=True)
class Observed:
    """What has been seen of a node's switch.

    `sctp_ports`: whether it tracks SCTP by ports, None while that is not known. `full`: the tenants that have as many
    connections as they may have there.
    """

    sctp_ports: bool | None = None
    full: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Report:
    """What one node tells the registry.

    `acknowledged`: its switch has the classes of this revision, and its pods wear what this says. `released`: its
    tables rely on no atom that is leaving in this revision. `wants`: segments that it could give no address of, with
    the number of indexes that it knows of. `foreign`: addresses of its pods that are not from the plan. `contested`:
    addresses claimed by others that it has given to a pod itself. `policies` is the digest of the versions of all
    policies that its tables are made of. `observed` is what there is to tell of its switch.
    """

    node: str
    acknowledged: int = 0
    released: int = 0
    wants: Mapping[SegmentKey, int] = field(default_factory=_frozen)
    foreign: frozenset[IPv4Address] = frozenset()
    contested: frozenset[IPv4Address] = frozenset()
    policies: str = ""
    observed: Observed = Observed()
