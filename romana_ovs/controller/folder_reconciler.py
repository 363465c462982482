"""Reconciles a folder of manifests; this process allocates the numbers, and keeps them in the state file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from romana_ovs.controller.manifests import FolderRead
from romana_ovs.controller.reconciler import Inputs, Outcome
from romana_ovs.controller.state_saver import Durable
from romana_ovs.controller.status import observed_nodes
from romana_ovs.engine import Engine
from romana_ovs.engine.node_agent import PendingAck
from romana_ovs.kube.manifests.folder import FolderContent
from romana_ovs.kube.manifests.pod_uids import PodUids
from romana_ovs.kube.manifests.store import ManifestStore
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.derived import LastInputs
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
        self.durable_state: Durable = self._engine
        uids = PodUids({key: endpoint.uid for key, endpoint in self._engine.agents.endpoints.items()})
        self._store = ManifestStore(settings, default_nodes=default_nodes, pod_uids=uids)
        self.snapshot: ClusterSnapshot | None = None
        self.noticed = 0.0
        self.object_problems: tuple[str, ...] = ()
        self._unapplied: FolderRead | None = None
        self._content: FolderContent | None = None
        self._observed: Mapping[PodKey, str] = {}
        self._observed_inputs = LastInputs()
        """The cluster and the bridges that `_observed` was computed from."""
        self._computed_for: Cluster | None = None
        self._awaited: frozenset[str] = frozenset()
        """The nodes whose switches the last computation waits for."""
        self._unreadable = False
        """Whether the newest reading could not be used."""

    @property
    def problems(self) -> tuple[str, ...]:
        """Pods, nodes and tenants without a number, and why."""
        return tuple(map(str, self._engine.problems))

    @property
    def unsettled(self) -> bool:
        """Whether a step of make-before-break waits for switches."""
        return self._engine.unsettled

    def may_be_slow(self, inputs: Inputs) -> bool:
        """Whether a step may take long: not when switches have confirmed, and no step of numbers waited for that."""
        if inputs.received or inputs.resync or self._unapplied is not None or self.unsettled or self.snapshot is None:
            return True
        cluster = self.snapshot.cluster
        observed = self._content is None or self._observed_inputs.same((cluster, inputs.bridges))
        return cluster is not self._computed_for or not observed

    def step(self, inputs: Inputs, now: float) -> Outcome:
        """Compute the cluster, and the next step of make-before-break once awaited switches have confirmed the last.

        Raises InputError, and changes nothing, when the settings ask for another address plan.
        """
        due = inputs.resync
        for node, ack in inputs.acks:
            due |= self._engine.on_programmed(node, ack)
        self._apply(inputs.received)
        if self.snapshot is None or not inputs.synced:
            return Outcome()
        cluster = self._with_observed_nodes(self.snapshot, inputs.bridges, now).cluster
        # A switch that was waited for may have gone, or refuse its tables: nobody waits for it any longer.
        due |= self._engine.unsettled and inputs.awaited != self._awaited
        computed = due or cluster is not self._computed_for
        if computed:
            self._engine.step(cluster, inputs.awaited)
            self._computed_for, self._awaited = cluster, inputs.awaited
        return Outcome(views_changed=computed)

    def pending_ack(self, node: str) -> PendingAck | None:
        """What `node` may report once its switch has the present view."""
        return self.agents.pending_ack(node, "")

    def status(self) -> Mapping[str, Any]:
        """Nothing: a folder has no registry of its own."""
        return {}

    def _apply(self, received: tuple[object, ...]) -> None:
        """Apply the newest reading. One that cannot be used leaves the last cluster in force."""
        for read in received:
            if isinstance(read, FolderRead):
                self._unapplied = read
        read = self._unapplied
        if read is None:
            return
        try:
            if isinstance(read.content, InputError):
                raise read.content
            snapshot = self._store.apply(read.content)
            self._content, self._unreadable = read.content, False
            self._set_snapshot(snapshot, read.noticed)
        except InputError as error:
            self._unreadable = True
            self.object_problems = tuple(str(problem) for problem in error.problems)
        self._unapplied = None

    def _with_observed_nodes(
        self, snapshot: ClusterSnapshot, bridges: Mapping[str, Bridge], now: float
    ) -> ClusterSnapshot:
        """`snapshot` with each pod that no manifest binds to a node on the node where its port is.

        It stays there. Cluster and ports may be read in any order.
        """
        while self._content is not None and self._observed_inputs.replace((snapshot.cluster, bridges)):
            observed = observed_nodes(snapshot.cluster, bridges)
            if observed != self._observed:
                noticed = self.noticed if snapshot.cluster is not self._computed_for else now
                try:
                    snapshot = self._store.apply(self._content, node_by_port=observed)
                except Exception:
                    # The next step tries again.
                    self._observed_inputs = LastInputs()
                    raise
                self._observed = observed
                self._set_snapshot(snapshot, noticed)
        return snapshot

    def _set_snapshot(self, snapshot: ClusterSnapshot, noticed: float) -> None:
        self.snapshot, self.noticed = snapshot, noticed
        if not self._unreadable:
            self.object_problems = tuple(str(problem) for problem in snapshot.problems)
