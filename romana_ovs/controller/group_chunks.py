"""Adds and removes the flows of a large group in chunks, so that no bundle delays the changes after it.

Open vSwitch takes some ten thousand flows a second. Flows of a group match no packet before the first pod belongs to it
and after the last one has left it, so they may come early and go late. When pods belong to a group already, a part of
its flows allows a part of what the group allows.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from romana_ovs.controller.group_queue import Group, Name
from romana_ovs.model.objects import PodKey
from romana_ovs.pipeline.compile import Program, is_group
from romana_ovs.pipeline.compile.program import Section, SectionEntries

PIECE = 1500
"""Rows in one piece: a tenth of a second or two of a switch's time."""


@dataclass(slots=True)
class Incoming:
    """A group whose rows are on their way, `there` of them in the tables; in round `number` `pods` should be in it."""

    name: Name
    group: Group
    pods: frozenset[PodKey]
    number: int
    entries: SectionEntries
    there: int = 0

    @property
    def rows(self) -> Section:
        """All of its rows."""
        return tuple(flow for _, section in self.entries.values() for flow in section)


@dataclass(slots=True)
class GroupChunks:
    """Of one node: what comes, and what is still to go."""

    rising: Incoming | None = None
    _fading: dict[Hashable, Section] = field(default_factory=dict)
    _groups: Mapping[Hashable, Section] = field(default_factory=dict)

    @property
    def busy(self) -> bool:
        """Whether there are more pieces to come or to go."""
        return self.rising is not None or bool(self._fading)

    def step(self) -> None:
        """One piece more of what comes, or one less of what goes."""
        if self.rising is not None:
            self.rising.there += PIECE
            return
        left = PIECE
        for name, section in list(self._fading.items()):
            taken, left = min(left, len(section)), left - min(left, len(section))
            self._fading[name] = section[taken:]
            if not self._fading[name]:
                del self._fading[name]

    def drop(self) -> None:
        """What was on its way is not wanted any more."""
        if self.rising is not None:
            self._fading["rising", self.rising.name] = self.rising.rows[: self.rising.there]
            self.rising = None

    def shown(self, program: Program) -> Program:
        """`program` with the pieces that are there beside it."""
        groups = {name: section for name, section in program.sections.items() if is_group(name)}
        self._fading |= {name: section for name, section in self._groups.items() if name not in groups}
        self._groups = groups
        held = {_number(name) for name in groups}
        # A number that is wanted again, maybe for other rows, leaves no room for old ones.
        self._fading = {name: rows for name, rows in self._fading.items() if _number(name) not in held}
        if sum(map(len, self._fading.values())) <= PIECE:
            self._fading = {}
        beside: dict[Hashable, Section] = {("fading", name): rows for name, rows in self._fading.items()}
        if self.rising is not None:
            beside["rising", self.rising.name] = self.rising.rows[: self.rising.there]
        if not beside:
            return program
        return replace(program, sections=MappingProxyType({**program.sections, **beside}))


def _number(name: Hashable) -> object:
    """The number of the group that rows under this name are of."""
    if not isinstance(name, tuple):
        return None
    return name[1][1] if name[0] == "rising" else name[1]
