"""Decodes workloads, and expands them into pods where no controller does that.

Sources: Kubernetes core/v1 ReplicationController, apps/v1 ReplicaSet, Deployment, StatefulSet and
DaemonSet, batch/v1 Job; docs/design.md section 8 for the pods' names.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from romana_ovs.kube.decode.labels import read_labels
from romana_ovs.kube.decode.pods import PodSpec, read_pod_spec
from romana_ovs.kube.decode.selectors import read_selector
from romana_ovs.kube.decode.validation import Validator
from romana_ovs.model.labels import Labels, Selector
from romana_ovs.model.objects import Pod
from romana_ovs.model.syntax import shown

WORKLOADS = {
    "ReplicationController": "v1",
    "ReplicaSet": "apps/v1",
    "Deployment": "apps/v1",
    "StatefulSet": "apps/v1",
    "DaemonSet": "apps/v1",
    "Job": "batch/v1",
}
"""apiVersion of each kind that is expanded into pods."""

MAX_REPLICAS = 100_000
"""The largest number of pods of one workload; a larger one in a manifest is taken for a typing error."""

_RANDOM = "[bcdfghjklmnpqrstvwxz2456789]"
"""Characters of the random suffixes that Kubernetes gives (k8s.io/apimachinery util/rand)."""
_SUFFIXES = {
    "ReplicationController": f"{_RANDOM}{{5}}",
    "ReplicaSet": f"{_RANDOM}{{5}}",
    "Deployment": f"{_RANDOM}{{1,10}}-{_RANDOM}{{5}}",
    "StatefulSet": "[0-9]+",
    "DaemonSet": f"{_RANDOM}{{5}}",
    "Job": f"([0-9]+-)?{_RANDOM}{{5}}",
}


@dataclass(frozen=True, slots=True)
class Owner:
    """One entry of ownerReferences: an object of the same namespace."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Workload:
    """A workload, reduced to its desired pods; `count` is None for one pod on each node (DaemonSet)."""

    kind: str
    namespace: str
    name: str
    count: int | None
    labels: Labels
    spec: PodSpec
    owners: tuple[Owner, ...] = ()


def read_owners(metadata: Mapping[str, object], validator: Validator) -> tuple[Owner, ...]:
    """The ownerReferences in `metadata`."""
    path = "metadata.ownerReferences"
    return tuple(
        Owner(
            validator.string(entry.get("kind"), f"{where}.kind"), validator.string(entry.get("name"), f"{where}.name")
        )
        for where, entry in validator.mappings_in(metadata.get("ownerReferences"), path)
    )


def read_workload(
    document: Mapping[str, object], kind: str, validator: Validator, *, namespace: str, name: str
) -> Workload:
    """The workload in `document`, as far as it can be read."""
    spec = validator.mapping(document.get("spec"), "spec")
    template = validator.mapping(spec.get("template"), "spec.template")
    if not template and not validator.has_under("spec"):
        validator.error("spec.template", "is required")
    metadata = validator.mapping(template.get("metadata"), "spec.template.metadata")
    labels = read_labels(metadata.get("labels"), "spec.template.metadata.labels", validator)
    if template:
        _check_selector(spec, kind, labels, validator)
    return Workload(
        kind=kind,
        namespace=namespace,
        name=name,
        count=_replicas(document, spec, kind, validator),
        labels=labels,
        spec=read_pod_spec(template.get("spec"), "spec.template.spec", validator) if template else PodSpec(),
        owners=read_owners(validator.mapping(document.get("metadata"), "metadata"), validator),
    )


def _replicas(
    document: Mapping[str, object], spec: Mapping[str, object], kind: str, validator: Validator
) -> int | None:
    if kind == "DaemonSet":
        return None
    if kind != "Job":
        count = validator.integer(spec.get("replicas"), "spec.replicas", low=0, high=MAX_REPLICAS)
        return 1 if count is None else count
    parallel = validator.integer(spec.get("parallelism"), "spec.parallelism", low=0, high=MAX_REPLICAS)
    completions = validator.integer(spec.get("completions"), "spec.completions", low=0, high=2**31 - 1)
    if validator.boolean(spec.get("suspend"), "spec.suspend") or _is_over(document, validator):
        return 0
    pods = 1 if parallel is None else parallel
    return pods if completions is None else min(pods, completions)


def _is_over(document: Mapping[str, object], validator: Validator) -> bool:
    """Whether a Job is complete or has failed, by its status."""
    status = validator.mapping(document.get("status"), "status")
    return any(
        entry.get("type") in ("Complete", "Failed") and entry.get("status") == "True"
        for _, entry in validator.mappings_in(status.get("conditions"), "status.conditions")
    )


def _check_selector(spec: Mapping[str, object], kind: str, labels: Labels, validator: Validator) -> None:
    """Record a warning for a selector that does not match the workload's own pods."""
    value = spec.get("selector")
    if value is None:
        if kind not in ("ReplicationController", "Job"):
            validator.warning("spec.selector", "is required")
        return
    plain_labels = kind == "ReplicationController"
    selector = (
        Selector.of(read_labels(value, "spec.selector", validator))
        if plain_labels
        else read_selector(value, "spec.selector", validator)
    )
    # Kubernetes generates the selector of a Job, with a label that only its pods get.
    if kind != "Job" and not selector.matches(labels):
        validator.warning("spec.selector", "does not match the labels of spec.template")


def expand(workload: Workload, nodes: Iterable[str]) -> Iterator[Pod]:
    """The pods of `workload`: `<name>-0` on, or `<name>-<node>` on each of `nodes` for a DaemonSet."""
    if workload.count is None:
        for node in nodes:
            yield _pod(workload, node, node)
        return
    for number in range(workload.count):
        yield _pod(workload, str(number), workload.spec.node)


def _pod(workload: Workload, suffix: str, node: str) -> Pod:
    return Pod(
        namespace=workload.namespace,
        name=f"{workload.name}-{suffix}",
        labels=workload.labels,
        node=node,
        ports=workload.spec.ports,
        host_network=workload.spec.host_network,
    )


class ExistingPods:
    """Finds workloads whose pods (or whose ReplicaSet) are among the manifests themselves."""

    def __init__(self, pods: Iterable[tuple[Pod, tuple[Owner, ...]]], workloads: Iterable[Workload]) -> None:
        self._owned: set[tuple[str, Owner]] = set()
        self._orphans: dict[str, list[Pod]] = defaultdict(list)
        for pod, owners in pods:
            for owner in owners:
                self._owned.add((pod.namespace, owner))
                deployment = _deployment_of(owner, pod.labels)
                if deployment is not None:
                    self._owned.add((pod.namespace, deployment))
            if not owners:
                self._orphans[pod.namespace].append(pod)
        for workload in workloads:
            for owner in workload.owners:
                self._owned.add((workload.namespace, owner))

    def has(self, workload: Workload, nodes: Iterable[str]) -> bool:
        """Whether there are pods of `workload`: owned by it, or with the name prefix and labels of its pods."""
        if (workload.namespace, Owner(workload.kind, workload.name)) in self._owned:
            return True
        orphans = self._orphans.get(workload.namespace)
        if not orphans:
            return False
        name = re.escape(workload.name)
        made = re.compile(rf"{name}-(?:[0-9]+|{_SUFFIXES[workload.kind]})\Z")
        own = {f"{workload.name}-{node}" for node in nodes} if workload.count is None else frozenset()
        return any((made.match(pod.name) or pod.name in own) and _has_labels(pod, workload.labels) for pod in orphans)


def _deployment_of(owner: Owner, labels: Labels) -> Owner | None:
    """The Deployment of a ReplicaSet that is named like the Deployment, a dash, and the template hash of the pods."""
    digest = labels.get("pod-template-hash")
    if owner.kind == "ReplicaSet" and digest and owner.name.endswith(f"-{digest}"):
        return Owner("Deployment", owner.name.removesuffix(f"-{digest}"))
    return None


def _has_labels(pod: Pod, labels: Labels) -> bool:
    return all(pod.labels.get(key) == value for key, value in labels.items())


def named(workload: Workload) -> str:
    """The workload in messages."""
    return f"{workload.kind} {shown(workload.name)}"
