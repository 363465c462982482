"""Reconciles a folder of manifests; the numbers are this process's own, in the state file."""

from __future__ import annotations

from collections.abc import Mapping
from operator import is_
from typing import Any

from romana_ovs.controller.manifests import FolderRead
from romana_ovs.controller.reconciler import Inputs, Outcome
from romana_ovs.controller.state_saver import Durable
from romana_ovs.controller.status import pods_seen_elsewhere
from romana_ovs.engine import Engine
from romana_ovs.engine.node_agents import PendingAck
from romana_ovs.kube.manifests.folder import FolderContent
from romana_ovs.kube.manifests.pod_uids import PodUids
from romana_ovs.kube.manifests.store import ManifestStore
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import InputError
from romana_ovs.model.objects import PodKey
from romana_ovs.model.settings import Settings
from romana_ovs.switch.bridges import Bridge


class FolderReconciler:
    """Registry and agents of all nodes, over the last valid version of every object of the folder."""

    def __init__(self, settings: Settings, state: Mapping[str, Any] | None, *, default_nodes: int) -> None:
        """Raises AddressError and InputError as `Engine` does."""
        self._engine = Engine(settings, state)
        self.agents = self._engine.agents
        self.numbers: Durable = self._engine
        uids = PodUids({key: end.uid for key, end in self._engine.agents.endpoints.items()})
        self._store = ManifestStore(settings, default_nodes=default_nodes, pod_uids=uids)
        self.snapshot: ClusterSnapshot | None = None
        self.noticed = 0.0
        self.refused: tuple[str, ...] = ()
        self._unapplied: FolderRead | None = None
        self._content: FolderContent | None = None
        self._seen: Mapping[PodKey, str] = {}
        self._compared: tuple[object, object] = (None, None)
        """The cluster and the bridges that `_seen` is of."""
        self._stepped: Cluster | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """What could not be given to whom, and why."""
        return tuple(map(str, self._engine.problems))

    @property
    def unsettled(self) -> bool:
        """Whether a step of make-before-break waits for switches."""
        return self._engine.unsettled

    def step(self, inputs: Inputs, now: float) -> Outcome:
        """Follow the folder; no step of make-before-break goes on before the awaited switches have confirmed the last.

        Raises InputError, and changes nothing, when the settings ask for another address plan.
        """
        due = inputs.due
        for node, ack in inputs.acks:
            due |= self._engine.on_programmed(node, ack)
        self._apply(inputs.news)
        if self.snapshot is None or not inputs.listed:
            return Outcome()
        cluster = self._on_seen_nodes(self.snapshot, inputs.bridges, now).cluster
        computed = due or cluster is not self._stepped
        if computed:
            self._engine.step(cluster, inputs.awaited)
            self._stepped = cluster
        return Outcome(computed=computed)

    def pending_ack(self, node: str) -> PendingAck | None:
        """What the switch of `node` will have confirmed when it has the present view."""
        return self.agents.pending_ack(node, "")

    def status(self) -> Mapping[str, Any]:
        """Nothing: a folder has no registry of its own."""
        return {}

    def _apply(self, news: tuple[object, ...]) -> None:
        """Apply the newest reading. One that cannot be used leaves the last cluster in force."""
        for read in news:
            if isinstance(read, FolderRead):
                self._unapplied = read
        read = self._unapplied
        if read is None:
            return
        try:
            if isinstance(read.content, InputError):
                raise read.content
            self._accept(self._store.apply(read.content), read.noticed)
            self._content = read.content
        except InputError as error:
            self.refused = tuple(str(problem) for problem in error.problems)
        self._unapplied = None

    def _on_seen_nodes(self, snapshot: ClusterSnapshot, bridges: Mapping[str, Bridge], now: float) -> ClusterSnapshot:
        """`snapshot` with the pods that no manifest binds to a node on the nodes where their ports are.

        They stay there. Cluster and ports may come in any order.
        """
        while self._content is not None and not all(map(is_, self._compared, (snapshot.cluster, bridges))):
            self._compared = (snapshot.cluster, bridges)
            seen = pods_seen_elsewhere(snapshot.cluster, bridges)
            if seen != self._seen:
                self._seen = seen
                noticed = self.noticed if snapshot.cluster is not self._stepped else now
                snapshot = self._store.apply(self._content, seen=seen)
                self._accept(snapshot, noticed)
        return snapshot

    def _accept(self, snapshot: ClusterSnapshot, noticed: float) -> None:
        self.snapshot, self.noticed = snapshot, noticed
        self.refused = tuple(str(problem) for problem in snapshot.problems)
