"""Connects the application to where cluster and numbers come from: a folder of manifests, or an API server.

Both have the `agents` of the nodes, over numbers that registry and agents make in the same way (`engine/engine.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from romana_ovs.config import IN_CLUSTER, ControllerOptions
from romana_ovs.controller.api_reconciler import ApiReconciler
from romana_ovs.controller.kubernetes import Kubernetes, resources_of
from romana_ovs.controller.manifests import Manifests
from romana_ovs.controller.state_saver import Durable
from romana_ovs.engine import Engine
from romana_ovs.engine.node_agents import NodeAgents, PendingAck
from romana_ovs.kube.api.source import ApiSource
from romana_ovs.kube.manifests.pod_uids import PodUids
from romana_ovs.kube.manifests.store import ManifestStore
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import InputError, Problem
from romana_ovs.model.objects import PodKey
from romana_ovs.model.settings import Settings

State = Mapping[str, Any]


class Application(Protocol):
    """What a backend asks of the application (`RomanaOvs`)."""

    def on_cluster(self, loaded: ClusterSnapshot, noticed: float) -> None:
        """There is a new cluster; its change was noticed at this time of `time.monotonic`."""

    def on_unreadable(self, error: InputError) -> None:
        """The cluster cannot be read; the last one stays in force."""

    def schedule_round(self, after: float = 0.0) -> None:
        """Compute everything again, in so many seconds."""

    def wake(self, after: float) -> None:
        """Call `report_statuses` again in so many seconds."""

    def status_changed(self) -> None:
        """The status snapshot may have changed."""

    def defer(self, job: Callable[[], None]) -> None:
        """Call `job` once no round is being computed in another thread."""


class FolderBackend:
    """Follows a folder of manifests; its numbers are this process's own, in the state file."""

    def __init__(
        self, options: ControllerOptions, settings: Settings, state: State | None, application: Application
    ) -> None:
        """Raises AddressError and InputError as `Engine` does, and InputError without a folder."""
        if options.manifests is None:
            raise InputError.because("names no folder of manifests", field="[romana] manifests")
        self._engine = Engine(settings, state)
        self.agents = self._engine.agents
        self.numbers: Durable = self._engine
        """What must be durable before flows use it."""
        self._application = application
        uids = PodUids({key: end.uid for key, end in self._engine.agents.endpoints.items()})
        store = ManifestStore(settings, default_nodes=options.nodes, pod_uids=uids)
        self._manifests = Manifests(options.manifests, store, application)

    @property
    def problems(self) -> tuple[str, ...]:
        """What could not be given to whom, and why."""
        return tuple(map(str, self._engine.problems))

    @property
    def unsettled(self) -> bool:
        """Whether a step of make-before-break waits for switches."""
        return self._engine.unsettled

    def run(self) -> None:
        """Never returns: reads the folder, and again after every change."""
        self._manifests.run()

    def set_observed_nodes(self, seen: Mapping[PodKey, str]) -> None:
        """Pods that no manifest binds to a node are where their ports are `seen`."""
        self._manifests.set_observed_nodes(seen)

    def step(self, cluster: Cluster, driven: Collection[str], awaited: Collection[str]) -> None:
        """Follow `cluster`; no step goes on before the switches of the `awaited` nodes have confirmed the last one."""
        self._engine.step(cluster, awaited)

    def pending_ack(self, node: str) -> PendingAck | None:
        """What the switch of `node` will have confirmed when it has the present view."""
        return self.agents.pending_ack(node, "")

    def on_programmed(self, node: str, ack: PendingAck) -> None:
        """The switch of `node` has confirmed the view that `ack` is of."""
        if self._engine.on_programmed(node, ack):
            self._application.schedule_round()


class ApiBackend:
    """Follows an API server, and the numbers that a registry, maybe in this process, keeps there."""

    def __init__(
        self, options: ControllerOptions, settings: Settings, state: State | None, application: Application
    ) -> None:
        """Raises AddressError and InputError as `NodeAgents` does."""
        self.agents = NodeAgents(settings, state)
        self.numbers: Durable = self.agents
        """What must be durable before flows use it."""
        self._application = application
        self._kubernetes = Kubernetes(
            ApiSource() if options.kubeconfig == IN_CLUSTER else ApiSource(options.kubeconfig or ""),
            settings,
            self,
            resources=resources_of(options.node),
        )
        self._reconciler = ApiReconciler(
            settings, self.agents, self._kubernetes.store, self, registers=options.node is None
        )
        self._policies = ""

    # What the Kubernetes process says.

    def on_cluster(self, loaded: ClusterSnapshot, noticed: float) -> None:
        """Objects of the cluster have changed."""
        self._application.on_cluster(loaded, noticed)

    def on_health(self) -> None:
        """What is wrong with the API server has changed."""
        self._application.status_changed()

    def on_messages(self, messages: list[object]) -> None:
        """Every message of the process, in order."""
        self._application.defer(lambda: self._observe(messages))

    def on_process_started(self) -> None:
        """A new process runs: it knows nothing yet."""
        self._application.defer(self._reconciler.process_started)

    def _observe(self, messages: list[object]) -> None:
        if self._reconciler.observe_messages(messages):
            self._application.schedule_round()
            self._application.status_changed()

    # What the reconciler asks for.

    def send(self, message: object) -> None:
        """Send a message to the Kubernetes process."""
        self._kubernetes.send(message)

    def schedule_round(self, after: float) -> None:
        """Compute everything again, in so many seconds."""
        self._application.schedule_round(after)

    def wake(self, after: float) -> None:
        """Call `report_statuses` again in so many seconds."""
        self._application.wake(after)

    # What the application asks for.

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the API server, with the numbers there, and with those of our nodes."""
        own = (*self._reconciler.problems, *self.agents.problems)
        return (*self._kubernetes.problems, *map(str, own))

    @property
    def unsettled(self) -> bool:
        """Whether pods or rules wait for the registry, and have not waited for too long."""
        return self.agents.pending

    def run(self) -> None:
        """Never returns: runs the Kubernetes process."""
        self._kubernetes.run()

    def step(self, cluster: Cluster, driven: Collection[str], awaited: Collection[str]) -> None:
        """Follow `cluster` with the published numbers; the registry knows from reports what switches have confirmed."""
        # By the policies that are known now: later ones are not worked in yet.
        self._policies = self._reconciler.policies_digest()
        self._reconciler.step(cluster, driven)

    def pending_ack(self, node: str) -> PendingAck | None:
        """What may be reported of `node` once its switch has the present view."""
        return self.agents.pending_ack(node, self._policies)

    def on_programmed(self, node: str, ack: PendingAck) -> None:
        """The switch of `node` has confirmed the view that `ack` is of: the registry may know."""
        self.agents.on_programmed(node, ack)
        self._reconciler.report()

    @property
    def reconciler(self) -> ApiReconciler:
        """Registry and reports, for what only an API server has: statuses, observations, pending writes."""
        return self._reconciler

    def report_statuses(self, loaded: ClusterSnapshot, *, failing: bool) -> None:
        """Report the statuses of all objects; what the registry is just working on is no problem yet."""
        unplaced: tuple[Problem, ...] = () if self.agents.pending else self.agents.problems
        self._reconciler.report_statuses(loaded, unplaced=unplaced, failing=failing)


def backend_of(
    options: ControllerOptions, settings: Settings, state: State | None, application: Application
) -> FolderBackend | ApiBackend:
    """The backend that the options name. Raises AddressError and InputError."""
    kind = FolderBackend if options.kubeconfig is None else ApiBackend
    return kind(options, settings, state, application)
