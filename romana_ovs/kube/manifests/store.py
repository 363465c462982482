"""Keeps the last valid version of every object of a folder, and builds the cluster from them.

Like an API server it refuses an invalid edit and keeps the last valid version. A policy that was never valid is
replaced by its fallback, which isolates and allows nothing; any other object is absent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from romana_ovs.kube.decode.objects import DecodedObject, ObjectId
from romana_ovs.kube.manifests.assemble import AssemblyInput, assemble, named_nodes
from romana_ovs.kube.manifests.compare import first_difference
from romana_ovs.kube.manifests.folder import FileContent, FolderContent
from romana_ovs.kube.manifests.pod_uids import PodUids
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import InputError, Problem
from romana_ovs.model.objects import Node, PodKey, Policy
from romana_ovs.model.settings import Settings

DEFAULT_NODES = 2


@dataclass(frozen=True, slots=True)
class _Accepted:
    """The accepted version of an object, and the name of the file that it belongs to (in problems: escaped)."""

    item: DecodedObject
    file: str


@dataclass(slots=True)
class _AcceptedObjects:
    """The accepted version of every object of one reading of the folder, and what else it has."""

    versions: dict[ObjectId, _Accepted] = field(default_factory=dict)
    fallbacks: list[Policy] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    kept: list[ObjectId] = field(default_factory=list)


class ManifestStore:
    """Keeps the last valid version of every object from one reading of a folder to the next.

    Unchanged values are identical (`is`) in successive clusters, mappings and clusters included. `default_nodes` is the
    number of nodes when the folder has no Node. With `pod_uids` every pod has a UID; without, only those whose
    manifests have one.
    """

    def __init__(
        self, settings: Settings, *, default_nodes: int = DEFAULT_NODES, pod_uids: PodUids | None = None
    ) -> None:
        self.settings = settings
        self._pod_uids = pod_uids
        self.default_nodes = default_nodes
        self._accepted: dict[ObjectId, _Accepted] = {}
        self._cluster = Cluster(settings=settings)
        self._implied_nodes: frozenset[str] = frozenset()

    def apply(
        self, content: FolderContent, *, nodes: int | None = None, node_by_port: Mapping[PodKey, str] | None = None
    ) -> ClusterSnapshot:
        """The cluster that `content` describes, with all problems.

        `nodes` is the number of nodes, None for the default. Pods that no manifest binds to a node are on the node that
        `node_by_port` has for them. Raises InputError, without any change, when `nodes` is given and the folder has
        Node objects, or pods that name other nodes.
        """
        accepted = self._choose_versions(content)
        objects = tuple(entry.item for entry in accepted.versions.values())
        if nodes is not None:
            _check_node_count(objects, nodes, content.folder)
        parts = AssemblyInput(
            objects=objects,
            fallbacks=tuple(accepted.fallbacks),
            nodes=self.default_nodes if nodes is None else nodes,
            node_by_port=node_by_port or {},
            pod_uids=self._pod_uids,
            implied_nodes=self._implied_nodes,
        )
        built = assemble(parts, self._cluster)
        self._accepted, self._cluster = accepted.versions, built.cluster
        declared = any(isinstance(item.value, Node) for item in objects)
        self._implied_nodes = frozenset() if declared else frozenset(built.cluster.nodes)
        return ClusterSnapshot(
            cluster=built.cluster,
            problems=tuple(dict.fromkeys([*accepted.problems, *built.problems])),
            kept=tuple(sorted(accepted.kept)),
            ignored=tuple(dict.fromkeys(kind for file in content.files for kind in file.ignored)),
            locations=built.locations,
            objects=objects,
            notes=(*content.notes, *built.notes),
            left_out=built.left_out,
            invalid_workloads=tuple(
                item.location
                for file in content.files
                for item in file.objects
                if item.other_workload and item.value is None
            ),
        )

    def _choose_versions(self, content: FolderContent) -> _AcceptedObjects:
        accepted = _AcceptedObjects()
        by_id: dict[ObjectId, list[_Accepted]] = defaultdict(list)
        for file in content.files:
            accepted.problems += file.problems
            for item in file.objects:
                if item.id is not None:
                    by_id[item.id].append(_Accepted(item, file.name))
        for key, candidates in by_id.items():
            self._accept(key, candidates, accepted)
        for file in content.files:
            self._keep_missing(file, by_id, accepted)
        return accepted

    def _accept(self, key: ObjectId, candidates: list[_Accepted], accepted: _AcceptedObjects) -> None:
        """Choose among several manifests of one object.

        The one in the same file as before, else the first one with what an API server sets, else the first.
        """
        before = self._accepted.get(key)
        chosen = next((candidate for candidate in candidates if _is_served(candidate.item)), candidates[0])
        if before is not None:
            chosen = next((candidate for candidate in candidates if candidate.file == before.file), chosen)
        item = chosen.item
        for other in candidates:
            if other is not chosen and (reason := _conflict(other.item, item)):
                accepted.problems.append(other.item.location.problem("metadata.name", reason))
        if item.value is not None:
            same = before is not None and before.item.value == item.value
            kept = replace(item, value=before.item.value) if before is not None and same else item
            accepted.versions[key] = _Accepted(kept, chosen.file)
        elif before is not None:
            accepted.versions[key] = _Accepted(before.item, chosen.file)
            accepted.kept.append(key)
        elif item.fallback is not None:
            accepted.fallbacks.append(item.fallback)

    def _keep_missing(
        self, file: FileContent, by_id: Mapping[ObjectId, list[_Accepted]], accepted: _AcceptedObjects
    ) -> None:
        """Keep the objects of `file` that were not read, and that it may still have.

        An object without a name may be an edit of one of them. When there is none, its policy's fallback counts.
        """
        nameless = [item for item in file.objects if item.id is None]
        if file.readable and not nameless:
            return
        missing = [key for key, entry in self._accepted.items() if key not in by_id and _may_hold(file, entry)]
        for key in missing:
            accepted.versions[key] = self._accepted[key]
            accepted.kept.append(key)
        if not missing:
            accepted.fallbacks += [item.fallback for item in nameless if item.fallback is not None]


def _may_hold(file: FileContent, entry: _Accepted) -> bool:
    """Whether `entry` belongs to `file`, or to a file below it: an unreadable file may be a sub-folder."""
    return entry.file == file.name or (not file.readable and entry.file.startswith(f"{file.name}/"))


def _check_node_count(objects: tuple[DecodedObject, ...], nodes: int, folder: str) -> None:
    """Raises InputError when the objects say themselves which nodes there are."""
    if any(isinstance(item.value, Node) for item in objects):
        reason = "the folder has Node objects, so the number of nodes cannot be given"
        raise InputError.because(reason, file=folder)
    others = sorted(named_nodes(objects) - {f"node{number + 1}" for number in range(nodes)})
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        reason = f"the pods name their nodes ({others[0]}{more}), so the number of nodes cannot be given"
        raise InputError.because(reason, file=folder)


def _is_served(item: DecodedObject) -> bool:
    """Whether a valid manifest has a status, as that of an API server does."""
    return item.value is not None and bool(item.source.get("status"))


def _conflict(item: DecodedObject, accepted: DecodedObject) -> str:
    """Why `item` is not accepted beside another manifest of the same object; empty when both are equal."""
    field = first_difference(accepted.source, item.source)
    return f"the same object stands in {accepted.location}, with another {field}" if field is not None else ""
