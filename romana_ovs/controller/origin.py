"""Where the cluster and the numbers come from: a folder, or an API server that others share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from romana_ovs import runtime
from romana_ovs.config import IN_CLUSTER, ControllerOptions
from romana_ovs.controller.duties import ApiReconciler
from romana_ovs.controller.following import Following
from romana_ovs.controller.kubernetes import Kubernetes, resources_of
from romana_ovs.controller.manifests import Manifests
from romana_ovs.engine import World
from romana_ovs.engine.node_agents import NodeAgents, PendingAck
from romana_ovs.kube.api.source import ApiSource
from romana_ovs.kube.manifests.pod_uids import PodUids
from romana_ovs.kube.manifests.store import ManifestStore
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import InputError, Problem
from romana_ovs.model.objects import PodKey
from romana_ovs.model.settings import Settings
from romana_ovs.policy.published import Observed

State = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the application wants to hear: `loaded` each new cluster and when that was noticed, `unreadable` why not,
    `compute` that everything must be computed again, `look` that there may be something to say, `told` that something
    to be told of is another. `when_idle` does a job once nothing is worked out aside.
    """

    loaded: Callable[[ClusterSnapshot, float], None]
    unreadable: Callable[[InputError], None]
    compute: Callable[[], None]
    look: Callable[[], None]
    told: Callable[[], None]
    when_idle: Callable[[Callable[[], None]], None]


class Origin(Protocol):
    """Follows a cluster, and has the `world` of its nodes. `follow` may run aside, the rest then waits."""

    @property
    def world(self) -> Following:
        """The numbers and views of the nodes."""

    @property
    def troubles(self) -> tuple[str, ...]:
        """What is wrong with the way to the cluster, or with the numbers there, in sentences."""

    def run(self) -> None:
        """A green thread's job, for ever."""

    def place(self, seen: Mapping[PodKey, str]) -> None:
        """Pods that nothing binds to a node are where their ports are `seen`."""

    def follow(self, cluster: Cluster, nodes: Collection[str]) -> None:
        """Have the world of the driven `nodes` follow the cluster. Raises InputError."""

    def speak(self) -> None:
        """Send what following the cluster has brought about to whom it concerns."""

    def pledging(self) -> Callable[[str], PendingAck | None]:
        """What may be told of a node once its switch has what is worked out from now on."""

    def keep(self, node: str, pledge: PendingAck) -> None:
        """The switch has it."""

    def advance(self) -> bool:
        """Every switch has the last step of the world: take the next, if it is ours to take; returns whether it was."""

    def programmed(self) -> None:
        """Every switch has all that is known."""

    def observe(self, seen: Mapping[str, Observed]) -> None:
        """This is what has been `seen` of the switches of nodes."""

    def tell_statuses(self, loaded: ClusterSnapshot, *, failing: bool) -> None:
        """Have the cluster told how its objects fare; to be called often."""

    def status(self) -> dict[str, Any]:
        """What the status feed says of it."""


class Alone:
    """A folder of manifests, whose numbers this process alone gives; an `Origin`."""

    troubles: tuple[str, ...] = ()

    def __init__(self, options: ControllerOptions, settings: Settings, state: State | None, hooks: Hooks) -> None:
        """Raises AddressError and InputError as `World` does, and InputError without a folder."""
        if options.manifests is None:
            raise InputError.because("names no folder of manifests", field="[romana] manifests")
        self.world = World(settings, state)
        known = {key: end.uid for key, end in self.world.registry.endpoints.items()}
        store = ManifestStore(settings, default_nodes=options.nodes, pod_uids=PodUids(known))
        self._source = Manifests(options.manifests, store, loaded=hooks.loaded, failed=hooks.unreadable)
        self.run, self.place = self._source.run, self._source.place

    def follow(self, cluster: Cluster, nodes: Collection[str]) -> None:
        """All of the cluster, whichever nodes are driven."""
        self.world.update(cluster)

    def advance(self) -> bool:
        """Every step is ours."""
        self.world.advance()
        return True

    def pledging(self) -> Callable[[str], PendingAck | None]:
        """Nothing: nobody else goes by it."""
        return lambda node: None

    def keep(self, node: str, pledge: PendingAck) -> None:
        """Nobody waits for it."""

    def speak(self) -> None:
        """There is nobody."""

    def programmed(self) -> None:
        """There is nobody to tell."""

    def observe(self, seen: Mapping[str, Observed]) -> None:
        """The status feed tells it."""

    def tell_statuses(self, loaded: ClusterSnapshot, *, failing: bool) -> None:
        """Manifests have no status."""

    def status(self) -> dict[str, Any]:
        """Nothing but what all origins have."""
        return {}


class Shared:
    """An API server, with the numbers that a registry, maybe this process, keeps there; an `Origin`."""

    def __init__(self, options: ControllerOptions, settings: Settings, state: State | None, hooks: Hooks) -> None:
        """Raises AddressError and InputError as `NodeAgents` does."""
        self.world = NodeAgents(settings, state)
        self._hooks = hooks
        self._source = Kubernetes(
            ApiSource() if options.kubeconfig == IN_CLUSTER else ApiSource(options.kubeconfig or ""),
            settings,
            loaded=hooks.loaded,
            health=hooks.told,
            other=lambda messages: hooks.when_idle(lambda: self._take(messages)),
            started=lambda: hooks.when_idle(self._duties.process_started),
            resources=resources_of(options.node),
        )
        self._duties = ApiReconciler(
            settings,
            self.world,
            self._source.store,
            registers=options.node is None,
            tell=self._source.tell,
            later=lambda seconds: runtime.spawn_after(seconds, hooks.compute),
            wake_later=lambda seconds: runtime.spawn_after(seconds, hooks.look),
        )
        self.run, self.place = self._source.run, self._source.place
        self.follow, self.speak = self._duties.follow, self._duties.speak
        self.programmed, self.observe = self._duties.programmed, self._duties.observe

    def _take(self, messages: list[object]) -> None:
        if self._duties.take(messages):
            self._hooks.compute()
            self._hooks.told()

    @property
    def troubles(self) -> tuple[str, ...]:
        """Of the API server, then of the numbers."""
        return (*self._source.troubles, *map(str, self._duties.problems))

    def pledging(self) -> Callable[[str], PendingAck | None]:
        """By the policies that are known now: what comes meanwhile is not worked in yet."""
        policies = self._duties.policies()
        return lambda node: self.world.pending_ack(node, policies)

    def keep(self, node: str, pledge: PendingAck) -> None:
        """The registry may be told."""
        self.world.on_programmed(node, pledge)
        self._duties.report()

    def advance(self) -> bool:
        """The registry takes the steps."""
        return False

    def tell_statuses(self, loaded: ClusterSnapshot, *, failing: bool) -> None:
        """Of all objects; what the registry is just seeing to is nothing to be told of."""
        unplaced: tuple[Problem, ...] = () if self.world.pending else self.world.problems
        self._duties.tell_statuses(loaded, unplaced=unplaced, failing=failing)

    def status(self) -> dict[str, Any]:
        """How it stands with the registry."""
        return {"registry": self._duties.status()}


def origin_of(options: ControllerOptions, settings: Settings, state: State | None, hooks: Hooks) -> Origin:
    """The origin that the options name. Raises AddressError and InputError."""
    kind = Alone if options.kubeconfig is None else Shared
    return kind(options, settings, state, hooks)
