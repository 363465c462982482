"""Defines what every source of a cluster yields, a folder of manifests as well as an API server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from romana_ovs.kube.decode.objects import ObjectId, Place
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import Problem
from romana_ovs.model.objects import PodKey


@dataclass(frozen=True, slots=True)
class ClusterSnapshot:
    """A cluster as manifests describe it, and all that is wrong with them.

    `kept` are the objects of which the last valid version stays because the present one is invalid or
    cannot be read; `ignored` names kinds that are not acted on; `places` says where each pod (or its
    workload) stands.
    """

    cluster: Cluster
    problems: tuple[Problem, ...] = ()
    kept: tuple[ObjectId, ...] = ()
    ignored: tuple[str, ...] = ()
    places: Mapping[PodKey, Place] = field(default_factory=lambda: MappingProxyType({}))
