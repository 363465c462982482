"""Defines the snapshot that each source of a cluster yields: a folder of manifests, or an API server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from romana_ovs.kube.decode.objects import DecodedObject, ObjectId, SourceLocation
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import Problem
from romana_ovs.model.objects import PodKey


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An object that takes no part in what commands evaluate and measure, and why.

    `name` is `namespace/name`, or empty for all objects of a kind; `location` is None where there is no single one.
    """

    kind: str
    name: str
    reason: str
    location: SourceLocation | None = None


@dataclass(frozen=True, slots=True)
class ClusterSnapshot:
    """A cluster, and all problems of its objects.

    `kept` are the objects whose last valid version is in force, because the present one is invalid or cannot be
    read; `ignored` names kinds that have no effect here; `locations` are those of pods (or their workloads). `objects`
    are the valid objects of a folder with their locations; empty when the source is an API server. `notes` say what a
    folder leaves open, and `left_out` which of its workloads have no pods here (`kube.manifests.workload_pods`).
    `invalid_workloads` are where invalid objects of other API groups stand that make pods.
    """

    cluster: Cluster
    problems: tuple[Problem, ...] = ()
    kept: tuple[ObjectId, ...] = ()
    ignored: tuple[str, ...] = ()
    locations: Mapping[PodKey, SourceLocation] = field(default_factory=lambda: MappingProxyType({}))
    objects: tuple[DecodedObject, ...] = ()
    notes: tuple[Problem, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    invalid_workloads: tuple[SourceLocation, ...] = ()

    @property
    def unsupported(self) -> tuple[Problem, ...]:
        """What decides about connections in the manifests and is not acted on, so that answers may be wrong."""
        return tuple(problem for item in self.objects for problem in item.unsupported)
