"""Groups the replicas of workloads, so that a summary has one line for each pair of workloads."""

from __future__ import annotations

import os.path
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping

from romana_ovs.kube.decode.controller_labels import (
    COMPLETION_INDEX,
    POD_INDEX,
    POD_NAME,
    REVISION_HASH,
    ROLLOUT_HASH,
    TEMPLATE_GENERATION,
    TEMPLATE_HASH,
)
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.objects import Pod, PodKey
from romana_ovs.policy.matrix import PodPath

_REPLICA_LABELS = frozenset(
    {COMPLETION_INDEX, POD_INDEX, POD_NAME, REVISION_HASH, ROLLOUT_HASH, TEMPLATE_GENERATION, TEMPLATE_HASH}
)
"""Labels in which the replicas, or the versions, of one workload differ."""


def display_names(*clusters: Cluster) -> Mapping[PodKey, str]:
    """A display name for each pod: its own, or `shop/web-* (3 pods)` for pods of one namespace with equal labels.

    Replicas whose common prefix is also that of another pod are named after the first of them.
    """
    pods: dict[PodKey, Pod] = {}
    for cluster in clusters:
        pods |= cluster.pods
    replicas: dict[tuple[str, frozenset[tuple[str, str]]], list[PodKey]] = defaultdict(list)
    for key, pod in pods.items():
        labels = frozenset((name, value) for name, value in pod.labels.items() if name not in _REPLICA_LABELS)
        replicas[pod.namespace, labels].append(key)
    ordered = sorted(pods)
    return {key: name for keys in replicas.values() for name in [_name(sorted(keys), ordered)] for key in keys}


def _name(keys: list[PodKey], ordered: list[PodKey]) -> str:
    """The display name of the replicas `keys`; `ordered` are all pods. Both are sorted."""
    if len(keys) == 1:
        return keys[0]
    prefix = os.path.commonprefix(keys)
    after = bisect_left(ordered, prefix) + len(keys)
    # Pods with the prefix are adjacent in `ordered`. If there are more of them than `keys`, some are no replicas.
    if any(key.startswith(prefix) for key in ordered[after : after + 1]):
        return f"{keys[0]} and {len(keys) - 1} with equal labels"
    return f"{prefix}* ({len(keys)} pods)"


def summary(paths: Iterable[PodPath], names: Mapping[PodKey, str]) -> list[str]:
    """A line for each pair of workloads, with all ports and the number of paths: `a -> b-* (2 pods)  80/tcp`."""
    by_pair: dict[tuple[str, str], list[PodPath]] = defaultdict(list)
    for one in paths:
        by_pair[names[one.source], names[one.destination]].append(one)
    return [
        f"{source} -> {target}  {_ports(group)}" + (f"  ({len(group)} paths)" if len(group) > 1 else "")
        for (source, target), group in by_pair.items()
    ]


def _ports(paths: list[PodPath]) -> str:
    return ", ".join(dict.fromkeys(one.port for one in paths))
