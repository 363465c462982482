"""Runs the Kubernetes process, and passes messages between it and the controller.

The process lists, watches and decodes, and writes what the controller wants written; the controller receives decoded
values only. The process is restarted when it ends. That changes nothing that is programmed: the next one lists anew.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import eventlet
from eventlet.hubs import trampoline
from eventlet.queue import LightQueue

from romana_ovs.controller.published_store import RESOURCES as NUMBERS
from romana_ovs.flag import Flag
from romana_ovs.kube.api.messages import FrameReader, Health, LogLine, Start, frame
from romana_ovs.kube.api.resources import CLUSTER, NODE_REPORTS, PODS, TENANTS, Resource, pods_of
from romana_ovs.kube.api.source import ApiSource
from romana_ovs.model.errors import RomanaError
from romana_ovs.model.settings import Settings

LOG = logging.getLogger("romana_ovs.kubernetes")

PROCESS = "romana_ovs.kube.api.process"
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before another process is started; doubled each time, and shortest again after one that lasted."""
LASTED = 60.0
_PIECE = 1 << 18


@dataclass(frozen=True, slots=True)
class ProcessStarted:
    """A new Kubernetes process runs: it knows nothing yet, and what was sent to the one before may never be done."""


class Kubernetes:
    """Keeps the messages of the process until they are taken, and raises `flag` for them."""

    def __init__(
        self,
        source: ApiSource,
        settings: Settings,
        flag: Flag,
        *,
        resources: tuple[Resource, ...] = CLUSTER,
        name: str = "",
    ) -> None:
        self._start = Start(source, settings, resources, name)
        self._flag = flag
        self._inbox: list[object] = []
        self._errors: dict[str, str] = {}
        """What is wrong at the moment, by what it is about (`Health.subject`)."""
        self._outbox: LightQueue | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong between us and the API server at the moment, in sentences."""
        return tuple(sentence for _, sentence in sorted(self._errors.items()))

    def run(self) -> None:
        """Never returns. While the API server cannot be followed the last cluster stands."""
        pause = FIRST_PAUSE
        while True:
            began = time.monotonic()
            try:
                self._serve()
            except RomanaError as error:
                LOG.error("a message of the Kubernetes process cannot be decoded: %s", error)
            pause = FIRST_PAUSE if time.monotonic() - began > LASTED else min(2 * pause, LONGEST_PAUSE)
            LOG.error("the Kubernetes process has ended; another one starts in %g s", pause)
            eventlet.sleep(pause)

    def take(self) -> tuple[object, ...]:
        """All messages since the last call, in order; a ProcessStarted comes before those of its process."""
        messages, self._inbox = self._inbox, []
        return tuple(messages)

    def send(self, messages: tuple[object, ...]) -> None:
        """Send messages to the process, soon and after those before; while none runs they are dropped."""
        outbox = self._outbox
        if outbox is not None:
            for message in messages:
                outbox.put(frame(message))

    def _serve(self) -> None:
        """One process, from its start to its end."""
        with subprocess.Popen(
            [sys.executable, "-m", PROCESS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(),
            start_new_session=True,
        ) as process:
            if process.stdin is None or process.stdout is None:
                return
            incoming, outgoing = process.stdout.fileno(), process.stdin.fileno()
            os.set_blocking(incoming, False)
            os.set_blocking(outgoing, False)
            try:
                with self._delivering(outgoing):
                    self.send((self._start,))
                    self._receive((ProcessStarted(),))
                    self._read(incoming)
            finally:
                process.send_signal(signal.SIGTERM)

    def _read(self, incoming: int) -> None:
        """Take what comes until nothing more will."""
        reader = FrameReader()
        while True:
            trampoline(incoming, read=True)
            try:
                data = os.read(incoming, _PIECE)
            except BlockingIOError:
                continue
            if not data:
                return
            self._receive(tuple(reader.feed(data)))
            # What comes in a hurry is taken a piece at a time: switches are served in between.
            eventlet.sleep(0)

    def _receive(self, messages: tuple[object, ...]) -> None:
        for message in messages:
            if isinstance(message, Health):
                self._on_health(message)
            elif isinstance(message, LogLine):
                logging.getLogger(message.logger).log(message.level, "%s", message.text)
            else:
                self._inbox.append(message)
        self._flag.set()

    def _on_health(self, health: Health) -> None:
        if health.error:
            LOG.warning("API server: %s", health.error)
            self._errors[health.subject] = health.error
        elif self._errors.pop(health.subject, None) is not None:
            LOG.info("API server: %s: fine again", health.subject)

    @contextmanager
    def _delivering(self, outgoing: int) -> Iterator[None]:
        """Send what is put into the outbox meanwhile.

        One green thread writes: frames of two that wait for the pipe in turns would get into each other.
        """
        self._outbox = LightQueue()
        writer = eventlet.spawn(self._deliver, outgoing, self._outbox)
        try:
            yield
        finally:
            self._outbox = None
            writer.kill()

    def _deliver(self, outgoing: int, outbox: LightQueue) -> None:
        """Write what is put into `outbox`, until it is killed."""
        while True:
            self._write(outgoing, outbox.get())

    def _write(self, outgoing: int, data: bytes) -> None:
        """Write all of it; when the process does not take it any more, its end is noticed by who reads."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(outgoing, view) :]
            except BlockingIOError:
                trampoline(outgoing, write=True)
            except OSError as error:
                LOG.debug("the Kubernetes process takes nothing: %s", error)
                return


def resources_of(node: str | None) -> tuple[Resource, ...]:
    """What is listed and watched: everything, or for `node` alone its own pods, its own report, and what all need."""
    if node is None:
        return (*CLUSTER, *NUMBERS, TENANTS)
    own = [pods_of(node) if resource == PODS else resource for resource in CLUSTER]
    numbers = [replace(one, fields=f"metadata.name={node}") if one == NODE_REPORTS else one for one in NUMBERS]
    return (*own, *numbers)


def _environment() -> dict[str, str]:
    """Ours, with this very package first: under plain ryu-manager the working folder may hold anything."""
    folder = str(Path(__file__).resolve().parents[2])
    paths = [folder, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
