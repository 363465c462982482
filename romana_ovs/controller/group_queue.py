"""Decides which groups are compiled in this round and which are postponed, so that large ones do not delay others.

Most changes are a few flows. When a group changes that takes thousands, it is postponed: its previous flows stay (a pod
keeps the groups that it had; a pod without any is allowed nothing). Deferred groups are compiled one at a time, after
all other changes have been sent, and one after each round, so that neither kind starves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from types import MappingProxyType

from romana_ovs.model.cluster import SegmentKey
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.row_limit import rows_of
from romana_ovs.policy.view import ClientGroup, LocalPod, Membership, NodePermissions, NodeView, ServerGroup

MAX_ROWS_OF_NAMESPACE = 2000
"""Rows of changed groups of one namespace in one round on one node: some hundredths of a second for a switch."""
MAX_ROWS_OF_ROUND = 10_000
"""The same for all namespaces together."""

Group = ServerGroup | ClientGroup
GroupKey = tuple[bool, int]
"""A group's kind (True: of servers, False: of clients) and its number."""


@dataclass(frozen=True, slots=True)
class _InstalledGroup:
    """The version of a group whose rows are in the tables, and the last round in which that was the desired one."""

    group: Group
    desired_in: int


@dataclass(frozen=True, slots=True)
class _PodGroups:
    """The groups that a pod has in the tables; segment and address distinguish it from another pod of its name."""

    segment: SegmentKey
    address: IPv4Address
    server: Group | None
    client: Group | None


@dataclass(slots=True)
class GroupQueue:
    """The groups of one node. `postponed` are those to compile later, each with the namespace of its pods."""

    postponed: dict[GroupKey, str] = field(default_factory=dict)
    _desired: Mapping[GroupKey, Group] = field(default_factory=dict)
    _members: Mapping[PodKey, Membership] = field(default_factory=dict)
    _installed: dict[GroupKey, _InstalledGroup] = field(default_factory=dict)
    _pods: dict[PodKey, _PodGroups] = field(default_factory=dict)
    _last_turn: dict[str, int] = field(default_factory=dict)
    _turn: int = 0

    def select(
        self, view: NodeView, permissions: NodePermissions, number: int, *, extra: GroupKey | None = None
    ) -> NodePermissions:
        """The permissions to compile in round `number`: those given, with postponed groups in their previous version.

        `extra` is a group that is not postponed, however large. While the tables have no groups, none is postponed.
        """
        desired = self._desired = _by_key(permissions)
        self._members = permissions.members
        new = [name for name, group in desired.items() if not self._is_current(name, group)]
        namespaces = _namespaces_of_groups(view, permissions) if new else {}
        selected = self._select_new({name: desired[name] for name in new}, namespaces, extra)
        before, self._installed = self._installed, dict(self._installed)
        self.postponed = {name: namespaces.get(name, "") for name in new if name not in selected}
        for name, group in desired.items():
            if name not in self.postponed:
                self._installed[name] = _InstalledGroup(group, number)
        to_compile = (
            permissions if not self.postponed else self._installed_permissions(view, permissions, desired, before)
        )
        self._record(view, to_compile)
        return to_compile

    def next_postponed(self) -> GroupKey | None:
        """The next group to compile: of the namespace with a turn longest ago, the one with the oldest rows."""
        if not self.postponed:
            return None
        name = min(
            self.postponed,
            key=lambda name: (
                self._last_turn.get(self.postponed[name], 0),
                self._installed[name].desired_in if name in self._installed else 0,
                name,
            ),
        )
        self._turn += 1
        postponed_namespaces = set(self.postponed.values())
        self._last_turn = {
            namespace: turn for namespace, turn in self._last_turn.items() if namespace in postponed_namespaces
        }
        self._last_turn[self.postponed[name]] = self._turn
        return name

    def postponed_group(self, name: GroupKey) -> Group | None:
        """The postponed group of this key; None when it is not postponed any more."""
        return self._desired.get(name) if name in self.postponed else None

    def pods_of(self, name: GroupKey) -> frozenset[PodKey]:
        """The pods that should be in the group of this key."""
        servers, number = name
        return frozenset(
            key for key, groups in self._members.items() if (groups.server if servers else groups.client) == number
        )

    def still_needs(self, name: GroupKey, pods: frozenset[PodKey]) -> bool:
        """Whether some of `pods`, which an earlier round put into that group, still wait for a postponed group."""
        servers = name[0]
        return any(
            (servers, groups.server if servers else groups.client) in self.postponed
            for key in pods
            if (groups := self._members.get(key)) is not None
        )

    def mark_installed(self, name: GroupKey, group: Group, pods: frozenset[PodKey], number: int) -> None:
        """The tables have the rows of `group`, in which `pods` should have been in round `number`."""
        self._installed[name] = _InstalledGroup(group, number)
        for key in pods & self._pods.keys():
            previous = self._pods[key]
            self._pods[key] = replace(previous, server=group) if name[0] else replace(previous, client=group)

    def is_installed(self, name: GroupKey) -> bool:
        """Whether the tables have rows of this group, maybe of another version."""
        return name in self._installed

    def completed_round(self, number: int) -> int:
        """The last round, at most `number`, whose groups the tables have completely."""
        return (
            min((installed.desired_in for installed in self._installed.values()), default=number)
            if self.postponed
            else number
        )

    def _is_current(self, name: GroupKey, group: Group) -> bool:
        installed = self._installed.get(name)
        return installed is not None and (installed.group is group or installed.group == group)

    def _select_new(
        self, new: Mapping[GroupKey, Group], namespaces: Mapping[GroupKey, str], extra: GroupKey | None
    ) -> set[GroupKey]:
        """The groups to compile now: small ones first, within the rows of each namespace and of all."""
        if not self._installed:
            return set(new)
        costs = {name: rows_of(group) for name, group in new.items()}
        selected = {name for name in new if name == extra}
        spent: dict[str, int] = {}
        for name in sorted(new, key=lambda name: (costs[name], name)):
            namespace = namespaces.get(name, "")
            spent[namespace] = spent.get(namespace, 0) + costs[name]
            if spent[namespace] <= MAX_ROWS_OF_NAMESPACE and sum(spent.values()) <= MAX_ROWS_OF_ROUND:
                selected.add(name)
        return selected

    def _installed_permissions(
        self,
        view: NodeView,
        permissions: NodePermissions,
        desired: Mapping[GroupKey, Group],
        before: Mapping[GroupKey, _InstalledGroup],
    ) -> NodePermissions:
        """The permissions with postponed groups in their installed version."""
        usable = {
            name
            for name, installed in self._installed.items()
            # A number is only usable if its rows are still of the version that the pod had.
            if name not in desired or (name in before and before[name].group == installed.group)
        }
        members = {
            pod.key: self._membership(pod, permissions.members[pod.key], usable)
            for pod in view.pods
            if pod.key in permissions.members
        }
        servers = sorted({groups.server for groups in members.values()})
        clients = sorted({groups.client for groups in members.values()} - {0})
        return replace(
            permissions,
            members=MappingProxyType(members),
            servers=tuple(self._server(number) for number in servers),
            clients=tuple(self._client(number) for number in clients),
        )

    def _membership(self, pod: LocalPod, desired: Membership, usable: set[GroupKey]) -> Membership:
        """The groups of the pod: the desired ones, or its previous ones while those are not installed."""
        previous = self._pods.get(pod.key)
        if previous is None or (previous.segment, previous.address) != (pod.segment, pod.address):
            return desired
        server, client = desired.server, desired.client
        if (
            (True, server) not in self._installed
            and previous.server is not None
            and (True, previous.server.number) in usable
        ):
            server = previous.server.number
        if client and (False, client) not in self._installed:
            if previous.client is None:
                client = 0
            elif (False, previous.client.number) in usable:
                client = previous.client.number
        return Membership(server, client)

    def _server(self, number: int) -> ServerGroup:
        installed = self._installed.get((True, number))
        return (
            installed.group
            if installed is not None and isinstance(installed.group, ServerGroup)
            else ServerGroup(number, (), ())
        )

    def _client(self, number: int) -> ClientGroup:
        installed = self._installed.get((False, number))
        if installed is not None and isinstance(installed.group, ClientGroup):
            return installed.group
        return ClientGroup(number, (), deferred=False)

    def _record(self, view: NodeView, compiled: NodePermissions) -> None:
        """Record the groups that the tables have now."""
        by_key = _by_key(compiled)
        self._installed = {name: installed for name, installed in self._installed.items() if name in by_key}
        self._pods = {
            pod.key: _PodGroups(
                pod.segment, pod.address, by_key.get((True, groups.server)), by_key.get((False, groups.client))
            )
            for pod in view.pods
            if (groups := compiled.members.get(pod.key)) is not None
        }


def _by_key(permissions: NodePermissions) -> dict[GroupKey, Group]:
    servers: dict[GroupKey, Group] = {(True, group.number): group for group in permissions.servers}
    return servers | {(False, group.number): group for group in permissions.clients}


def _namespaces_of_groups(view: NodeView, permissions: NodePermissions) -> dict[GroupKey, str]:
    """The namespace that the rows of each group count for: the first of its pods'."""
    namespaces: dict[GroupKey, str] = {}
    for pod in view.pods:
        groups = permissions.members.get(pod.key)
        for name in () if groups is None else ((True, groups.server), (False, groups.client)):
            namespaces[name] = min(namespaces.get(name, pod.namespace), pod.namespace)
    return namespaces
