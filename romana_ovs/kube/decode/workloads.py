"""Decodes workloads: which pods their controllers make of them.

Sources: Kubernetes core/v1 ReplicationController, apps/v1 ReplicaSet, Deployment, StatefulSet and DaemonSet, batch/v1
Job and CronJob, and their controllers (`controller_labels`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from romana_ovs.kube.decode import controller_labels
from romana_ovs.kube.decode.field_names import (
    CRON_JOB_SPEC,
    POD_TEMPLATE,
    TEMPLATE_METADATA,
    WORKLOAD_SPECS,
    check_names,
)
from romana_ovs.kube.decode.field_types import check_annotations
from romana_ovs.kube.decode.labels import read_labels
from romana_ovs.kube.decode.node_selection import NodeSelection, read_daemon_nodes
from romana_ovs.kube.decode.owners import ControllerRef, read_controller_ref
from romana_ovs.kube.decode.pods import PodSpec, note_networks, read_pod_spec
from romana_ovs.kube.decode.selectors import read_selector
from romana_ovs.kube.decode.validation import Validator
from romana_ovs.model.labels import Labels, Selector
from romana_ovs.model.syntax import plain, shown, value_fault

WORKLOADS = {
    "StatefulSet": "apps/v1",
    "Deployment": "apps/v1",
    "ReplicaSet": "apps/v1",
    "ReplicationController": "v1",
    "DaemonSet": "apps/v1",
    "Job": "batch/v1",
    "CronJob": "batch/v1",
}
"""apiVersion of each kind that is expanded into pods."""

MAX_REPLICAS = 100_000
"""The largest number of pods of one workload; a larger one in a manifest counts as a typing error."""
MAX_COUNT = 2**31 - 1
_INDEX_DIGITS = len(str(MAX_COUNT))
MAX_CRON_JOB_NAME = 52
"""Characters: the Jobs of a CronJob have 11 more (Kubernetes' validation of CronJob)."""
MAX_STATEFUL_SET_NAME = 52
"""Characters: its pods' label controller-revision-hash may have 11 more, and 63 at most."""
_JOB_CONTROLLER = "kubernetes.io/job-controller"
_GENERATION = "deprecated.daemonset.template.generation"
"""The annotation in which a DaemonSet has the generation of its template."""

_JOB_TEMPLATE = "spec.jobTemplate"

Ordinals = range | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Workload:
    """A workload, reduced to its desired pods.

    `ordinals` number them; those of a DaemonSet are one for each node that `nodes` selects instead. `labels` are those
    of every pod, with what the controller adds. `controller_kind` is the kind whose controller it has: its own, or for
    a CronJob `Job` and for kinds of other API groups (`group`) the one that it is expanded like. `selector` is None
    when it adopts no pod. `no_pods` says why it has no pods at present, and is empty otherwise. `assumed` says what is
    assumed about a number of pods that cannot be read.
    """

    kind: str
    namespace: str
    name: str
    labels: Labels
    controller_kind: str
    ordinals: Ordinals = range(0)
    spec: PodSpec = field(default_factory=PodSpec)
    nodes: NodeSelection = field(default_factory=NodeSelection)
    selector: Selector | None = None
    group: str = ""
    uid: str = ""
    controller_ref: ControllerRef | None = None
    indexed: bool = False
    template_path: str = "spec.template"
    restart_policy: str = ""
    no_pods: str = ""
    assumed: str = ""

    @property
    def built_in(self) -> bool:
        """Whether it is of a kind of Kubernetes itself."""
        version = WORKLOADS.get(self.kind)
        return version is not None and version.rpartition("/")[0] == self.group

    def pod_labels(self, name: str, ordinal: int) -> Labels:
        """The labels of its pod `name`."""
        if self.controller_kind == "StatefulSet":
            own = {controller_labels.POD_NAME: name, controller_labels.POD_INDEX: str(ordinal)}
        elif self.indexed:
            own = {controller_labels.COMPLETION_INDEX: str(ordinal)}
        else:
            return self.labels
        return Labels({**self.labels, **own})


def template_path(kind: str) -> str:
    """The path of the pod template in a workload of this kind."""
    return f"{_JOB_TEMPLATE}.spec.template" if kind == "CronJob" else "spec.template"


def read_workload(
    document: Mapping[str, object], kind: str, validator: Validator, *, namespace: str, name: str
) -> Workload:
    """The workload in `document`, as far as it can be read."""
    return _WorkloadReader(document, kind, validator, name).read(namespace)


class _WorkloadReader:
    """Reads one workload: `spec` is the part that has the pod template, and stands at `path`."""

    def __init__(self, document: Mapping[str, object], kind: str, validator: Validator, name: str) -> None:
        self.document = document
        self.kind = kind
        self.validator = validator
        self.name = name
        self.metadata = validator.mapping(document.get("metadata"), "metadata")
        self.uid = validator.string(self.metadata.get("uid"), "metadata.uid")
        self.spec = validator.mapping(document.get("spec"), "spec")
        self.path = "spec"
        self.suspended = False
        if kind == "CronJob":
            check_names(self.spec, CRON_JOB_SPEC, "spec", validator)
            self.suspended = validator.boolean(self.spec.get("suspend"), "spec.suspend")
            job = validator.mapping(self.spec.get("jobTemplate"), "spec.jobTemplate")
            self.path = f"{_JOB_TEMPLATE}.spec"
            self.spec = validator.mapping(job.get("spec"), self.path)
        check_names(self.spec, WORKLOAD_SPECS[kind], self.path, validator)
        self.runs_jobs = kind in ("Job", "CronJob")
        self.manual_selector = self.runs_jobs and validator.boolean(
            self.spec.get("manualSelector"), f"{self.path}.manualSelector"
        )

    def read(self, namespace: str) -> Workload:
        """The workload."""
        template = read_template(self.spec.get("template"), f"{self.path}.template", self.validator)
        self._check_name()
        labels = Labels({**template.labels, **self._added_labels(template.labels)})
        ordinals, no_pods = (range(0), "") if self.kind == "DaemonSet" else self._ordinals()
        if self.suspended:
            no_pods = "is suspended (spec.suspend)"
        return Workload(
            kind=self.kind,
            namespace=namespace,
            name=self.name,
            labels=labels,
            controller_kind="Job" if self.runs_jobs else self.kind,
            ordinals=range(0) if no_pods else ordinals,
            spec=template.spec,
            nodes=self._nodes(template),
            selector=self._selector(labels) if template.given else None,
            group=WORKLOADS[self.kind].rpartition("/")[0],
            uid=self.uid,
            controller_ref=read_controller_ref(self.metadata, self.validator),
            indexed=self.runs_jobs and self.spec.get("completionMode") == "Indexed",
            template_path=f"{self.path}.template",
            restart_policy=self.validator.string(
                template.raw_spec.get("restartPolicy"), f"{self.path}.template.spec.restartPolicy"
            ),
            no_pods=no_pods,
        )

    def _check_name(self) -> None:
        """Record an error for a name that Kubernetes refuses because names or labels of pods are made from it."""
        if self.validator.has("metadata.name"):
            return
        if self.kind == "CronJob" and len(self.name) > MAX_CRON_JOB_NAME:
            self.validator.error("metadata.name", f"{shown(self.name)} is longer than {MAX_CRON_JOB_NAME} characters")
        elif self.kind == "Job" and (fault := value_fault(self.name)):
            self.validator.error("metadata.name", f"is a label of its pods, and {fault}")
        elif self.kind == "StatefulSet" and len(self.name) > MAX_STATEFUL_SET_NAME:
            reason = f"{shown(self.name)} is longer than {MAX_STATEFUL_SET_NAME} characters"
            self.validator.warning("metadata.name", f"{reason}, so the labels of its pods are too long to create them")

    def _nodes(self, template: PodTemplate) -> NodeSelection:
        if self.kind != "DaemonSet":
            return NodeSelection()
        return read_daemon_nodes(template.raw_spec, f"{self.path}.template.spec", self.validator)

    def _added_labels(self, own: Labels) -> Mapping[str, str]:
        """The labels that the API server or the controller adds to those of the template, `own`."""
        if not self.runs_jobs:
            annotations = self.metadata.get("annotations")
            generation = annotations.get(_GENERATION) if isinstance(annotations, dict) else None
            return controller_labels.template_labels(self.kind, generation if isinstance(generation, str) else "1")
        if self.manual_selector:
            return {}
        # The template of a Job that was read from a cluster has the labels, which the API server has checked.
        if self.kind == "CronJob":
            return controller_labels.job_labels(controller_labels.cron_job_run(self.name), "")
        added = controller_labels.job_labels(self.name, self.uid)
        for key in controller_labels.JOB_NAME:
            if own.get(key, self.name) != self.name:
                reason = f"must be {self.name}, the Job's name, or absent, not {shown(own[key])}"
                self.validator.error(f"spec.template.metadata.labels.{key}", reason)
        return {key: own.get(key, value) for key, value in added.items()}

    def _ordinals(self) -> tuple[Ordinals, str]:
        """The numbers of the pods, and why there are none at present."""
        if self.runs_jobs:
            return self._job_ordinals()
        count = self._count("replicas", MAX_REPLICAS)
        start = 0
        if self.kind == "StatefulSet":
            fields = self.validator.mapping(self.spec.get("ordinals"), "spec.ordinals")
            value = self.validator.integer(fields.get("start"), "spec.ordinals.start", low=0, high=MAX_COUNT)
            start = value or 0
        replicas = 1 if count is None else count
        paused = self.kind == "Deployment" and self.validator.boolean(self.spec.get("paused"), "spec.paused")
        no_pods = "is paused (spec.paused)" if paused else "" if replicas else "has 0 replicas"
        return range(start, start + replicas), no_pods

    def _count(self, field: str, high: int) -> int | None:
        return self.validator.integer(self.spec.get(field), f"{self.path}.{field}", low=0, high=high)

    def _job_ordinals(self) -> tuple[Ordinals, str]:
        parallelism, completions = self._count("parallelism", MAX_REPLICAS), self._count("completions", MAX_COUNT)
        indexed = self._is_indexed(completions)
        status = self.validator.mapping(self.document.get("status") if self.kind == "Job" else None, "status")
        succeeded = self.validator.integer(status.get("succeeded"), "status.succeeded", low=0, high=MAX_COUNT) or 0
        at_once = 1 if parallelism is None else parallelism
        if no_pods := self._why_no_pods(status, at_once):
            return range(0), no_pods
        if completions is None:
            return range(at_once), ""
        ordinals: Ordinals = range(min(at_once, max(completions - succeeded, 0)))
        if indexed:
            ordinals = _open_indexes(status, at_once, completions)
        return ordinals, "" if ordinals else "has no completions left"

    def _is_indexed(self, completions: int | None) -> bool:
        field = f"{self.path}.completionMode"
        mode = self.validator.string(self.spec.get("completionMode"), field)
        if mode not in ("", "Indexed", "NonIndexed"):
            self.validator.error(field, f"{shown(mode)} is none of NonIndexed, Indexed")
        if mode == "Indexed" and completions is None and not self.validator.has(f"{self.path}.completions"):
            self.validator.error(f"{self.path}.completions", "is required when completionMode is Indexed")
        return mode == "Indexed"

    def _why_no_pods(self, status: Mapping[str, object], parallelism: int) -> str:
        """Why a Job has no pods at present, or empty."""
        suspended = self.validator.boolean(self.spec.get("suspend"), f"{self.path}.suspend")
        manager = self.validator.string(self.spec.get("managedBy"), f"{self.path}.managedBy")
        if manager not in ("", _JOB_CONTROLLER):
            return f"is managed by {plain(manager)}, which makes its pods in a way of its own"
        if suspended:
            return f"is suspended ({self.path}.suspend)"
        if _has_ended(status, self.validator):
            return "has ended"
        return "" if parallelism else f"is paused ({self.path}.parallelism is 0)"

    def _selector(self, labels: Labels) -> Selector | None:
        """The selector by which the controller finds its pods; a warning for one that does not match their `labels`.

        None for a Deployment, whose ReplicaSets select by a label of their own, and for a Job without manualSelector.
        """
        value, path = self.spec.get("selector"), f"{self.path}.selector"
        if value is None:
            if self.kind == "ReplicationController":
                return Selector.of(labels)
            if self.manual_selector or not self.runs_jobs:
                self.validator.warning(path, "is required")
            return None
        selector = (
            Selector.of(read_labels(value, path, self.validator))
            if self.kind == "ReplicationController"
            else read_selector(value, path, self.validator)
        )
        if not selector.matches(labels):
            self.validator.warning(path, f"does not match the labels of {self.path}.template")
            return None
        adopts = self.manual_selector or (self.kind != "Deployment" and not self.runs_jobs)
        return selector if adopts else None


@dataclass(frozen=True, slots=True)
class PodTemplate:
    """A pod template; `raw_spec` is its spec before decoding, empty when it is no object. `given`: it is present."""

    labels: Labels
    spec: PodSpec
    raw_spec: Mapping[str, object]
    given: bool


def read_template(value: object, path: str, validator: Validator) -> PodTemplate:
    """The pod template at `path`, as far as it can be read; that it is absent is an error."""
    template = validator.mapping(value, path)
    if not template and not validator.has_under(path.partition(".")[0]):
        validator.error(path, "is required")
    metadata = validator.mapping(template.get("metadata"), f"{path}.metadata")
    check_names(template, POD_TEMPLATE, path, validator)
    check_names(metadata, TEMPLATE_METADATA, f"{path}.metadata", validator)
    check_annotations(metadata, f"{path}.metadata", validator)
    note_networks(metadata, f"{path}.metadata", validator)
    spec = template.get("spec")
    return PodTemplate(
        labels=read_labels(metadata.get("labels"), f"{path}.metadata.labels", validator),
        spec=read_pod_spec(spec, f"{path}.spec", validator) if template else PodSpec(),
        raw_spec=spec if isinstance(spec, dict) else {},
        given=bool(template),
    )


def _has_ended(status: Mapping[str, object], validator: Validator) -> bool:
    """Whether a Job is complete or has failed, or will without further pods, by its status."""
    return any(
        entry.get("type") in ("Complete", "Failed", "SuccessCriteriaMet", "FailureTarget")
        and entry.get("status") == "True"
        for _, entry in validator.mappings_in(status.get("conditions"), "status.conditions")
    )


def _open_indexes(status: Mapping[str, object], at_once: int, completions: int) -> Ordinals:
    """The indexes of an Indexed Job that run now: the first ones that have not ended."""
    ended = [*_index_ranges(status.get("completedIndexes")), *_index_ranges(status.get("failedIndexes"))]
    if not ended:
        return range(min(at_once, completions))
    return tuple(islice(_outside(ended, completions), at_once))


def _outside(ranges: Iterable[range], stop: int) -> Iterator[int]:
    """The numbers from 0 to below `stop` that are in none of `ranges`."""
    start = 0
    for one in sorted(ranges, key=lambda each: each.start):
        yield from range(start, min(one.start, stop))
        start = max(start, one.stop)
    yield from range(start, stop)


def _index_ranges(value: object) -> Iterator[range]:
    """The ranges in `1,3-5,7`; anything else, as larger numbers, is left out, as only a status has it."""
    for part in value.split(",") if isinstance(value, str) else ():
        first, _, last = part.partition("-")
        numbers = (first, last or first)
        if all(number.isdecimal() and len(number) <= _INDEX_DIGITS for number in numbers):
            low, high = map(int, numbers)
            if low <= high:
                yield range(low, high + 1)
