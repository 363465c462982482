"""Provides an API server in memory and controllers without switches: messages, writes and time are the test's."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from romana_ovs.controller.api_reconciler import ApiReconciler
from romana_ovs.controller.kubernetes import ProcessStarted
from romana_ovs.controller.published_store import RESOURCES as NUMBERS
from romana_ovs.controller.reconciler import Inputs
from romana_ovs.engine.node_agent import PendingAck
from romana_ovs.kube.api.desired import JoinElection, Leadership
from romana_ovs.kube.api.messages import ListCompleted, ListStarted, ObjectsObserved, Update
from romana_ovs.kube.api.object_decoder import decoder, object_meta
from romana_ovs.kube.api.resources import CLUSTER, NAMESPACES, NODES, PODS, ROMANA_POLICIES, TENANTS, Resource
from romana_ovs.kube.api.write_executor import WriteRequest, WriteResult
from romana_ovs.kube.published import Verb, Write
from romana_ovs.model.settings import Settings
from romana_ovs.registry_types.report import Observed

EVERYTHING = (*CLUSTER, *NUMBERS, TENANTS)
MAX_ROUNDS = 60
Key = tuple[str, str]


def conflicts(write: Write, stored: Mapping[str, Any] | None) -> bool:
    """Whether an API server that has `stored` (None: nothing) of this name answers the write with 409 or 404."""
    if write.verb is Verb.CREATE:
        return stored is not None
    version = write.resource_version or (write.body or {}).get("metadata", {}).get("resourceVersion", "")
    return stored is None or bool(stored["metadata"]["resourceVersion"] != version)


class MemoryServer:
    """Objects with optimistic concurrency by resourceVersion; everyone in `watching` sees every change at once."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.watching: list[ControllerProcess] = []
        self.trouble = ""
        """The error of every write, if any."""
        self.jobs = 0
        """How many jobs were brought, done or not."""
        self.writes: list[Write] = []
        """The writes that were done."""
        self._versions = count(1)
        self._objects: dict[str, dict[Key, dict[str, Any]]] = {str(resource): {} for resource in EVERYTHING}

    def put(self, resource: Resource, name: str, *, labels: Mapping[str, str] | None = None, **fields: Any) -> None:
        """Make an object, or edit it; `namespace` is metadata, all else is the object's."""
        namespace = fields.pop("namespace", "")
        stored = self._objects[str(resource)].get((namespace, name))
        same = stored is not None and stored.get("spec") == fields.get("spec")
        metadata: dict[str, Any] = stored["metadata"] if stored is not None else {"uid": f"uid-{next(self._versions)}"}
        self._store(
            resource,
            (namespace, name),
            {
                **fields,
                "kind": resource.kind,
                "metadata": {
                    **metadata,
                    "name": name,
                    "namespace": namespace,
                    "labels": dict(labels or {}),
                    "generation": metadata.get("generation", 0) + (0 if same else 1),
                },
            },
        )

    def remove(self, resource: Resource, name: str, namespace: str = "") -> None:
        """Delete an object."""
        gone = self._objects[str(resource)].pop((namespace, name))
        head = object_meta(gone, resource)
        assert head is not None
        self._tell(
            ObjectsObserved(str(resource), (Update(head.id, head.uid, str(next(self._versions)), exists=False),))
        )

    def of(self, resource: Resource, name: str) -> dict[str, Any]:
        """A copy of an object of the cluster's scope."""
        return copy.deepcopy(self._objects[str(resource)]["", name])

    def names(self, resource: Resource) -> list[str]:
        """The names of all of a resource."""
        return sorted(name for _, name in self._objects[str(resource)])

    def listings(self) -> list[object]:
        """What a process tells first."""
        return [
            message
            for resource in EVERYTHING
            for message in (
                ListStarted(str(resource)),
                ObjectsObserved(
                    str(resource), tuple(self._update(resource, one) for one in self._objects[str(resource)].values())
                ),
                ListCompleted(str(resource)),
            )
        ]

    def execute(self, job: WriteRequest, *, leads: bool) -> WriteResult:
        """Do what the Kubernetes process does with a job."""
        self.jobs += 1
        if job.leading and not leads:
            return WriteResult(job.number, "another process leads")
        if self.trouble:
            return WriteResult(job.number, self.trouble)
        for write in job.writes:
            if not self._write(write):
                return WriteResult(job.number, conflict=True)
        return WriteResult(job.number)

    def _write(self, write: Write) -> bool:
        """Whether the write was accepted."""
        [resource] = [one for one in NUMBERS if one.kind == write.kind]
        stored = self._objects[str(resource)].get(("", write.name))
        if conflicts(write, stored):
            return False
        self.writes.append(write)
        if write.verb is Verb.DELETE:
            self.remove(resource, write.name)
        else:
            body = json.loads(json.dumps(write.body))
            uid = stored["metadata"]["uid"] if stored is not None else f"uid-{next(self._versions)}"
            self._store(resource, ("", write.name), {**body, "metadata": {"name": write.name, "uid": uid}})
        return True

    def _store(self, resource: Resource, key: Key, value: dict[str, Any]) -> None:
        value["metadata"] = {**value["metadata"], "resourceVersion": str(next(self._versions))}
        self._objects[str(resource)][key] = value
        self._tell(ObjectsObserved(str(resource), (self._update(resource, value),)))

    def _update(self, resource: Resource, value: dict[str, Any]) -> Update:
        head = object_meta(value, resource)
        assert head is not None
        return decoder(resource, self.settings)(copy.deepcopy(value), head)

    def _tell(self, message: object) -> None:
        for process in self.watching:
            process.inbox.append(message)


@dataclass
class ControllerProcess:
    """A controller: its ApiReconciler, and in the place of switches somebody who confirms all, unless `deaf`.

    `requests` are the writes that it asked for and that are not done yet, `sent` all other messages.
    """

    server: MemoryServer
    nodes: Collection[str] = ()
    runs_registry: bool = True
    deaf: bool = False
    now: float = 1000.0
    leads: bool = False
    due: bool = False
    observed: Mapping[str, Observed] = field(default_factory=dict)
    inbox: list[object] = field(default_factory=list)
    requests: list[WriteRequest] = field(default_factory=list)
    sent: list[Any] = field(default_factory=list)
    acks: tuple[tuple[str, PendingAck], ...] = ()
    programmed: bool = False
    next_check: float | None = None

    def __post_init__(self) -> None:
        self.reconciler = ApiReconciler(self.server.settings, None, runs_registry=self.runs_registry)
        self.agents = self.reconciler.agents

    def start(self) -> None:
        """A Kubernetes process begins, and lists everything."""
        self.requests.clear()
        self.leads = False
        if self not in self.server.watching:
            self.server.watching.append(self)
        self.inbox = [ProcessStarted(), *self.server.listings()]

    def lead(self, leads: bool = True) -> None:
        """The election has come to this."""
        self.leads = leads
        self.inbox.append(Leadership(leads, ""))

    def wait(self, seconds: float) -> None:
        """Time passes, with every step that is asked for in it."""
        end = self.now + seconds
        self.settle()
        for _ in range(MAX_ROUNDS * max(1, round(seconds))):
            if self.next_check is None or self.next_check > end:
                self.now = end
                return
            self.now = max(self.now, self.next_check)
            self.settle()
        raise AssertionError("it goes on for ever")

    def look(self) -> None:
        """One step; nothing that it asks for is done."""
        received, self.inbox = tuple(self.inbox), []
        acks, self.acks, due, self.due = self.acks, (), self.due, False
        inputs = Inputs(
            received=received,
            acks=acks,
            all_confirmed=self.programmed and not self.agents.awaits_registry,
            driven=frozenset(self.nodes),
            observed=self.observed,
            resync=due,
        )
        outcome = self.reconciler.step(inputs, self.now)
        self.next_check = outcome.next_check
        for message in outcome.messages:
            if isinstance(message, WriteRequest):
                self.requests.append(message)
            elif not isinstance(message, JoinElection):
                self.sent.append(message)
        if outcome.views_changed:
            self.programmed = bool(self.nodes) and not self.deaf
            pending = ((node, self.reconciler.pending_ack(node)) for node in self.nodes if not self.deaf)
            self.acks = tuple((node, ack) for node, ack in pending if ack is not None)

    def execute(self) -> None:
        """Have the oldest request done."""
        self.inbox.append(self.server.execute(self.requests.pop(0), leads=self.leads))

    def settle(self) -> None:
        """Until nothing is to be done at this moment."""
        for _ in range(MAX_ROUNDS):
            self.look()
            if not (self.requests or self.inbox or self.acks or self.due):
                return
            if self.requests:
                self.execute()
        raise AssertionError(f"it does not settle: {self.requests}, {self.inbox}")


def settle(processes: Iterable[ControllerProcess]) -> None:
    """Until none of them has anything to do."""
    processes = tuple(processes)
    for _ in range(MAX_ROUNDS):
        for process in processes:
            process.settle()
        if not any(process.inbox or process.due for process in processes):
            return
    raise AssertionError("they do not settle")


def server_with_pods(*pods: str, settings: Settings | None = None) -> MemoryServer:
    """A server with nodes n1 and n2, the namespace shop, and `pods` as NAME@NODE in it, labelled `app=NAME`."""
    server = MemoryServer(settings)
    for name in ("n1", "n2"):
        server.put(NODES, name)
    server.put(NAMESPACES, "shop", labels={"kubernetes.io/metadata.name": "shop"})
    for each in pods:
        name, _, node = each.partition("@")
        put_pod(server, name, node)
    return server


def put_pod(server: MemoryServer, name: str, node: str, *, ip: str = "", **labels: str) -> None:
    """A pod in the namespace shop; `ip` is what its kubelet has reported."""
    status = {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]} if ip else {"phase": "Pending"}
    server.put(
        PODS,
        name,
        namespace="shop",
        labels={"app": name, **labels},
        status=status,
        spec={
            "nodeName": node,
            "containers": [{"name": "c", "image": "i"}],
        },
    )


def put_policy(server: MemoryServer, name: str = "p", *, to: str = "a", source: str = "b", port: int = 80) -> None:
    """A policy of ours in the namespace shop: pods with `app=source` reach those with `app=to`."""
    server.put(
        ROMANA_POLICIES,
        name,
        namespace="shop",
        spec={
            "podSelector": {"matchLabels": {"app": to}},
            "allowIncoming": [{"from": [{"pods": {"matchLabels": {"app": source}}}], "toPorts": [{"port": port}]}],
        },
    )
