"""Electors and a server in virtual time: the real `Elector`, over answers that are late, lost or doubled."""

from __future__ import annotations

import copy
import heapq
import itertools
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from greenlet import getcurrent, greenlet

from romana_ovs.kube.api.client import Answer, Api
from romana_ovs.kube.api.desired import Leadership
from romana_ovs.kube.api.election import Timing
from romana_ovs.kube.api.lease import Elector, Environment, LeaseName
from romana_ovs.model.errors import ConflictError, MissingError, UnreachableError

LOST = 1e6
"""Seconds of delay that nobody lives to see."""


@dataclass(frozen=True)
class Fate:
    """What becomes of one request: seconds until it is there, and its answer back; perhaps there a second time."""

    there: float = 0.01
    back: float = 0.01
    again: float | None = None


@dataclass(frozen=True)
class Clocks:
    """The clocks of one elector: its own starts somewhere and runs at a rate near 1; the wall's jumps."""

    start: float = 0.0
    rate: float = 1.0
    wall: Callable[[float], float] = lambda now: now


class Server:
    """One Lease with optimistic concurrency. A write that changes nothing gives no new version, as in Kubernetes."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.writes = 0

    def apply(self, method: str, body: dict[str, Any]) -> dict[str, Any] | Exception:
        """The answer to one request, or what the client makes of it."""
        if method == "GET":
            return copy.deepcopy(self.lease) if self.lease is not None else MissingError("404", status=404)
        if method == "POST":
            return self._store(body) if self.lease is None else ConflictError("409 AlreadyExists", status=409)
        if self.lease is None:
            return MissingError("404", status=404)
        if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            return ConflictError("409", status=409)
        return self.lease if body["spec"] == self.lease["spec"] else self._store(body)

    def _store(self, body: dict[str, Any]) -> dict[str, Any]:
        self.writes += 1
        metadata = {**body["metadata"], "resourceVersion": f"v{self.writes}"}
        self.lease = {**body, "metadata": metadata}
        return self.lease


@dataclass
class Node:
    """One elector with what surrounds it."""

    name: str
    clocks: Clocks
    pauses: list[tuple[float, float]]
    elector: Elector = field(init=False)
    told: list[tuple[float, Leadership]] = field(default_factory=list)


class World:
    """Runs electors until a moment of true time; `check` is called whenever anything may have changed."""

    def __init__(self, fates: Callable[[], Fate], timing: Timing | None = None) -> None:
        self.now = 0.0
        self.server = Server()
        self.nodes: list[Node] = []
        self.terms: list[tuple[int, str]] = []
        self.healthy = False
        self._fates = fates
        self._timing = timing or Timing()
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._count = itertools.count()

    def add(self, name: str, clocks: Clocks, pauses: list[tuple[float, float]], *, begins: float = 0.0) -> Node:
        """One more elector. It is stopped (as by SIGSTOP) in each of `pauses`."""
        node = Node(name, clocks, sorted(pauses))
        machine = Environment(
            now=lambda: clocks.start + self.now * clocks.rate,
            wall=lambda: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=clocks.wall(self.now)),
            chance=lambda: 0.5,
            wait=lambda event, seconds: self._sleep(node, seconds / clocks.rate, event),
        )
        node.elector = Elector(
            cast(Api, _Client(self, node)), LeaseName(), identity=name, notify=lambda what: self._note(node, what),
            timing=self._timing, environment=machine,
        )  # fmt: skip
        self.nodes.append(node)
        thread = greenlet(node.elector.run, parent=getcurrent())
        self.at(begins, lambda: thread.switch())
        return node

    def at(self, moment: float, what: Callable[[], object]) -> None:
        """Do `what` at `moment`."""
        heapq.heappush(self._events, (max(moment, self.now), next(self._count), what))

    def run(self, until: float) -> None:
        """Let everything happen up to `until`."""
        while self._events and self._events[0][0] <= until:
            self.now, _, what = heapq.heappop(self._events)
            what()
            self.check()
        self.now = until
        self.check()

    def _note(self, node: Node, what: object) -> None:
        """Keep what `node` says of its leadership; how it gets on with its server is no matter here."""
        if isinstance(what, Leadership):
            node.told.append((self.now, what))

    def writers(self) -> list[Node]:
        """Who may write now, at true time."""
        return [node for node in self.nodes if node.elector.guard.may_write()]

    def check(self) -> None:
        """Never two; and leaseTransitions grows with every change of hands."""
        writers = self.writers()
        assert len(writers) <= 1, (self.now, [node.name for node in writers])
        if writers:
            term = writers[0].elector.guard.term
            assert term is not None
            entry = (term.transitions, writers[0].name)
            if not self.terms or self.terms[-1] != entry:
                assert not self.terms or entry[0] > self.terms[-1][0], (self.now, self.terms, entry)
                self.terms.append(entry)

    def request(self, node: Node, method: str, body: dict[str, Any] | None, deadline: float) -> Answer:
        """What `node` gets for a request, in as much time as that takes. Raises what the client would."""
        fate = Fate() if self.healthy else self._fates()
        sent, box, me = self.now, [], getcurrent()
        answers = self.now + fate.there + fate.back
        gives_up = sent + deadline / node.clocks.rate

        def arrive() -> None:
            box.append(self.server.apply(method, body or {}))

        self.at(sent + fate.there, arrive)
        if fate.again is not None:
            self.at(sent + fate.there + fate.again, lambda: self.server.apply(method, body or {}))
        self._resume(node, min(answers, gives_up), me)
        if answers > gives_up:
            raise UnreachableError("no data in time")
        found = box[0]
        if isinstance(found, Exception):
            raise found
        return Answer(200, {}, json.dumps(found).encode())

    def _sleep(self, node: Node, seconds: float, event: threading.Event) -> None:
        if not event.is_set():
            self._resume(node, self.now + seconds, getcurrent())

    def _resume(self, node: Node, moment: float, me: greenlet) -> None:
        """Go on with the node's thread at `moment`, or when it is not stopped any more."""
        for begin, end in node.pauses:
            if begin <= moment < end:
                moment = end
        self.at(moment, lambda: me.switch())
        me.parent.switch()


@dataclass(frozen=True)
class _Client:
    """The part of `Api` that an elector uses."""

    world: World
    node: Node

    def request(self, method: str, path: str, *, body: dict[str, Any] | None = None, deadline: float) -> Answer:
        assert path.startswith("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases")
        return self.world.request(self.node, method, body, deadline)
