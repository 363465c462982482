"""Finds the workload to which a pod of a folder belongs: by ownerReferences, or by adoption, never by its name.

Sources: Kubernetes' `ControllerRefManager` (claiming and adopting pods) and the controllers that use it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from romana_ovs.kube.decode.controller_labels import ROLLOUT_HASH, TEMPLATE_HASH, UNKNOWN
from romana_ovs.kube.decode.objects import ObjectId
from romana_ovs.kube.decode.owners import ControllerRef
from romana_ovs.kube.decode.workloads import Workload
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import Pod, same_uid

_CRON_JOB_RUN = re.compile(r"(.+)-[0-9]{6,}\Z")
"""The name of a Job that a CronJob makes: the minutes since 1970 of its run follow the CronJob's name."""
_HASH = re.compile(r"[a-z0-9]{1,10}\Z")
"""The hash of a pod template, with which the name of a ReplicaSet ends."""
_OLD_GROUP = "extensions"
"""The API group in which Deployments and ReplicaSets once were."""


class Ownership:
    """The workloads of a folder, and which of them control a pod."""

    def __init__(self, workloads: Mapping[ObjectId, Workload]) -> None:
        self._workloads = workloads
        self._by_name: dict[tuple[str, str, str], list[ObjectId]] = defaultdict(list)
        self._with_selector: dict[str, list[ObjectId]] = defaultdict(list)
        self._custom_workloads: dict[str, list[ObjectId]] = defaultdict(list)
        for key, workload in workloads.items():
            self._by_name[workload.namespace, workload.kind, workload.name].append(key)
            if workload.selector is not None and workload.selector.requirements:
                self._with_selector[workload.namespace].append(key)
            if not workload.built_in:
                self._custom_workloads[workload.namespace].append(key)

    def controllers(self, namespace: str, ref: ControllerRef | None, labels: Labels) -> list[ObjectId]:
        """The workloads that control an object with this reference and these labels.

        The nearest comes first, then the one that controls that, and so on. An owner that the folder does not have is
        skipped where its name shows its own controller: ReplicaSets are named after their Deployment and the hash in
        the labels, Jobs after their CronJob and the time.
        """
        controllers: list[ObjectId] = []
        while ref is not None:
            key = self._named(namespace, ref) or self._controller_by_name(namespace, ref, labels)
            if key is None or key in controllers:
                break
            controllers.append(key)
            ref = self._workloads[key].controller_ref
        return controllers

    def controllers_of(self, pod: Pod, ref: ControllerRef | None) -> list[ObjectId]:
        """As `controllers`, for a pod. A pod whose owner the folder does not have belongs to a workload of another API
        group whose labels it has: such a workload may create pods by way of other objects."""
        controllers = self.controllers(pod.namespace, ref, pod.labels)
        if ref is None or controllers:
            return controllers
        candidates = self._custom_workloads.get(pod.namespace, ())
        return [key for key in candidates if _has_labels(pod, self._workloads[key])][:1]

    def adopter(self, pod: Pod) -> ObjectId | None:
        """The workload that adopts `pod`, which has no controller; a StatefulSet adopts by the name, too."""
        for key in self._with_selector.get(pod.namespace, ()):
            workload = self._workloads[key]
            if workload.selector is None or not workload.selector.matches(pod.labels):
                continue
            by_name = workload.controller_kind == "StatefulSet"
            if not by_name or re.fullmatch(re.escape(workload.name) + "-[0-9]+", pod.name):
                return key
        return None

    def _named(self, namespace: str, ref: ControllerRef) -> ObjectId | None:
        for key in self._by_name.get((namespace, ref.kind, ref.name), ()):
            workload = self._workloads[key]
            if ref.group in (None, workload.group, _OLD_GROUP) and same_uid(ref.uid, workload.uid):
                return key
        return None

    def _controller_by_name(self, namespace: str, ref: ControllerRef, labels: Labels) -> ObjectId | None:
        """The workload that controls the object of `ref`, which is not in the folder itself."""
        return next(
            (
                key
                for kind, name in _possible_controllers(ref, labels)
                for key in self._by_name.get((namespace, kind, name), ())
            ),
            None,
        )


def _possible_controllers(ref: ControllerRef, labels: Labels) -> Iterator[tuple[str, str]]:
    """Kind and name of what may control the object of `ref`, by the name of that."""
    if ref.kind == "ReplicaSet":
        for kind, label in (("Deployment", TEMPLATE_HASH), ("Rollout", ROLLOUT_HASH)):
            name, _, digest = ref.name.rpartition("-")
            if labels.get(label, digest) == digest and _HASH.match(digest):
                yield kind, name
    elif ref.kind == "Job" and (run := _CRON_JOB_RUN.match(ref.name)):
        yield "CronJob", run[1]


def _has_labels(pod: Pod, workload: Workload) -> bool:
    """Whether `pod` has all labels of the workload's pods whose values are known."""
    known = {key: value for key, value in workload.labels.items() if value != UNKNOWN}
    return bool(known) and all(pod.labels.get(key) == value for key, value in known.items())
