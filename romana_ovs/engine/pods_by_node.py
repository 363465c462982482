"""Sorts the pods of the cluster by node, for the nodes that have an agent."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

from romana_ovs.engine.changes import changed_keys
from romana_ovs.model.objects import Pod, PodKey

NO_PODS: Mapping[PodKey, Pod] = MappingProxyType({})


class PodsByNode:
    """The pods of each of some nodes. Only the mappings of nodes with changed pods are replaced."""

    def __init__(self) -> None:
        self._pods = NO_PODS
        self._by_node: dict[str, Mapping[PodKey, Pod]] = {}

    def of(self, node: str) -> Mapping[PodKey, Pod]:
        """The pods of `node`: the identical mapping until one of them changes."""
        return self._by_node.get(node, NO_PODS)

    def get(self, key: PodKey) -> Pod | None:
        """The pod of this name on any node, None without one."""
        return self._pods.get(key)

    def update(
        self, pods: Mapping[PodKey, Pod], nodes: Collection[str], changed: Collection[PodKey] | None = None
    ) -> Collection[str]:
        """Updates the mappings of `nodes` to the `pods` of the cluster; returns the nodes whose mapping was replaced.

        `changed` are the pods that changed since the last update, if that is known.
        """
        old, self._pods = self._pods, pods
        added = set(nodes) - self._by_node.keys()
        for node in self._by_node.keys() - set(nodes):
            del self._by_node[node]
        replaced = {}
        if self._by_node and pods is not old:
            replaced = self._replaced(old, pods, changed_keys(old, pods) if changed is None else changed)
        if added:
            replaced.update(_sorted(pods, added))
        self._by_node.update(replaced)
        return replaced.keys()

    def _replaced(
        self, old: Mapping[PodKey, Pod], new: Mapping[PodKey, Pod], changed: Collection[PodKey]
    ) -> dict[str, Mapping[PodKey, Pod]]:
        """The new pods of each node on which any changed."""
        pods_of: dict[str, dict[PodKey, Pod]] = {}
        for key in changed:
            before, after = old.get(key), new.get(key)
            for pod in (before, after):
                if pod is not None and pod.node in self._by_node:
                    pods_of.setdefault(pod.node, dict(self._by_node[pod.node]))
            if before is not None and before.node in pods_of:
                del pods_of[before.node][key]
            if after is not None and after.node in pods_of:
                pods_of[after.node][key] = after
        return {node: MappingProxyType(on_node) for node, on_node in pods_of.items()}


def _sorted(pods: Mapping[PodKey, Pod], nodes: Collection[str]) -> dict[str, Mapping[PodKey, Pod]]:
    """The pods of each of `nodes`."""
    pods_of: dict[str, dict[PodKey, Pod]] = {node: {} for node in nodes}
    for key, pod in pods.items():
        if pod.node in pods_of:
            pods_of[pod.node][key] = pod
    return {node: MappingProxyType(on_node) for node, on_node in pods_of.items()}
