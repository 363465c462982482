"""The threads that write bear whatever happens to them: nothing that is wanted is lost, and nobody is asked in a hurry.

docs/hazards.md C8: a handler that raises must cost neither the thread nor what it was about.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from romana_ovs.kube.api import worker as worker_module
from romana_ovs.kube.api.client import Answer
from romana_ovs.kube.api.desired import ObjectWarning, ReplaceWarnings
from romana_ovs.kube.api.election import LeadershipTerm
from romana_ovs.kube.api.events import Events
from romana_ovs.kube.api.lease import LeadershipGuard
from romana_ovs.kube.api.messages import Health
from romana_ovs.kube.api.worker import Worker
from romana_ovs.kube.decode.objects import ObjectId, Version
from romana_ovs.model.errors import BusyError, FaultyError

SECONDS = 20.0
"""What anything may take on a loaded machine."""
PAUSE = 0.3


class Job:
    """Does what is wanted, one after the other, with what `faults` says of each attempt; None is a success."""

    def __init__(self, *faults: Exception | None) -> None:
        self.faults = list(faults)
        self.wanted: list[str] = []
        self.done: list[str] = []
        self.attempts: list[float] = []
        self.news = threading.Condition()

    def accept(self, message: str) -> None:
        self.wanted.append(message)

    def attempt(self) -> float:
        if not self.wanted:
            return SECONDS
        with self.news:
            self.attempts.append(time.monotonic())
            self.news.notify_all()
            fault = self.faults.pop(0) if self.faults else None
            if fault is not None:
                raise fault
            self.done.append(self.wanted.pop(0))
        return 0.0

    def until(self, wanted: Callable[[], bool]) -> None:
        with self.news:
            assert self.news.wait_for(wanted, SECONDS), (self.wanted, self.done)


@pytest.fixture
def told() -> list[object]:
    return []


@pytest.fixture
def started(told: list[object], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Job], Worker]]:
    """Starts the worker of a job; it ends with the test."""
    monkeypatch.setattr(worker_module, "INTERNAL_ERROR_SECONDS", PAUSE)
    made: list[Worker] = []

    def start(job: Job) -> Worker:
        made.append(Worker("work", job, told.append))
        made[-1].start()
        return made[-1]

    yield start
    for worker in made:
        worker.stop()
        assert worker.join(SECONDS)


def test_an_internal_error_is_logged_and_retried_after_a_pause(
    started: Callable[[Job], Worker], caplog: pytest.LogCaptureFixture
) -> None:
    job = Job(ZeroDivisionError("a mistake"), KeyError("another"))
    worker = started(job)
    with caplog.at_level(logging.ERROR, "romana_ovs.writers"):
        worker.handle("one")
        job.until(lambda: len(job.attempts) == 1)
        worker.handle("two")  # What is wanted meanwhile is taken in, and shortens no pause.
        job.until(lambda: job.done == ["one", "two"])
    assert len(job.attempts) == 4
    assert job.attempts[1] - job.attempts[0] >= PAUSE and job.attempts[2] - job.attempts[1] >= PAUSE
    assert [record.exc_info is not None for record in caplog.records] == [True, True]


def test_an_error_is_reported_once_and_waited_out(started: Callable[[Job], Worker], told: list[object]) -> None:
    """docs/hazards.md C3: what is wanted in a hurry is not written in a hurry."""
    job = Job(BusyError("429", status=429, retry_after=PAUSE), FaultyError("500", status=500))
    worker = started(job)
    for number in range(20):
        worker.handle(str(number))
    job.until(lambda: len(job.attempts) == 2)
    for number in range(20, 40):
        worker.handle(str(number))
    job.until(lambda: len(job.done) == 40)
    assert job.done == [str(number) for number in range(40)] and len(job.attempts) == 42
    assert job.attempts[1] - job.attempts[0] >= PAUSE and job.attempts[2] - job.attempts[1] >= PAUSE
    assert told == [Health("work", "429"), Health("work", "500"), Health("work")]


# One object that something is wrong with.


class Api:
    """Takes every Event but those on the object `poison`, about which it raises `fault`."""

    def __init__(self, poison: str, fault: Exception) -> None:
        self.poison, self.fault = poison, fault
        self.posted: list[str] = []
        self.tried = 0

    def request(self, method: str, path: str, *, body: Any = None, **_: object) -> Answer:
        name = body["regarding"]["name"]
        if name == self.poison:
            self.tried += 1
            raise self.fault
        self.posted.append(name)
        return Answer(201, {}, b"{}")


@pytest.mark.parametrize("fault", [ZeroDivisionError("a mistake"), FaultyError("500, a webhook is away", status=500)])
def test_a_refused_event_does_not_delay_others(fault: Exception) -> None:
    api, fence = Api("a", fault), LeadershipGuard()
    fence.set(LeadershipTerm(1, time.monotonic() + 1000))
    events = Events(api, "me", fence)  # type: ignore[arg-type]
    refused = ObjectWarning(Version("u", 1), "Invalid", "bad.")
    events.accept(ReplaceWarnings({ObjectId("Pod", "shop", name): refused for name in "abc"}))
    for _ in range(3):
        try:
            events.attempt()
        except type(fault):
            assert api.tried == 1
    assert sorted(api.posted) == ["b", "c"]
