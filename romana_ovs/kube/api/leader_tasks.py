"""The part of the Kubernetes process that writes: leadership, statuses, Events.

It begins with the message Lead. Whoever else writes what only the leader may write (the published numbers) asks
`Surroundings.fence` before every write.
"""

from __future__ import annotations

import threading

from romana_ovs.kube.api.component import Surroundings
from romana_ovs.kube.api.desired import (
    AllRefused,
    AllStatuses,
    Lead,
    Leadership,
    SomeRefused,
    SomeStatuses,
)
from romana_ovs.kube.api.events import Events
from romana_ovs.kube.api.lease import Elector, LeaseName, clock
from romana_ovs.kube.api.statuses import RESOURCES, Statuses
from romana_ovs.kube.api.worker import Worker

END_SECONDS = 6.0
"""How long writes that are under way, and giving the lease back, may hold up an orderly end."""
_STATUSES = (AllStatuses, SomeStatuses)
_EVENTS = (AllRefused, SomeRefused)


class Writers:
    """A Part of the Kubernetes process. `around.fence` says no until a Lead is won."""

    wants: tuple[type, ...] = (Lead, *_STATUSES, *_EVENTS)

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._elector: Elector | None = None
        self._election: threading.Thread | None = None
        send = around.send
        self._statuses = [
            Worker(f"status of {each}", Statuses(around.api, each, around.fence), send) for each in RESOURCES
        ]
        self._events: Worker | None = None
        self._before: list[object] = []

    def start(self) -> None:
        """Nothing is written before a Lead comes."""

    def take(self, message: object) -> None:
        """What is wanted before the election begins is kept for then."""
        if isinstance(message, Lead):
            self._lead(message)
        elif isinstance(message, _STATUSES):
            for worker in self._statuses:
                worker.take(message)
        elif self._events is None:
            self._before.append(message)
        else:
            self._events.take(message)

    def end(self) -> None:
        """Stop writing, then give the lease back; returns when that is done, or after END_SECONDS."""
        until = clock() + END_SECONDS
        if self._elector is None or self._election is None or self._events is None:
            self._around.send(Leadership(False, 0, "", ended=True))
            return
        workers = [*self._statuses, self._events]
        for worker in workers:
            worker.stop()
        # A lease is given back only when nothing of ours can be on its way any more.
        if all([worker.join(max(0.0, until - clock())) for worker in workers]):
            self._elector.stop()
            self._election.join(max(0.0, until - clock()))

    def _lead(self, lead: Lead) -> None:
        if self._elector is not None:
            return
        self._elector = Elector(
            self._around.api,
            LeaseName(lead.namespace, lead.name),
            me=lead.me,
            told=self._around.send,
            timing=lead.timing,
            fence=self._around.fence,
        )
        self._election = threading.Thread(target=self._elector.run, name="election", daemon=True)
        self._events = Worker("events", Events(self._around.api, lead.me, self._around.fence), self._around.send)
        for message in self._before:
            self._events.take(message)
        for worker in (*self._statuses, self._events):
            worker.start()
        self._election.start()
