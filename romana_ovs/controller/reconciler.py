"""Declares what a step of the controller reads and yields, and which parts it passes through.

    source            Manifests (folder)                         Kubernetes (messages of its process)
                           |                                            |
                           v                                            v
    cluster           ManifestStore                    ClusterCache, PublishedStore
                           |                                            |
                           v  ClusterSnapshot                           v
    Reconciler.step   FolderReconciler                            ApiReconciler
                           |                                            |
                           v                                            v
    numbers           Engine: Registry                 RegistryController: Registry, next_writes  -> writes
                           |                                            |
                           +---------> NodeAgents, NodeAgent <----------+  -> reports, statuses
                                            |
    RomanaOvs._program                      v
                      NodeAgent.view -> resolve -> compile_node -> Session -> Channel

Sources and sessions keep what is new and raise the controller's flag. The work loop (`app.py`) then takes all of it as
`Inputs`, and hands out what the step yields as `Outcome`. Nothing else calls a reconciler.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from romana_ovs.controller.state_saver import Durable
from romana_ovs.engine.node_agents import NodeAgents, PendingAck
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.errors import RomanaError
from romana_ovs.policy.published import Observed
from romana_ovs.switch.bridges import Bridge


class EventsLost(RomanaError):
    """An internal error kept events from being applied. They will not come again: the process must start anew."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """All that is new since the last step, and what is so now.

    `news` is what the source has read, in order. `acks` are the views that switches have confirmed, by node, each once;
    `programmed` says that every switch has all of the last outcome. `bridges` are those of all databases, `driven` the
    nodes whose bridges this process programs, `awaited` those whose switch must confirm a step before the next one.
    `observed` is what is known of the driven switches beside their tables; `failing` whether any refuses its tables.
    Before all databases are `listed` nothing is computed. With `due` everything is computed again, even if nothing is
    new.
    """

    news: tuple[object, ...] = ()
    acks: tuple[tuple[str, PendingAck], ...] = ()
    programmed: bool = False
    bridges: Mapping[str, Bridge] = field(default_factory=lambda: MappingProxyType({}))
    driven: frozenset[str] = frozenset()
    awaited: frozenset[str] = frozenset()
    observed: Mapping[str, Observed] = field(default_factory=lambda: MappingProxyType({}))
    failing: bool = False
    listed: bool = True
    due: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step yields.

    `computed` says that views may be others. `messages` are for the source to send. `next_check` is when to call `step`
    again although nothing is new (seconds of `time.monotonic`).
    """

    computed: bool = False
    messages: tuple[object, ...] = ()
    next_check: float | None = None


class Source(Protocol):
    """Where a cluster comes from."""

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the source at the moment, in sentences."""

    def run(self) -> None:
        """Read; never returns. A green thread's job."""

    def take(self) -> tuple[object, ...]:
        """What has been read since the last call, in order."""

    def send(self, messages: tuple[object, ...]) -> None:
        """Send messages there."""


class Reconciler(Protocol):
    """Computes numbers and views from a cluster. While `step` runs in another thread, call nothing else."""

    agents: NodeAgents
    numbers: Durable
    """What must be durable before flows use it."""
    snapshot: ClusterSnapshot | None
    """The cluster as last read; None before all of it is listed."""
    noticed: float
    """When the first of the changes that led to `snapshot` was noticed, in seconds of `time.monotonic`."""
    refused: tuple[str, ...]
    """The problems of objects, in sentences."""

    @property
    def problems(self) -> tuple[str, ...]:
        """What could not be given to whom, and what is wrong with the numbers; in sentences."""

    @property
    def unsettled(self) -> bool:
        """Whether something waits for switches, or for the registry, and has not waited for too long."""

    def step(self, inputs: Inputs, now: float) -> Outcome:
        """Apply `inputs`, and compute what follows from them. `now` is `time.monotonic`.

        Raises RomanaError when that cannot be done now: the next step tries again. Raises EventsLost when part of the
        inputs is lost.
        """

    def pending_ack(self, node: str) -> PendingAck | None:
        """What the switch of `node` will have confirmed when it has the present view."""

    def status(self) -> Mapping[str, Any]:
        """What the status socket shows of it."""


def earliest(*times: float | None) -> float | None:
    """The first of these times; None when there is none."""
    return min((each for each in times if each is not None), default=None)
