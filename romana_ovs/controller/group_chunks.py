"""Adds and removes the flows of a large group in chunks, so that no bundle delays the changes after it.

Open vSwitch adds some ten thousand flows a second. Flows of a group match no packet before the first pod belongs to it
and after the last one has left it, so they may be added early and removed late. While pods belong to the group already,
a part of its flows allows a part of what the group allows.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from romana_ovs.controller.group_queue import Group, GroupKey
from romana_ovs.model.objects import PodKey
from romana_ovs.pipeline.compile import Program, is_group
from romana_ovs.pipeline.compile.program import Section, SectionEntries

CHUNK_ROWS = 1500
"""Rows in one chunk: a switch adds them in 0.1 to 0.2 s."""


@dataclass(slots=True)
class IncomingGroup:
    """A group of which `sent_rows` are in the tables; `pods` should be in it since round `desired_in`."""

    name: GroupKey
    group: Group
    pods: frozenset[PodKey]
    desired_in: int
    entries: SectionEntries
    sent_rows: int = 0

    @property
    def rows(self) -> Section:
        """All of its rows."""
        return tuple(flow for _, section in self.entries.values() for flow in section)


@dataclass(slots=True)
class GroupChunks:
    """The group of one node that is being added, and the groups that are being removed."""

    incoming: IncomingGroup | None = None
    _outgoing: dict[Hashable, Section] = field(default_factory=dict)
    _groups: Mapping[Hashable, Section] = field(default_factory=dict)

    @property
    def busy(self) -> bool:
        """Whether there are more chunks to add or to remove."""
        return self.incoming is not None or bool(self._outgoing)

    def advance(self) -> None:
        """Let `with_chunks` add one more chunk of the incoming group, or remove one of outgoing groups."""
        if self.incoming is not None:
            self.incoming.sent_rows += CHUNK_ROWS
            return
        left = CHUNK_ROWS
        for name, section in list(self._outgoing.items()):
            removed, left = min(left, len(section)), left - min(left, len(section))
            self._outgoing[name] = section[removed:]
            if not self._outgoing[name]:
                del self._outgoing[name]

    def cancel(self) -> None:
        """Remove what was added of the incoming group."""
        if self.incoming is not None:
            self._outgoing["incoming", self.incoming.name] = self.incoming.rows[: self.incoming.sent_rows]
            self.incoming = None

    def with_chunks(self, program: Program) -> Program:
        """`program` with the added rows of the incoming group, and the remaining rows of outgoing groups.

        Groups that are not in `program` any more are outgoing from now on.
        """
        groups = {name: section for name, section in program.sections.items() if is_group(name)}
        self._outgoing |= {name: section for name, section in self._groups.items() if name not in groups}
        self._groups = groups
        numbers = {_number(name) for name in groups}
        # A number that is in use again, maybe for other rows, must have no old rows.
        self._outgoing = {name: rows for name, rows in self._outgoing.items() if _number(name) not in numbers}
        if sum(map(len, self._outgoing.values())) <= CHUNK_ROWS:
            self._outgoing = {}
        chunks: dict[Hashable, Section] = {("outgoing", name): rows for name, rows in self._outgoing.items()}
        if self.incoming is not None:
            chunks["incoming", self.incoming.name] = self.incoming.rows[: self.incoming.sent_rows]
        if not chunks:
            return program
        return replace(program, sections=MappingProxyType({**program.sections, **chunks}))


def _number(name: Hashable) -> object:
    """The number of the group that rows under this name are of."""
    if not isinstance(name, tuple):
        return None
    return name[1][1] if name[0] == "incoming" else name[1]
