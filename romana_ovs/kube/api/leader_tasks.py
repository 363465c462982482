"""Runs the election, and the tasks of the leader: statuses and Events.

They start with the message JoinElection. Other writes that only the leader may do (published numbers) check
`Context.guard` before every request, too.
"""

from __future__ import annotations

import threading

from romana_ovs.kube.api.component import Context
from romana_ovs.kube.api.desired import (
    JoinElection,
    Leadership,
    ReplaceStatuses,
    ReplaceWarnings,
    UpdateStatuses,
    UpdateWarnings,
)
from romana_ovs.kube.api.events import Events
from romana_ovs.kube.api.lease import Elector, LeaseName, clock
from romana_ovs.kube.api.statuses import RESOURCES, Statuses
from romana_ovs.kube.api.worker import Worker

END_SECONDS = 6.0
"""Seconds that pending writes and the release of the lease may delay an orderly stop."""
_STATUSES = (ReplaceStatuses, UpdateStatuses)
_EVENTS = (ReplaceWarnings, UpdateWarnings)


class LeaderTasks:
    """The component for leadership, statuses and Events. `context.guard` refuses until the election is won."""

    handles: tuple[type, ...] = (JoinElection, *_STATUSES, *_EVENTS)

    def __init__(self, context: Context) -> None:
        self._context = context
        self._elector: Elector | None = None
        self._election: threading.Thread | None = None
        send = context.send
        self._statuses = [
            Worker(f"status of {each}", Statuses(context.api, each, context.guard), send) for each in RESOURCES
        ]
        self._events: Worker | None = None
        self._early_messages: list[object] = []

    def start(self) -> None:
        """Nothing is written before a JoinElection."""

    def handle(self, message: object) -> None:
        """Pass the message to its worker; Events before a JoinElection are kept for it."""
        if isinstance(message, JoinElection):
            self._join(message)
        elif isinstance(message, _STATUSES):
            for worker in self._statuses:
                worker.handle(message)
        elif self._events is None:
            self._early_messages.append(message)
        else:
            self._events.handle(message)

    def stop(self) -> None:
        """Stop writing, then release the lease; returns when that is done, or after END_SECONDS."""
        until = clock() + END_SECONDS
        if self._elector is None or self._election is None or self._events is None:
            self._context.send(Leadership(False, "", ended=True))
            return
        workers = [*self._statuses, self._events]
        for worker in workers:
            worker.stop()
        # The lease is released only when no write of ours can be pending any more.
        if all([worker.join(max(0.0, until - clock())) for worker in workers]):
            self._elector.stop()
            self._election.join(max(0.0, until - clock()))

    def _join(self, request: JoinElection) -> None:
        if self._elector is not None:
            return
        self._elector = Elector(
            self._context.api,
            LeaseName(request.namespace, request.name),
            identity=request.identity,
            notify=self._context.send,
            timing=request.timing,
            guard=self._context.guard,
        )
        self._election = threading.Thread(target=self._elector.run, name="election", daemon=True)
        self._events = Worker(
            "events", Events(self._context.api, request.identity, self._context.guard), self._context.send
        )
        for message in self._early_messages:
            self._events.handle(message)
        for worker in (*self._statuses, self._events):
            worker.start()
        self._election.start()
