"""What decoding yields: objects with the place that they stand at, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from romana_ovs.kube.decode.workloads import Owner, Workload
from romana_ovs.model.errors import Problem
from romana_ovs.model.objects import Namespace, Node, Pod, Policy


@dataclass(frozen=True, slots=True)
class Repeated:
    """A mapping key that is given twice: its path from the top of the document, and the second one's line."""

    path: str
    line: int


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file, counted from 1, with the keys that it gives twice."""

    number: int
    value: object
    repeated: tuple[Repeated, ...] = ()


Manifest = Namespace | Node | Pod | Policy | Workload
"""An object as it stands in a manifest."""


class ObjectId(NamedTuple):
    """What makes two manifests the same object; `namespace` is empty for cluster-scoped kinds.

    Romana's policies have the kind `RomanaNetworkPolicy`, as in PolicyKey.
    """

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


class Version(NamedTuple):
    """Which version of an object: `uid` tells it from others of the same name, `generation` counts its edits.

    Both as in metadata; the generation is 0 for kinds that have none.
    """

    uid: str
    generation: int = 0


def older(one: str, other: str) -> bool:
    """Whether resourceVersion `one` is certainly older than `other`.

    Those of one resource compare as numbers where they are numbers (KEP-5504); nothing is known of any others.
    """
    return one.isdecimal() and other.isdecimal() and (len(one), one) < (len(other), other)


class Place(NamedTuple):
    """Where an object stands: file, document (from 1), the path to it inside (of a List), kind and name."""

    file: str
    document: int
    prefix: str
    kind: str
    name: str

    def problem(self, field: str, reason: str) -> Problem:
        """A problem of the object that stands here."""
        path = self.prefix + field if field else self.prefix.rstrip(".")
        return Problem(reason, file=self.file, document=self.document, kind=self.kind, name=self.name, field=path)

    def __str__(self) -> str:
        inside = f" at {self.prefix.rstrip('.')}" if self.prefix else ""
        return f"{self.file}, document {self.document}{inside}"


@dataclass(frozen=True, slots=True)
class Item:
    """One manifest. `id` is None when it cannot be told which object is meant; `value` when it is invalid.

    `fallback` stands in for an invalid policy that has no valid version: it isolates and allows nothing.
    `owners` are its ownerReferences.
    """

    id: ObjectId | None
    place: Place
    value: Manifest | None = None
    fallback: Policy | None = None
    problems: tuple[Problem, ...] = ()
    owners: tuple[Owner, ...] = ()


@dataclass(frozen=True, slots=True)
class Decoded:
    """All that one document holds; `ignored` names kinds that are not acted on, such as `Service`."""

    items: tuple[Item, ...] = ()
    problems: tuple[Problem, ...] = ()
    ignored: tuple[str, ...] = ()
