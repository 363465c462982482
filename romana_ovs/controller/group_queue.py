"""Decides which groups are compiled in this round and which wait, so that large groups do not delay other changes.

Most changes are a few flows. A group that would take thousands waits when it changes. Meanwhile its previous flows stay
(a pod keeps the groups that it had; a pod without any is allowed nothing). Waiting groups are compiled one at a time,
after the changes of all others are on their way; each round leaves time for one of them, so neither side starves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from types import MappingProxyType

from romana_ovs.model.cluster import SegmentKey
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.namespace_limit import rows_of
from romana_ovs.policy.view import ClientGroup, LocalPod, Membership, NodeView, ServerGroup, Verdicts

ROOM = 2000
"""Rows of changed groups that one namespace may have made in one round on one node: some hundredths of a second."""
ROOM_OF_ALL = 10_000
"""The same of all namespaces together."""

Group = ServerGroup | ClientGroup
Name = tuple[bool, int]
"""A group's kind (whether it is of servers) and its number."""


@dataclass(frozen=True, slots=True)
class _Made:
    """A group in the version whose rows stand, and the last round in which that was the version wanted."""

    group: Group
    current: int


@dataclass(frozen=True, slots=True)
class _Held:
    """The groups that a pod has in the tables, and what tells it from another pod of its name."""

    segment: SegmentKey
    address: IPv4Address
    server: Group | None
    client: Group | None


@dataclass(slots=True)
class GroupQueue:
    """One node's turns. `put_off` are the groups that wait for theirs, each with the namespace of its pods."""

    put_off: dict[Name, str] = field(default_factory=dict)
    _wanted: Mapping[Name, Group] = field(default_factory=dict)
    _should: Mapping[PodKey, Membership] = field(default_factory=dict)
    _made: dict[Name, _Made] = field(default_factory=dict)
    _held: dict[PodKey, _Held] = field(default_factory=dict)
    _served: dict[str, int] = field(default_factory=dict)
    _turns: int = 0

    def take(self, view: NodeView, verdicts: Verdicts, number: int, *, extra: Name | None = None) -> Verdicts:
        """The verdicts to compile in round `number`: the given ones, but for groups that are put off.

        `extra` is a group that has its turn. Nothing is put off while there are no rows yet that could stand.
        """
        wanted = self._wanted = _by_name(verdicts)
        self._should = verdicts.members
        new = [name for name, group in wanted.items() if not self._stands(name, group)]
        owners = _owners(view, verdicts) if new else {}
        now = self._chosen({name: wanted[name] for name in new}, owners, extra)
        before, self._made = self._made, dict(self._made)
        self.put_off = {name: owners.get(name, "") for name in new if name not in now}
        for name, group in wanted.items():
            if name not in self.put_off:
                self._made[name] = _Made(group, number)
        standing = verdicts if not self.put_off else self._standing(view, verdicts, wanted, before)
        self._keep(view, standing)
        return standing

    def next(self) -> Name | None:
        """The group whose turn it is: of the namespace that had one longest ago, the one whose rows are oldest."""
        if not self.put_off:
            return None
        name = min(
            self.put_off,
            key=lambda each: (
                self._served.get(self.put_off[each], 0),
                self._made[each].current if each in self._made else 0,
                each,
            ),
        )
        self._turns += 1
        waiting = set(self.put_off.values())
        self._served = {owner: turn for owner, turn in self._served.items() if owner in waiting}
        self._served[self.put_off[name]] = self._turns
        return name

    def waiting(self, name: Name) -> Group | None:
        """The group of this name that waits for its turn; None when none does any more."""
        return self._wanted.get(name) if name in self.put_off else None

    def pods_of(self, name: Name) -> frozenset[PodKey]:
        """The pods that should be in the group of this name."""
        servers, number = name
        return frozenset(
            key for key, groups in self._should.items() if (groups.server if servers else groups.client) == number
        )

    def awaited(self, name: Name, pods: frozenset[PodKey]) -> bool:
        """Whether some of `pods`, which once should have been in that group, still wait for theirs."""
        servers = name[0]
        return any(
            (servers, groups.server if servers else groups.client) in self.put_off
            for key in pods
            if (groups := self._should.get(key)) is not None
        )

    def adopt(self, name: Name, group: Group, pods: frozenset[PodKey], number: int) -> None:
        """The rows of `group`, in which `pods` should have been in round `number`, are there: better than older."""
        self._made[name] = _Made(group, number)
        for key in pods & self._held.keys():
            held = self._held[key]
            self._held[key] = replace(held, server=group) if name[0] else replace(held, client=group)

    def stands(self, name: Name) -> bool:
        """Whether there are rows of this name in the tables, maybe of another version."""
        return name in self._made

    def current(self, number: int) -> int:
        """The last round, of those until `number`, than whose tables the rows that stand are no older."""
        return min((made.current for made in self._made.values()), default=number) if self.put_off else number

    def _stands(self, name: Name, group: Group) -> bool:
        made = self._made.get(name)
        return made is not None and (made.group is group or made.group == group)

    def _chosen(self, new: Mapping[Name, Group], owners: Mapping[Name, str], extra: Name | None) -> set[Name]:
        """The groups to be made now: the cheap ones first, each namespace's within its room."""
        if not self._made:
            return set(new)
        costs = {name: rows_of(group) for name, group in new.items()}
        found = {name for name in new if name == extra}
        spent: dict[str, int] = {}
        for name in sorted(new, key=lambda each: (costs[each], each)):
            owner = owners.get(name, "")
            spent[owner] = spent.get(owner, 0) + costs[name]
            if spent[owner] <= ROOM and sum(spent.values()) <= ROOM_OF_ALL:
                found.add(name)
        return found

    def _standing(
        self, view: NodeView, verdicts: Verdicts, wanted: Mapping[Name, Group], before: Mapping[Name, _Made]
    ) -> Verdicts:
        """The verdicts in which what is put off is as it was."""
        usable = {
            name
            for name, made in self._made.items()
            # A number that others have now says what it said, or it is no longer what the pod had.
            if name not in wanted or (name in before and before[name].group == made.group)
        }
        members = {
            pod.key: self._membership(pod, verdicts.members[pod.key], usable)
            for pod in view.pods
            if pod.key in verdicts.members
        }
        servers = sorted({each.server for each in members.values()})
        clients = sorted({each.client for each in members.values()} - {0})
        return replace(
            verdicts,
            members=MappingProxyType(members),
            servers=tuple(self._server(number) for number in servers),
            clients=tuple(self._client(number) for number in clients),
        )

    def _membership(self, pod: LocalPod, should: Membership, usable: set[Name]) -> Membership:
        """The groups that the pod has: those it should have, or else those it had."""
        held = self._held.get(pod.key)
        if held is None or (held.segment, held.address) != (pod.segment, pod.address):
            return should
        server, client = should.server, should.client
        if (True, server) not in self._made and held.server is not None and (True, held.server.number) in usable:
            server = held.server.number
        if client and (False, client) not in self._made:
            if held.client is None:
                client = 0
            elif (False, held.client.number) in usable:
                client = held.client.number
        return Membership(server, client)

    def _server(self, number: int) -> ServerGroup:
        made = self._made.get((True, number))
        return made.group if made is not None and isinstance(made.group, ServerGroup) else ServerGroup(number, (), ())

    def _client(self, number: int) -> ClientGroup:
        made = self._made.get((False, number))
        if made is not None and isinstance(made.group, ClientGroup):
            return made.group
        return ClientGroup(number, (), deferred=False)

    def _keep(self, view: NodeView, standing: Verdicts) -> None:
        """Remember what the tables say now, and nothing else."""
        named = _by_name(standing)
        self._made = {name: made for name, made in self._made.items() if name in named}
        self._held = {
            pod.key: _Held(
                pod.segment, pod.address, named.get((True, groups.server)), named.get((False, groups.client))
            )
            for pod in view.pods
            if (groups := standing.members.get(pod.key)) is not None
        }


def _by_name(verdicts: Verdicts) -> dict[Name, Group]:
    servers: dict[Name, Group] = {(True, group.number): group for group in verdicts.servers}
    return servers | {(False, group.number): group for group in verdicts.clients}


def _owners(view: NodeView, verdicts: Verdicts) -> dict[Name, str]:
    """The namespace that each group is made for: the first of those of its pods."""
    found: dict[Name, str] = {}
    for pod in view.pods:
        groups = verdicts.members.get(pod.key)
        for name in () if groups is None else ((True, groups.server), (False, groups.client)):
            found[name] = min(found.get(name, pod.namespace), pod.namespace)
    return found
