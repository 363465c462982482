"""Lists the pods, workloads and kinds that take no part in the answer of a command, each with the reason."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator

from romana_ovs.kube.snapshot import ClusterSnapshot, LeftOut
from romana_ovs.model.errors import Problem, Severity
from romana_ovs.model.objects import Pod
from romana_ovs.model.syntax import joined

SHOWN_NAMES = 3
"""How many pods of one reason a note names; further ones are counted."""

_ENDED = "has ended (Succeeded or Failed), so it has no network"
_HOST_NETWORK = "uses its node's network (hostNetwork): no policy selects it, and its traffic is that of its node"
_NO_ADDRESS = "has a status without an IPv4 address, so it does not run yet, and its paths are not known"
_IPV6 = "has no IPv4 address but one of IPv6, which is not evaluated"
_IGNORED = "objects of this kind have no effect here"


def left_out(loaded: ClusterSnapshot) -> list[LeftOut]:
    """Everything that takes no part in what is evaluated and measured: pods, workloads without pods, ignored kinds."""
    ipv6 = {item.value.key for item in loaded.objects if isinstance(item.value, Pod) and item.unsupported}
    pods = [
        LeftOut("Pod", key, reason, loaded.locations.get(key))
        for key, pod in loaded.cluster.pods.items()
        if (reason := _IPV6 if key in ipv6 else _pod_reason(pod))
    ]
    named = {one.kind for one in loaded.left_out}
    kinds = [LeftOut(kind, "", _IGNORED) for kind in loaded.ignored if kind not in named]
    return [*pods, *loaded.left_out, *kinds]


def _pod_reason(pod: Pod) -> str:
    if pod.networked:
        return ""
    return _ENDED if pod.finished else _HOST_NETWORK if pod.host_network else _NO_ADDRESS


def left_out_json(*snapshots: ClusterSnapshot, pods: Collection[str] | None = None) -> dict[str, object]:
    """The field `left_out` of an answer: `[{"kind", "name", "reason"}]`, each once. Absent when there is nothing.

    `pods`: an answer about these alone, so that nothing else matters.
    """
    entries = dict.fromkeys(
        (one.kind, one.name, one.reason)
        for loaded in snapshots
        for one in left_out(loaded)
        if pods is None or (one.kind == "Pod" and one.name in pods)
    )
    rows = [{"kind": kind, "name": name, "reason": reason} for kind, name, reason in entries]
    return {"left_out": rows} if rows else {}


def left_out_notes(loaded: ClusterSnapshot) -> list[Problem]:
    """A note for each workload that is left out, and one for all pods of one reason.

    Pods that have ended are not mentioned, as nothing can depend on them, and neither are ignored kinds.
    """
    return [*workload_notes(loaded), *pod_notes(loaded)]


def workload_notes(loaded: ClusterSnapshot) -> Iterator[Problem]:
    """A note for each workload that is left out."""
    for one in loaded.left_out:
        if one.location is not None:
            yield one.location.problem("", one.reason, Severity.INFO)


def pod_notes(loaded: ClusterSnapshot) -> Iterator[Problem]:
    """One note for each reason, about all pods that are left out for it; those that have ended are not mentioned."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for one in left_out(loaded):
        if one.kind == "Pod" and one.reason != _ENDED:
            by_reason[one.reason].append(one.name)
    for reason, names in by_reason.items():
        subject, each = ("1 pod is", "it") if len(names) == 1 else (f"{len(names)} pods are", "each")
        yield Problem(f"{subject} left out ({joined(names, SHOWN_NAMES)}): {each} {reason}", severity=Severity.INFO)
