"""Which version of every manifest counts, and the cluster that they make.

Like an API server it refuses an invalid edit and keeps the last valid version. A policy that was never
valid is represented by its fallback, which isolates and allows nothing; anything else is absent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from romana_ovs.kube.decode.objects import Item, ObjectId
from romana_ovs.kube.manifests.assemble import NodeAgents, assemble
from romana_ovs.kube.manifests.folder import Content, FileContent
from romana_ovs.kube.manifests.pod_uids import PodUids
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import InputError, Problem
from romana_ovs.model.objects import Node, PodKey, Policy
from romana_ovs.model.settings import Settings

DEFAULT_NODES = 2


@dataclass(frozen=True, slots=True)
class _Held:
    """The version of an object that counts, and the file that it is an edit of."""

    item: Item
    file: str


@dataclass(slots=True)
class _Choice:
    """What one reading of the folder amounts to."""

    held: dict[ObjectId, _Held] = field(default_factory=dict)
    fallbacks: list[Policy] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    kept: list[ObjectId] = field(default_factory=list)


class Store:
    """Remembers the valid version of every object from one reading of a folder to the next.

    Values that have not changed are the same objects (`is`) in successive clusters, mappings and clusters
    included. `default_nodes` is how many nodes there are when the folder has no Node. With `incarnations` every pod
    has a UID; without, only those whose manifests give one.
    """

    def __init__(
        self, settings: Settings, *, default_nodes: int = DEFAULT_NODES, incarnations: PodUids | None = None
    ) -> None:
        self.settings = settings
        self._incarnations = incarnations
        self.default_nodes = default_nodes
        self._held: dict[ObjectId, _Held] = {}
        self._cluster = Cluster(settings=settings)

    def apply(
        self, content: Content, *, nodes: int | None = None, seen: Mapping[PodKey, str] | None = None
    ) -> ClusterSnapshot:
        """The cluster that `content` describes now, with all problems found.

        `nodes` asks for that many nodes; raises InputError, with nothing changed, when the folder has
        Node objects of its own. Pods that are not bound are on the nodes where their ports are `seen`.
        """
        choice = self._choose(content)
        declared = any(isinstance(held.item.value, Node) for held in choice.held.values())
        if nodes is not None and declared:
            reason = "the folder has Node objects, so the number of nodes cannot be given"
            raise InputError.because(reason, file=content.folder)
        parts = NodeAgents(
            items=tuple(held.item for held in choice.held.values()),
            fallbacks=tuple(choice.fallbacks),
            nodes=self.default_nodes if nodes is None else nodes,
            seen=seen or {},
            incarnations=self._incarnations,
        )
        built = assemble(parts, self._cluster)
        self._held, self._cluster = choice.held, built.cluster
        return ClusterSnapshot(
            cluster=built.cluster,
            problems=tuple(dict.fromkeys([*choice.problems, *built.problems])),
            kept=tuple(sorted(choice.kept)),
            ignored=tuple(dict.fromkeys(kind for file in content.files for kind in file.ignored)),
            places=built.places,
        )

    def _choose(self, content: Content) -> _Choice:
        choice = _Choice()
        claims: dict[ObjectId, list[Item]] = defaultdict(list)
        for file in content.files:
            choice.problems += file.problems
            for item in file.items:
                if item.id is not None:
                    claims[item.id].append(item)
        for key, items in claims.items():
            self._settle(key, items, choice)
        for file in content.files:
            self._keep_missing(file, claims, choice)
        return choice

    def _settle(self, key: ObjectId, items: list[Item], choice: _Choice) -> None:
        """Choose among the manifests of one object: where it stood before, else the first, counts."""
        before = self._held.get(key)
        item = items[0]
        if before is not None:
            item = next((one for one in items if one.place.file == before.file), item)
        for other in items:
            if other is not item:
                choice.problems.append(other.place.problem("metadata.name", f"the same object stands in {item.place}"))
        if item.value is not None:
            same = before is not None and before.item.value == item.value and before.item.owners == item.owners
            value = before.item.value if before is not None and same else item.value
            choice.held[key] = _Held(replace(item, value=value), item.place.file)
        elif before is not None:
            choice.held[key] = _Held(before.item, item.place.file)
            choice.kept.append(key)
        elif item.fallback is not None:
            choice.fallbacks.append(item.fallback)

    def _keep_missing(self, file: FileContent, claims: Mapping[ObjectId, list[Item]], choice: _Choice) -> None:
        """Keep what `file` held when it cannot be read, or holds something that may be an edit of it."""
        nameless = [item for item in file.items if item.id is None]
        if file.readable and not nameless:
            return
        missing = [key for key, held in self._held.items() if held.file == file.name and key not in claims]
        for key in missing:
            choice.held[key] = self._held[key]
            choice.kept.append(key)
        if not missing:
            choice.fallbacks += [item.fallback for item in nameless if item.fallback is not None]
