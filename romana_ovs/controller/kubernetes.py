"""Runs the Kubernetes process, and passes messages between it and the controller.

The process lists, watches and decodes, and makes the writes that the controller requests; the controller receives
decoded values only. When the process ends, another is started, which lists everything; tables do not change by that.
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

from romana_ovs.controller.published_store import RESOURCES as PUBLISHED
from romana_ovs.flag import Flag
from romana_ovs.kube.api.messages import FrameReader, Health, LogLine, Start, frame
from romana_ovs.kube.api.resources import CLUSTER, NODE_REPORTS, PODS, TENANTS, Resource, pods_of
from romana_ovs.kube.api.source import ApiSource
from romana_ovs.model.errors import RomanaError
from romana_ovs.model.settings import Settings

LOG = logging.getLogger("romana_ovs.kubernetes")

PROCESS = "romana_ovs.kube.api.process"
FIRST_RESTART_SECONDS, MAX_RESTART_SECONDS = 0.5, 30.0
"""Seconds before another process is started: the first after one that ran for STABLE_SECONDS, otherwise twice those
before."""
STABLE_SECONDS = 60.0
_READ_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class ProcessStarted:
    """A new Kubernetes process runs: it lists everything, and messages sent to the one before may be lost."""


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
        """The present errors, by `Health.subject`."""
        self._outbox: LightQueue | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """The present errors of requests to the API server, in sentences."""
        return tuple(sentence for _, sentence in sorted(self._errors.items()))

    def run(self) -> None:
        """Never returns. While the API server cannot be reached the last cluster is in force."""
        pause = FIRST_RESTART_SECONDS
        while True:
            began = time.monotonic()
            try:
                self._serve()
            except RomanaError as error:
                LOG.error("a message of the Kubernetes process cannot be decoded: %s", error)
            pause = (
                FIRST_RESTART_SECONDS
                if time.monotonic() - began > STABLE_SECONDS
                else min(2 * pause, MAX_RESTART_SECONDS)
            )
            LOG.error("the Kubernetes process has ended; another one starts in %g s", pause)
            eventlet.sleep(pause)

    def receive(self) -> tuple[object, ...]:
        """All messages since the last call, in order; a ProcessStarted comes before those of its process."""
        messages, self._inbox = self._inbox, []
        return tuple(messages)

    def send(self, messages: tuple[object, ...]) -> None:
        """Queue messages to the process, in order; while none runs they are dropped."""
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
                with self._writer(outgoing):
                    self.send((self._start,))
                    self._on_messages((ProcessStarted(),))
                    self._read(incoming)
            finally:
                process.send_signal(signal.SIGTERM)

    def _read(self, incoming: int) -> None:
        """Read messages until the process closes the pipe."""
        reader = FrameReader()
        while True:
            trampoline(incoming, read=True)
            try:
                data = os.read(incoming, _READ_BYTES)
            except BlockingIOError:
                continue
            if not data:
                return
            self._on_messages(tuple(reader.feed(data)))
            # Let other green threads run, also while the process sends without a pause.
            eventlet.sleep(0)

    def _on_messages(self, messages: tuple[object, ...]) -> None:
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
    def _writer(self, outgoing: int) -> Iterator[None]:
        """Write the frames of the outbox to the pipe meanwhile.

        Only one green thread writes: frames of several would be interleaved whenever the pipe is full.
        """
        self._outbox = LightQueue()
        writer = eventlet.spawn(self._write_outbox, outgoing, self._outbox)
        try:
            yield
        finally:
            self._outbox = None
            writer.kill()

    def _write_outbox(self, outgoing: int, outbox: LightQueue) -> None:
        """Write frames of `outbox`, until this green thread is killed."""
        while True:
            self._write(outgoing, outbox.get())

    def _write(self, outgoing: int, data: bytes) -> None:
        """Write all of `data`; when the pipe is closed, `_read` handles the end of the process."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(outgoing, view) :]
            except BlockingIOError:
                trampoline(outgoing, write=True)
            except OSError as error:
                LOG.debug("the Kubernetes process has closed its pipe: %s", error)
                return


def resources_of(node: str | None) -> tuple[Resource, ...]:
    """The resources to list and watch: all, or for one `node` only its pods, its report, and what every node needs."""
    if node is None:
        return (*CLUSTER, *PUBLISHED, TENANTS)
    cluster_resources = [pods_of(node) if resource == PODS else resource for resource in CLUSTER]
    numbers = [
        replace(resource, fields=f"metadata.name={node}") if resource == NODE_REPORTS else resource
        for resource in PUBLISHED
    ]
    return (*cluster_resources, *numbers)


def _environment() -> dict[str, str]:
    """Our environment, with this package first on PYTHONPATH: the working folder may have modules of any name."""
    folder = str(Path(__file__).resolve().parents[2])
    paths = [folder, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
