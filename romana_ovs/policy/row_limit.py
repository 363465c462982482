"""Limits the rows that the rules of one namespace make on one node (setting `namespace_flows`).

A policy counts once for each group of pods that it selects differently, and one selector can match thousands of
identities. Above the limit, the groups with the most rows are compiled without the rules of that namespace. A rule that
is left out admits nobody; rules of other namespaces stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

from romana_ovs.model.derived import DerivedMap
from romana_ovs.policy.rules import PortRange
from romana_ovs.policy.view import Allow, ClientGroup, NodePermissions, ServerGroup

Group = ServerGroup | ClientGroup
RowCounts = Mapping[str, int]
"""Rows by the namespace of their rules."""
RowCountCache = DerivedMap[tuple[type[Group], int], RowCounts]
"""The counts of groups by kind and number; a number is counted again when its group is another object."""
G = TypeVar("G", ServerGroup, ClientGroup)


def rows_of(group: Group) -> int:
    """An estimate of the rows of `group`, rather too high."""
    return sum(rows_by_namespace(group).values())


def rows_by_namespace(group: Group) -> RowCounts:
    """An estimate of the rows of `group` by the namespace of their policies; "" for permissions of no policy."""
    counts: dict[str, int] = {}
    for allows in _allow_lists(group):
        seen: set[tuple[str, tuple[PortRange, ...] | None]] = set()
        for allow in allows:
            namespace = allow.origin.namespace
            rows = _peer_rows(allow)
            # Rules of the same ports share their rows.
            if (namespace, allow.ports) not in seen:
                seen.add((namespace, allow.ports))
                rows += 1 if allow.ports is None else sum(_port_rows(ports) for ports in allow.ports)
            counts[namespace] = counts.get(namespace, 0) + rows
    return counts


def _allow_lists(group: Group) -> tuple[tuple[Allow, ...], ...]:
    return (group.ingress, group.deferred_egress) if isinstance(group, ServerGroup) else (group.local_egress,)


def _peer_rows(allow: Allow) -> int:
    return max(1, len(allow.identities or ()) + 2 * len(allow.cidrs))


def _port_rows(ports: PortRange) -> int:
    """An upper bound of the masked matches of a range, for both directions."""
    bits = (ports.high - ports.low + 1).bit_length()
    return 2 * max(1, 2 * (bits - 1))


def limit_rows(permissions: NodePermissions, max_rows: int, cache: RowCountCache) -> NodePermissions:
    """`permissions` with at most `max_rows` rows (0: any number) for the rules of each namespace.

    Its `over_limit` has the namespaces above the limit, with their number of rows. Their rules are left out of the
    groups that have the most of their rows; among equal ones, the group number decides.
    """
    if not max_rows:
        return permissions
    groups: tuple[Group, ...] = (*permissions.servers, *permissions.clients)
    counts_of = cache.update({(type(group), group.number): group for group in groups}, rows_by_namespace)
    counted = list(zip(groups, counts_of.values(), strict=True))
    totals: dict[str, int] = {}
    for _, counts in counted:
        for namespace, rows in counts.items():
            totals[namespace] = totals.get(namespace, 0) + rows
    over_limit = {namespace: rows for namespace, rows in sorted(totals.items()) if namespace and rows > max_rows}
    if not over_limit:
        return permissions
    without: dict[int, set[str]] = {}
    for namespace in over_limit:
        left = max_rows
        for group, counts in sorted(counted, key=lambda each: (each[1].get(namespace, 0), each[0].number)):
            left -= counts.get(namespace, 0)
            if left < 0 and namespace in counts:
                without.setdefault(id(group), set()).add(namespace)
    return replace(
        permissions,
        servers=tuple(_without(group, without.get(id(group))) for group in permissions.servers),
        clients=tuple(_without(group, without.get(id(group))) for group in permissions.clients),
        over_limit=MappingProxyType(over_limit),
    )


def _without(group: G, namespaces: set[str] | None) -> G:
    """`group` without the rules of `namespaces`."""
    if not namespaces:
        return group

    def others(allows: tuple[Allow, ...]) -> tuple[Allow, ...]:
        return tuple(allow for allow in allows if allow.origin.namespace not in namespaces)

    if isinstance(group, ServerGroup):
        return replace(group, ingress=others(group.ingress), deferred_egress=others(group.deferred_egress))
    return replace(group, local_egress=others(group.local_egress))
