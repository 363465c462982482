"""Compares two snapshots of a cluster."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import compress
from operator import is_not
from typing import TypeVar

from romana_ovs.model.cluster import Cluster
from romana_ovs.model.objects import PodKey
from romana_ovs.model.settings import TenantSource

Key = TypeVar("Key")
Value = TypeVar("Value")


def changed_keys(old: Mapping[Key, Value], new: Mapping[Key, Value]) -> set[Key]:
    """Keys that are new, deleted, or have another value. Identical objects are not compared."""
    if old is new:
        return set()
    # Ten thousand keys, mostly with the same objects: no bytecode runs for these.
    candidates = list(compress(new, map(is_not, new.values(), map(old.get, new))))
    changed = {key for key in candidates if key not in old or old[key] != new[key]}
    added = sum(1 for key in candidates if key not in old)
    if len(old) + added != len(new):
        changed.update(old.keys() - new.keys())
    return changed


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed: pods and namespaces by key (deleted ones too), nodes as a whole.

    `meaning`: the settings changed, or the tenant of a namespace: so every pod counts as changed, and so may policies.
    """

    pods: frozenset[PodKey]
    namespaces: frozenset[str]
    nodes: bool
    meaning: bool

    @classmethod
    def between(cls, old: Cluster | None, new: Cluster, pods: Collection[PodKey] | None = None) -> Changes:
        """The changes from `old` (None: from nothing) to `new`; `pods` are those that changed, if that is known."""
        if old is None:
            return cls(frozenset(new.pods), frozenset(new.namespaces), nodes=True, meaning=True)
        namespaces = frozenset(changed_keys(old.namespaces, new.namespaces))
        meaning = old.settings != new.settings or (
            new.settings.tenant_source is TenantSource.NAMESPACE_LABEL
            and any(old.tenant_of_namespace(name) != new.tenant_of_namespace(name) for name in namespaces)
        )
        changed = frozenset(changed_keys(old.pods, new.pods) if pods is None else pods)
        return cls(
            pods=changed | new.pods.keys() if meaning else changed,
            namespaces=namespaces,
            nodes=bool(changed_keys(old.nodes, new.nodes)),
            meaning=meaning,
        )
