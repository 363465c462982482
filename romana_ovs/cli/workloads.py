"""Groups the replicas of workloads, so that a summary has one line for each pair of workloads."""

from __future__ import annotations

import os.path
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping

from romana_ovs.model.cluster import Cluster
from romana_ovs.model.objects import Pod, PodKey
from romana_ovs.policy.matrix import Opening

_OWN_LABELS = frozenset(
    {
        "apps.kubernetes.io/pod-index",
        "batch.kubernetes.io/job-completion-index",
        "controller-revision-hash",
        "pod-template-generation",
        "pod-template-hash",
        "statefulset.kubernetes.io/pod-name",
    }
)
"""Labels by which workload controllers tell replicas or versions of one workload apart."""


def workloads(*clusters: Cluster) -> Mapping[PodKey, str]:
    """A name for each pod: its own, or `shop/web-* (3 pods)` where others of its namespace have the same labels.

    Replicas whose common prefix other pods have, too, are named after the first of them.
    """
    pods: dict[PodKey, Pod] = {}
    for cluster in clusters:
        pods |= cluster.pods
    alike: dict[tuple[str, frozenset[tuple[str, str]]], list[PodKey]] = defaultdict(list)
    for key, pod in pods.items():
        labels = frozenset((name, value) for name, value in pod.labels.items() if name not in _OWN_LABELS)
        alike[pod.namespace, labels].append(key)
    ordered = sorted(pods)
    return {key: name for keys in alike.values() for name in [_name(sorted(keys), ordered)] for key in keys}


def _name(keys: list[PodKey], ordered: list[PodKey]) -> str:
    """A name for the pods `keys`, of all pods `ordered`; both are sorted."""
    if len(keys) == 1:
        return keys[0]
    prefix = os.path.commonprefix(keys)
    begin = bisect_left(ordered, prefix)
    # All that begin so stand together: one more than ours is somebody else's.
    if any(key.startswith(prefix) for key in ordered[begin + len(keys) : begin + len(keys) + 1]):
        return f"{keys[0]} and {len(keys) - 1} alike"
    return f"{prefix}* ({len(keys)} pods)"


def summary(openings: Iterable[Opening], names: Mapping[PodKey, str]) -> list[str]:
    """A line for each pair of workloads, with all ports and how many openings that are: `a -> b-* (2 pods)  80/tcp`."""
    by_pair: dict[tuple[str, str], list[Opening]] = defaultdict(list)
    for one in openings:
        by_pair[names[one.source], names[one.destination]].append(one)
    return [
        f"{source} -> {target}  {_ports(paths)}" + (f"  ({len(paths)} paths)" if len(paths) > 1 else "")
        for (source, target), paths in by_pair.items()
    ]


def _ports(openings: list[Opening]) -> str:
    return ", ".join(dict.fromkeys(one.port for one in openings))
