"""A thread that does one job after another, takes in what else is wanted meanwhile, and bears trouble calmly."""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections.abc import Callable
from typing import Any, Protocol

from romana_ovs.kube.api.backoff import Backoff
from romana_ovs.kube.api.health_log import Grumble
from romana_ovs.kube.api.lease import clock
from romana_ovs.model.errors import ApiError

LOG = logging.getLogger("romana_ovs.writers")

MISTAKE_SECONDS = 60.0
"""Pause after a mistake of ours."""


class Job(Protocol):
    """What is done in the thread; only that thread calls it."""

    def accept(self, message: Any) -> None:
        """Something else is wanted from now on."""

    def attempt(self) -> float:
        """Do one thing. Returns the seconds until there may be another to do. Raises ApiError for trouble."""


class Worker:
    """One job, named `what`, in a thread of its own; `take` and `stop` are for any thread."""

    def __init__(self, what: str, job: Job, send: Callable[[object], None]) -> None:
        self._job = job
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._wake = threading.Event()
        self._stopping = False
        self._backoff = Backoff(random.random, most=60.0)
        self._grumble = Grumble(LOG, what, send)
        self._not_before = 0.0
        self._thread = threading.Thread(target=self._run, name=what, daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def take(self, message: object) -> None:
        """Hand `message` to the job, soon."""
        self._inbox.put(message)
        self._wake.set()

    def stop(self) -> None:
        """End after what is being done now."""
        self._stopping = True
        self._wake.set()

    def join(self, seconds: float) -> bool:
        """Whether the thread has ended, after `seconds` at most."""
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
                    self._grumble.fine()
            except ApiError as error:
                self._grumble.about(error)
                pause = self._backoff.failed(error.retry_after)
                self._not_before = clock() + pause
            except Exception:  # A mistake of ours about one object must not silence the thread for ever.
                LOG.exception("a mistake of ours")
                pause = MISTAKE_SECONDS
                self._not_before = clock() + pause
            if pause > 0:
                self._wake.wait(pause)
