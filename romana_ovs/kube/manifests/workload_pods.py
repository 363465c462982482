"""Collects the pods of a folder, and makes those of its workloads, as their controllers would.

A workload of which the folder has pods by ownerReferences, as what was read from a cluster has, is not expanded. Pods
that its controller would adopt count as its own, and the others are made. The pods' names: docs/cli.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count, islice

from romana_ovs.kube.decode.controller_labels import COMPLETION_INDEX
from romana_ovs.kube.decode.node_selection import Taint
from romana_ovs.kube.decode.objects import DecodedObject, ObjectId, SourceLocation
from romana_ovs.kube.decode.other_workloads import UnexpandedWorkload
from romana_ovs.kube.decode.owners import ControllerRef
from romana_ovs.kube.decode.workloads import WORKLOADS, Workload
from romana_ovs.kube.manifests.ownership import Ownership
from romana_ovs.kube.manifests.template_refs import referring_workload
from romana_ovs.kube.snapshot import LeftOut
from romana_ovs.model.errors import Problem, Severity
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import Pod, PodKey
from romana_ovs.model.syntax import joined

_RANK = {kind: rank for rank, kind in enumerate(WORKLOADS)}
"""Of several workloads of one name the first in this order names its pods by that name alone."""
_SHOWN_NAMES = 3


@dataclass(frozen=True, slots=True)
class Schedulable:
    """A node on which DaemonSets may run pods; `labels` are None when the folder has no Node objects."""

    name: str
    labels: Mapping[str, str] | None = None
    taints: tuple[Taint, ...] = ()


class WorkloadPods:
    """The pods of a folder (`pods`), where each comes from, and what there is to say about its workloads.

    `_pods_of` are the pods that each workload has, its own and those of workloads that it controls; `_owning` are the
    workloads that are not expanded because the folder has what they have made.
    """

    def __init__(self, nodes: Sequence[Schedulable]) -> None:
        self.pods: dict[PodKey, Pod] = {}
        self.locations: dict[PodKey, SourceLocation] = {}
        self.problems: list[Problem] = []
        self.notes: list[Problem] = []
        self.left_out: list[LeftOut] = []
        self._nodes = nodes
        self._workloads: dict[ObjectId, Workload] = {}
        self._places: dict[ObjectId, SourceLocation] = {}
        self._pods_of: dict[ObjectId, list[Pod]] = defaultdict(list)
        self._owning: set[ObjectId] = set()
        self._controllers: dict[ObjectId, list[ObjectId]] = {}
        self._first_of_name: dict[tuple[str, str], ObjectId] = {}

    def collect(self, objects: Iterable[DecodedObject]) -> None:
        """Add all pods among `objects`, then those that their workloads lack."""
        declared: list[tuple[Pod, DecodedObject]] = []
        other: list[tuple[DecodedObject, UnexpandedWorkload]] = []
        for item in objects:
            if isinstance(item.value, Pod):
                declared.append((item.value, item))
                self.pods[item.value.key] = item.value
                self.locations[item.value.key] = item.location
            elif isinstance(item.value, Workload) and item.id is not None:
                self._workloads[item.id] = item.value
                self._places[item.id] = item.location
            elif isinstance(item.value, UnexpandedWorkload):
                other.append((item, item.value))
            if item.generated:
                self.notes.append(_generated_note(item))
        other = [(item, unexpanded) for item, unexpanded in other if not self._refers(item, unexpanded)]
        ownership = Ownership(self._workloads)
        self._find_controllers(ownership)
        for pod, item in declared:
            self._assign(pod, item, ownership)
        for key in sorted(self._workloads, key=self._order):
            self._expand(key, self._workloads[key])
        owners = self._owners([(pod.namespace, item.controller_ref) for pod, item in declared])
        for item, unexpanded in other:
            if (unexpanded.namespace, unexpanded.kind, unexpanded.name) not in owners:
                self._leave_out(
                    unexpanded, item.location, f"{unexpanded.reason}; add its pods (kubectl get pods -o yaml)"
                )

    def _refers(self, item: DecodedObject, unexpanded: UnexpandedWorkload) -> bool:
        """Whether `unexpanded` uses the pod template of a workload of the folder; then it becomes a workload itself."""
        workload = referring_workload(unexpanded, self._workloads)
        if workload is None or item.id is None:
            return False
        self._workloads[item.id] = workload
        self._places[item.id] = item.location
        return True

    def _find_controllers(self, ownership: Ownership) -> None:
        for key, workload in self._workloads.items():
            self._controllers[key] = ownership.controllers(workload.namespace, workload.controller_ref, workload.labels)
            self._owning.update(self._controllers[key])
            if not workload.no_pods:
                name = workload.namespace, workload.name
                self._first_of_name[name] = min(self._first_of_name.get(name, key), key, key=self._rank)

    def _owners(self, pods: Iterable[tuple[str, ControllerRef | None]]) -> set[tuple[str, str, str]]:
        """(namespace, kind, name) of every object that controls a pod of the folder or a workload."""
        workloads = ((workload.namespace, workload.controller_ref) for workload in self._workloads.values())
        return {(namespace, ref.kind, ref.name) for namespace, ref in (*pods, *workloads) if ref is not None}

    def _rank(self, key: ObjectId) -> tuple[int, ObjectId]:
        return _RANK.get(key.kind, len(_RANK)), key

    def _order(self, key: ObjectId) -> tuple[bool, int, tuple[int, ObjectId]]:
        """StatefulSets first, as the names of their pods are fixed; what is controlled before what controls it."""
        return self._workloads[key].controller_kind != "StatefulSet", -len(self._controllers[key]), self._rank(key)

    def _assign(self, pod: Pod, item: DecodedObject, ownership: Ownership) -> None:
        """Note to which workloads a pod of the folder belongs.

        Controllers replace pods that have ended or are terminating, but for pods of Jobs, and of StatefulSets while the
        pod still has the name.
        """
        ref = item.controller_ref
        kind = ref.kind if ref is not None else ""
        if (pod.finished and kind != "Job") or (item.terminating and kind != "StatefulSet"):
            return
        keys = ownership.controllers_of(pod, ref)
        self._owning.update(keys)
        if ref is None and (adopter := ownership.adopter(pod)) is not None:
            keys = [adopter, *self._controllers[adopter]]
            workload = self._workloads[adopter]
            reason = (
                f"is taken for one of the pods of {workload.kind} {workload.name}: it has no controller in "
                f"ownerReferences, and the selector of the {workload.kind} matches it"
            )
            self.notes.append(item.location.problem("metadata.labels", reason, Severity.INFO))
            pod = self._adopted(pod, workload)
        if not pod.finished:
            for key in keys:
                self._pods_of[key].append(pod)

    def _adopted(self, pod: Pod, workload: Workload) -> Pod:
        """`pod` as it is once `workload` has adopted it: a StatefulSet gives it the labels of its ordinal."""
        if workload.controller_kind == "StatefulSet":
            ordinal = int(pod.name.rpartition("-")[2])
            pod = replace(pod, labels=Labels({**pod.labels, **workload.pod_labels(pod.name, ordinal)}))
            self.pods[pod.key] = pod
        return pod

    def _leave_out(self, value: Workload | UnexpandedWorkload, location: SourceLocation, reason: str) -> None:
        built_in = isinstance(value, Workload) and value.built_in
        kind = value.kind if built_in or not value.group else f"{value.kind}.{value.group}"
        self.left_out.append(LeftOut(kind, f"{value.namespace}/{value.name}", reason, location))

    def _expand(self, key: ObjectId, workload: Workload) -> None:
        """Add the pods of `workload`, but for those that it adopts."""
        place, adopted = self._places[key], list(self._pods_of[key])
        if workload.no_pods:
            if not (self._controllers[key] or adopted):
                self._leave_out(workload, place, f"{workload.no_pods}, so it has no pods")
            return
        if key in self._owning:
            self._note_missing(workload, place, len(adopted))
            return
        self._note_excess(workload, place, adopted)
        if workload.controller_kind == "DaemonSet":
            added = list(self._daemon_pods(key, workload, adopted))
        elif workload.controller_kind == "StatefulSet":
            added = list(self._stateful_pods(key, workload, adopted))
        else:
            added = list(self._replicas(key, workload, adopted))
        for pod in added:
            self.pods[pod.key] = pod
            self.locations[pod.key] = place
        for controller in (key, *self._controllers[key]):
            self._pods_of[controller] += added
        if added and not workload.built_in:
            assumed = f"{workload.assumed}; " if workload.assumed else ""
            reason = (
                f"is expanded like a {workload.controller_kind}, to {_named(added)}; {assumed}labels that its own "
                "controller adds are not known here"
            )
            self.notes.append(place.problem(workload.template_path, reason, Severity.INFO))

    def _note_excess(self, workload: Workload, place: SourceLocation, adopted: list[Pod]) -> None:
        """Note that the controller would delete pods that it adopts. Which of several, is not known."""
        if workload.controller_kind == "StatefulSet":
            wanted = {f"{workload.name}-{ordinal}" for ordinal in workload.ordinals}
            excess = [pod for pod in adopted if pod.name not in wanted]
        elif workload.controller_kind == "DaemonSet":
            excess = []
        else:
            excess = adopted[len(workload.ordinals) :]
        if excess:
            reason = (
                f"adopts more pods than it is to have ({len(workload.ordinals)}), and its controller deletes the rest, "
                f"{len(excess)} of {_named(adopted)}; here they stay"
            )
            self.notes.append(place.problem("spec.replicas", reason, Severity.INFO))

    def _note_missing(self, workload: Workload, place: SourceLocation, present: int) -> None:
        """Note that the folder has some pods of a workload only. The number of a DaemonSet's is not known."""
        if workload.kind == "CronJob" and not present:
            self._leave_out(workload, place, "has Jobs or pods here that have ended; its next run is not added")
        elif workload.controller_kind == "Job":
            return
        elif workload.controller_kind != "DaemonSet" and present < len(workload.ordinals):
            reason = (
                f"{present} of its {len(workload.ordinals)} pods are in the folder; further ones are not added, as the "
                "folder has what its controller has made"
            )
            self.notes.append(place.problem("spec.replicas", reason, Severity.INFO))

    def _daemon_pods(self, key: ObjectId, workload: Workload, adopted: list[Pod]) -> Iterator[Pod]:
        """One pod for each selected node that has none."""
        declared = any(node.labels is not None for node in self._nodes)
        selected = [node for node in self._nodes if workload.nodes.matches(node.name, node.labels, node.taints)]
        place = self._places[key]
        if not selected and not adopted:
            reason = "selects none of the nodes (nodeName, nodeSelector, affinity, or their taints), so it has no pods"
            self._leave_out(workload, place, reason)
        elif workload.nodes.depends_on_labels and not declared:
            reason = (
                "selects nodes by labels, which are not known without Node objects: it has a pod on each node "
                "(add them: kubectl get nodes -o yaml)"
            )
            self.notes.append(place.problem(f"{workload.template_path}.spec", reason, Severity.INFO))
        occupied = {pod.node for pod in adopted}
        for node in selected:
            if node.name not in occupied:
                yield _pod(workload, next(self._names(key, workload, (node.name,))), node=node.name)

    def _stateful_pods(self, key: ObjectId, workload: Workload, adopted: list[Pod]) -> Iterator[Pod]:
        """The pods whose names are not there; a name that another pod has is a problem, as it is in a cluster."""
        own = {pod.name for pod in adopted}
        taken = []
        for ordinal in workload.ordinals:
            name = f"{workload.name}-{ordinal}"
            if name in own:
                continue
            pod = _pod(workload, name, ordinal=ordinal)
            if pod.key in self.pods:
                taken.append(pod.key)
            else:
                yield pod
        if taken:
            more = f" (and {len(taken) - 1} more)" if len(taken) > 1 else ""
            reason = f"its pod {taken[0]}{more} exists already, by {self.locations[taken[0]]}"
            self.problems.append(self._places[key].problem("metadata.name", reason))

    def _replicas(self, key: ObjectId, workload: Workload, adopted: list[Pod]) -> Iterator[Pod]:
        """The pods that are missing to the number of replicas; those of an Indexed Job have the missing indexes."""
        missing = max(len(workload.ordinals) - len(adopted), 0)
        if not workload.indexed:
            for name in islice(self._names(key, workload, count()), missing):
                yield _pod(workload, name)
            return
        known = {pod.labels.get(COMPLETION_INDEX) for pod in adopted}
        indexes = (index for index in workload.ordinals if str(index) not in known)
        for index in islice(indexes, missing):
            yield _pod(workload, next(self._names(key, workload, (index,))), ordinal=index)

    def _names(self, key: ObjectId, workload: Workload, suffixes: Iterable[object]) -> Iterator[str]:
        """Names that no pod has: `<workload>-<suffix>`, with the kind in between if another workload has that name."""
        first = self._first_of_name.get((workload.namespace, workload.name), key) == key
        full = f"{workload.name}-{workload.kind.lower()}"
        wanted = (f"{workload.name if first else full}-{suffix}" for suffix in suffixes)
        names = chain(wanted, (f"{full}-{number}" for number in count()))
        return (name for name in names if PodKey(f"{workload.namespace}/{name}") not in self.pods)


def _pod(workload: Workload, name: str, *, ordinal: int = 0, node: str = "") -> Pod:
    return Pod(
        namespace=workload.namespace,
        name=name,
        labels=workload.pod_labels(name, ordinal),
        node=node or workload.spec.node,
        ports=workload.spec.ports,
        host_network=workload.spec.host_network,
    )


def _generated_note(item: DecodedObject) -> Problem:
    name = item.id.name if item.id is not None else item.location.name
    reason = (
        f"has no name: it is {name} here. kubectl create makes a new name each time; kubectl apply refuses the object"
    )
    return item.location.problem("metadata.generateName", reason, Severity.INFO)


def _named(pods: Sequence[Pod]) -> str:
    return joined([pod.name for pod in pods], _SHOWN_NAMES)
