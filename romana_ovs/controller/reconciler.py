"""Declares the inputs and the outcome of a step of the controller, and shows the stages that it passes.

    source            Manifests (folder)                         Kubernetes (messages of its process)
                           |                                            |
                           v                                            v
    cluster           ManifestStore                    ClusterCache, PublishedStore
                           |                                            |
                           v  ClusterSnapshot                           v
    Reconciler.step   FolderReconciler                            ApiReconciler
                           |                                            |
                           v                                            v
    numbers           Engine: Registry                 RegistryController: Registry, plan_writes  -> writes
                           |                                            |
                           +---------> NodeAgents, NodeAgent <----------+  -> reports, statuses
                                            |
    RomanaOvs._program                      v
                      NodeAgent.view -> resolve -> compile_node -> Session -> Channel

Sources and sessions keep what is new and raise the controller's flag. The work loop (`app.py`) then takes all of it as
`Inputs`, and passes the `Outcome` of the step on. Only the work loop calls `step`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from romana_ovs.controller.state_saver import Durable
from romana_ovs.engine.node_agent import PendingAck
from romana_ovs.engine.node_agents import NodeAgents
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.errors import RomanaError
from romana_ovs.registry_types.report import Observed
from romana_ovs.switch.bridges import Bridge


class EventsLost(RomanaError):
    """An internal error kept messages from being applied. They are not sent again: the process must be restarted."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is new since the last step, and the present state of bridges and switches.

    `received` are the messages of the source, in order. `acks` are the acknowledgements of confirmed views, by node,
    each once; `all_confirmed`: every switch has confirmed the last outcome. `bridges` are those of all databases,
    `driven` the nodes whose bridges this process programs, `awaited` those whose switch must confirm a step of
    make-before-break before the next one. `observed` was measured of the driven switches; `failing`: a switch refuses
    its tables, or the last computation failed. Before all databases are `synced` (read once) nothing is computed. With
    `resync` everything is computed again, even if nothing is new.
    """

    received: tuple[object, ...] = ()
    acks: tuple[tuple[str, PendingAck], ...] = ()
    all_confirmed: bool = False
    bridges: Mapping[str, Bridge] = field(default_factory=lambda: MappingProxyType({}))
    driven: frozenset[str] = frozenset()
    awaited: frozenset[str] = frozenset()
    observed: Mapping[str, Observed] = field(default_factory=lambda: MappingProxyType({}))
    failing: bool = False
    synced: bool = True
    resync: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a step.

    `views_changed`: the views of nodes may be new. `messages` are to be sent by the source. `next_check` is when to
    call `step` again although nothing is new (seconds of `time.monotonic`).
    """

    views_changed: bool = False
    messages: tuple[object, ...] = ()
    next_check: float | None = None


class Source(Protocol):
    """Reads a cluster, and sends messages to where it is read from: `Manifests` or `Kubernetes`."""

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the source at the moment, in sentences."""

    def run(self) -> None:
        """Read; never returns. To be run in a green thread."""

    def receive(self) -> tuple[object, ...]:
        """What has been read since the last call, in order."""

    def send(self, messages: tuple[object, ...]) -> None:
        """Send messages there."""


class Reconciler(Protocol):
    """Computes numbers and views from a cluster: `FolderReconciler` or `ApiReconciler`.

    While `step` runs in another thread, no other method may be called.
    """

    agents: NodeAgents
    durable_state: Durable
    """The numbers that must be durable before flows use them."""
    snapshot: ClusterSnapshot | None
    """The cluster as last read; None before all of it is listed."""
    noticed: float
    """When the first of the changes that led to `snapshot` was noticed, in seconds of `time.monotonic`."""
    object_problems: tuple[str, ...]
    """The problems of objects that were read, in sentences."""

    @property
    def problems(self) -> tuple[str, ...]:
        """Pods, nodes and tenants without a number, and what is wrong with the numbers; in sentences."""

    @property
    def unsettled(self) -> bool:
        """Whether something waits for switches, or for the registry, within the time limit."""

    def may_be_slow(self, inputs: Inputs) -> bool:
        """Whether `step` may take long with these inputs. Otherwise it compares a few objects, in any thread."""

    def step(self, inputs: Inputs, now: float) -> Outcome:
        """Apply `inputs`, and compute numbers and views. `now` is `time.monotonic`.

        Raises RomanaError when that cannot be done now: the next step tries again. Raises EventsLost when messages are
        lost.
        """

    def pending_ack(self, node: str) -> PendingAck | None:
        """What `node` may report once its switch has the present view."""

    def status(self) -> Mapping[str, Any]:
        """Its fields of the state on the status socket."""
