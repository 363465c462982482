"""What a controller does with an API server beside following its cluster: it gives numbers, and goes by them.

    registry (while this process leads) -> Allocation, ClassSets -> parts of the nodes that are driven -> NodeReports

All of it goes by way of the API server, also inside one process: what is not stored there is not used.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from typing import Any

from romana_ovs.controller.parts import Parts
from romana_ovs.controller.registry import RegistryDuty
from romana_ovs.controller.shelf import Shelf
from romana_ovs.kube.api.carry import Carried, Carry
from romana_ovs.kube.api.lease import identity
from romana_ovs.kube.api.wanted import Lead, Leadership
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import Problem
from romana_ovs.model.settings import Settings

PATIENCE_SECONDS = 10.0
"""How long rules and pods wait for the registry before nodes go on without it, failing closed."""
Tell = Callable[[object], None]


class Duties:
    """The registry's and the nodes' part. `follow` may run in a thread aside, during which nothing else is called.

    `tell` sends a message to the Kubernetes process; `later` has the application compute again after some seconds.
    """

    def __init__(
        self, settings: Settings, parts: Parts, *, registers: bool, tell: Tell, later: Callable[[float], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.parts = parts
        self.shelf = Shelf()
        self.registry = RegistryDuty(settings, self.shelf, clock) if registers else None
        self._tell = tell
        self._later = later
        self._clock = clock
        self._outbox: list[object] = []
        self._reporting: int | None = None
        self._reports = 0
        self._waiting_since: float | None = None
        self._alarm = 0.0
        self._report_trouble = ""

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with numbers and reports."""
        own = [Problem(self._report_trouble, kind="NodeReport")] if self._report_trouble else []
        registry = self.registry.problems if self.registry is not None else ()
        return tuple(dict.fromkeys((*self.shelf.problems, *registry, *own)))

    def process_started(self) -> None:
        """A Kubernetes process has begun: it takes part in the election under a name of its own."""
        self._reporting = None
        if self.registry is not None:
            me = identity()
            self.registry.process_started(me)
            self._tell(Lead(me))

    def take(self, messages: Iterable[object]) -> bool:
        """Take note; returns whether all must be computed again."""
        messages = tuple(messages)
        due = self.shelf.take(messages)
        for message in messages:
            if isinstance(message, Leadership) and self.registry is not None:
                self.registry.lead(message.leads)
                due = True
            elif isinstance(message, Carried):
                self._carried(message)
                due = True
        return due

    def follow(self, cluster: Cluster, nodes: Collection[str]) -> None:
        """Work out what the registry publishes, and what the parts of `nodes` make of what is published."""
        if self.registry is not None:
            carry = self.registry.work(cluster)
            if carry is not None:
                self._outbox.append(carry)
        self.parts.drive(nodes)
        self.parts.published = self.shelf.published if self.shelf.published is not None else self.parts.published
        self.parts.stored = frozenset(self.shelf.reports)
        self.parts.patience_over = self._impatient()
        self.parts.update(cluster)

    def _impatient(self) -> bool:
        return self._waiting_since is not None and self._clock() - self._waiting_since >= PATIENCE_SECONDS

    def speak(self) -> None:
        """Send what there is to send, and see to being called again when something may have waited too long."""
        for message in self._outbox:
            self._tell(message)
        self._outbox.clear()
        self.report()
        if not self.parts.waiting:
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = self._clock()
            self._later(PATIENCE_SECONDS)
        behind = self.registry.behind if self.registry is not None else None
        if behind is not None and self._clock() >= self._alarm:
            self._alarm = self._clock() + behind
            self._later(behind)

    def report(self) -> None:
        """Tell the API server of the nodes that we drive, unless it is just being told."""
        if self._reporting is not None or not self.shelf.listed:
            return
        versions = {node: version for node in self.shelf.reports if (version := self.shelf.report_version(node))}
        writes = tuple(self.parts.report_writes(self.shelf.reports, versions))
        if writes:
            # Negative: those that the registry asks for count upwards.
            self._reports -= 1
            self._reporting = self._reports
            self._tell(Carry(self._reports, writes))

    def _carried(self, answer: Carried) -> None:
        if answer.number == self._reporting:
            self._reporting = None
            self._report_trouble = answer.trouble
        elif self.registry is not None:
            self.registry.carried(answer)

    def status(self) -> dict[str, Any]:
        """What the status feed says of it."""
        published = self.shelf.published
        return {
            "leads": self.registry is not None and self.registry.leads,
            "revision": published.revision if published is not None else 0,
        }
