"""Defines documents and decoded objects, with their locations and problems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from romana_ovs.kube.decode.node_selection import Taint
from romana_ovs.kube.decode.other_policies import OtherPolicy
from romana_ovs.kube.decode.other_workloads import UnexpandedWorkload
from romana_ovs.kube.decode.owners import ControllerRef
from romana_ovs.kube.decode.workloads import Workload
from romana_ovs.model.errors import Problem, Severity
from romana_ovs.model.labels import NO_LABELS, Labels
from romana_ovs.model.objects import Namespace, Node, Pod, Policy
from romana_ovs.model.services import EndpointsObject, Service, ServiceCIDR


@dataclass(frozen=True, slots=True)
class DuplicateKey:
    """A mapping key that occurs twice: its path from the top of the document, and the line of the second one."""

    path: str
    line: int


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file: its number (from 1), its value, and the keys that occur twice in a mapping."""

    number: int
    value: object
    duplicates: tuple[DuplicateKey, ...] = ()


KubeObject = (
    Namespace
    | Node
    | Pod
    | Policy
    | Workload
    | Service
    | ServiceCIDR
    | EndpointsObject
    | OtherPolicy
    | UnexpandedWorkload
)
"""A decoded Kubernetes object."""


NO_SOURCE: Mapping[str, object] = MappingProxyType({})


class ObjectId(NamedTuple):
    """Identifies an object; `namespace` is empty for cluster-scoped kinds.

    NetworkPolicies of romana.io have the kind `RomanaNetworkPolicy`, as in PolicyKey.
    """

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


class Version(NamedTuple):
    """A version of an object: `uid` tells it from others of the same name, `generation` counts its edits.

    Both as in metadata; the generation is 0 for kinds without one.
    """

    uid: str
    generation: int = 0


def is_older(version: str, reference: str) -> bool:
    """Whether resourceVersion `version` is certainly older than `reference`.

    Numeric versions of one resource can be compared (KEP-5504); others cannot.
    """
    return version.isdecimal() and reference.isdecimal() and (len(version), version) < (len(reference), reference)


class SourceLocation(NamedTuple):
    """Where an object comes from: file, document (from 1), the path to it inside (of a List), kind and name."""

    file: str
    document: int
    prefix: str
    kind: str
    name: str

    def problem(self, field: str, reason: str, severity: Severity = Severity.ERROR) -> Problem:
        """A problem of the object at this location."""
        path = self.prefix + field if field else self.prefix.rstrip(".")
        return Problem(
            reason,
            file=self.file,
            document=self.document,
            kind=self.kind,
            name=self.name,
            field=path,
            severity=severity,
        )

    def __str__(self) -> str:
        inside = f" at {self.prefix.rstrip('.')}" if self.prefix else ""
        return f"{self.file}, document {self.document}{inside}"


@dataclass(frozen=True, slots=True)
class DecodedObject:
    """One object of a document. `id` is None when its name cannot be read; `value` is None when it is invalid.

    `fallback` replaces an invalid policy that has no valid version: it isolates and allows nothing. `unsupported` are
    parts of a valid object, or the whole object, that decide about connections and are not acted on; `notes` are for
    lint. `terminating`: it is being deleted. `generated`: its name is made from generateName. `taints` are those of a
    Node. `labels` are its own (a workload's, not those of its pods). `source` is its manifest as plain values, for
    checks and comparisons of what `value` does not have; empty where nobody needs it. `other_workload`: it is of
    another API group and makes pods, also when it is invalid.
    """

    id: ObjectId | None
    location: SourceLocation
    value: KubeObject | None = None
    fallback: Policy | None = None
    problems: tuple[Problem, ...] = ()
    unsupported: tuple[Problem, ...] = ()
    controller_ref: ControllerRef | None = None
    terminating: bool = False
    generated: bool = False
    taints: tuple[Taint, ...] = ()
    notes: tuple[Problem, ...] = ()
    labels: Labels = NO_LABELS
    other_workload: bool = False
    source: Mapping[str, object] = field(default_factory=lambda: NO_SOURCE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class DecodedDocument:
    """All objects of one document; `ignored` names kinds that have no effect here, such as `ConfigMap`."""

    objects: tuple[DecodedObject, ...] = ()
    problems: tuple[Problem, ...] = ()
    ignored: tuple[str, ...] = ()
