"""Runs the Kubernetes process (`python -m romana_ovs.kube.api.process`), a child of the controller.

It gets messages from the controller on standard input, and sends others on standard output. All requests to the API
server are made here, in plain threads, so that they never delay the switches. Components do the work. Each has messages
and threads of its own; they share only the `Context`.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
import time
from collections.abc import Callable

from romana_ovs.kube.api.client import Api
from romana_ovs.kube.api.component import Component, Context
from romana_ovs.kube.api.leader_tasks import LeaderTasks
from romana_ovs.kube.api.list_watch import ListWatchers
from romana_ovs.kube.api.messages import FrameReader, LogLine, Start, frame
from romana_ovs.kube.api.write_executor import WriteExecutor

LOG = logging.getLogger("romana_ovs.kube")

_READ_BYTES = 1 << 16
_COLLECT_SECONDS = 60.0
"""Between two runs of the garbage collector."""

COMPONENTS: tuple[Callable[[Context], Component], ...] = (ListWatchers, WriteExecutor, LeaderTasks)


class MessageWriter:
    """Writes complete messages to the controller, in order; blocks while the pipe is full."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def send(self, message: object) -> None:
        """Write one message. Without a reader it is dropped: the process is about to end.

        No exception then, because the lease still has to be released.
        """
        data = memoryview(frame(message))
        with self._lock:
            while data:
                try:
                    data = data[os.write(self._descriptor, data) :]
                except BrokenPipeError:
                    return


class LogForwarder(logging.Handler):
    """Forwards log records to the controller, which writes them to its own log."""

    def __init__(self, send: Callable[[object], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        """Send one line, or several when there is a traceback."""
        try:
            text = self.format(record)
        except (TypeError, ValueError):  # The arguments do not match the format.
            self.handleError(record)
        else:
            self._send(LogLine(record.levelno, record.name, text))


def serve(
    incoming: int, writer: MessageWriter, components: tuple[Callable[[Context], Component], ...] = COMPONENTS
) -> None:
    """Start the components at the message Start, and hand each later message to those that handle it.

    Returns when the other end of `incoming` is closed, with the components stopped.
    """
    reader = FrameReader()
    running: list[Component] = []
    while data := os.read(incoming, _READ_BYTES):
        for message in reader.feed(data):
            if isinstance(message, Start):
                context = Context(Api(message.source), message, writer.send)
                running = [make(context) for make in components]
                for component in running:
                    component.start()
                continue
            handlers = [component for component in running if isinstance(message, component.handles)]
            for component in handlers:
                component.handle(message)
            if not handlers:
                LOG.error("internal error: no component handles message %s, please report", type(message).__name__)
    for component in running:
        component.stop()


def main() -> None:
    """Never returns. The process ends when the controller closes the pipe, or at once on SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the controller; this process ends after it.
    incoming, writer = _redirect_standard_streams()
    root = logging.getLogger()
    root.addHandler(LogForwarder(writer.send))
    root.setLevel(logging.INFO)
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    # Listings create a million objects without cycles; searching them for cycles takes longer than decoding them.
    # The few cyclic objects (errors and their frames) are collected now and then.
    gc.disable()
    threading.Thread(target=_collect_garbage, daemon=True).start()
    try:
        serve(incoming, writer)
    except Exception:  # Logged here; the controller starts another process.
        LOG.exception("internal error in the Kubernetes process, which ends; please report")
        os._exit(1)
    # Threads may be blocked in requests: do not wait for them.
    os._exit(0)


def _redirect_standard_streams() -> tuple[int, MessageWriter]:
    """Move the two pipes to other descriptors: plugins inherit standard input, and libraries may print."""
    incoming, outgoing = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    return incoming, MessageWriter(outgoing)


def _collect_garbage() -> None:
    while True:
        time.sleep(_COLLECT_SECONDS)
        gc.collect()


if __name__ == "__main__":
    main()
