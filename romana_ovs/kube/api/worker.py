"""Provides a worker thread with an inbox, retry and back-off."""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections.abc import Callable
from typing import Any, Protocol

from romana_ovs.backoff import Backoff
from romana_ovs.kube.api.health_log import HealthLog
from romana_ovs.kube.api.lease import clock
from romana_ovs.model.errors import ApiError

LOG = logging.getLogger("romana_ovs.writers")

INTERNAL_ERROR_SECONDS = 60.0
"""Pause after an internal error."""


class Job(Protocol):
    """The work of the thread; only called by it."""

    def accept(self, message: Any) -> None:
        """Apply a message from the inbox."""

    def attempt(self) -> float:
        """Do one step; returns the seconds until the next one. Raises ApiError when it failed."""


class Worker:
    """Runs one job, named `what`, in its own thread; `handle` and `stop` are for any thread."""

    def __init__(self, what: str, job: Job, send: Callable[[object], None]) -> None:
        self._job = job
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._wake = threading.Event()
        self._stopping = False
        self._backoff = Backoff(random.random, maximum=60.0)
        self._health = HealthLog(LOG, what, send)
        self._not_before = 0.0
        self._thread = threading.Thread(target=self._run, name=what, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def handle(self, message: object) -> None:
        """Put `message` into the inbox of the job."""
        self._inbox.put(message)
        self._wake.set()

    def stop(self) -> None:
        """Stop after the present step."""
        self._stopping = True
        self._wake.set()

    def join(self, seconds: float) -> bool:
        """Wait `seconds` at most for the end of the thread; returns whether it has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                while not self._inbox.empty():
                    self._job.accept(self._inbox.get())
                pause = self._not_before - clock()
                if pause <= 0:
                    pause = self._job.attempt()
                    self._backoff.succeeded()
                    self._health.succeeded()
            except ApiError as error:
                self._health.failed(error)
                pause = self._backoff.failed(error.retry_after)
                self._not_before = clock() + pause
            except Exception:  # Must not end the thread because of one object.
                LOG.exception("internal error, please report")
                pause = INTERNAL_ERROR_SECONDS
                self._not_before = clock() + pause
            if pause > 0:
                self._wake.wait(pause)
