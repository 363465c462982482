"""The controller's Kubernetes process: `python -m romana_ovs.kube.api.process`, spoken to on its standard streams.

All that has to do with Kubernetes happens here, in plain threads, so that none of it ever keeps a switch waiting. It
does what its parts do: each has messages of its own, threads of its own, and needs no other.
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
from romana_ovs.kube.api.component import Part, Surroundings
from romana_ovs.kube.api.leader_tasks import Writers
from romana_ovs.kube.api.list_watch import Followers
from romana_ovs.kube.api.messages import FrameReader, Said, Start, frame
from romana_ovs.kube.api.write_executor import Carrier

LOG = logging.getLogger("romana_ovs.kube")

_PIECE = 1 << 16
_CLEAN_SECONDS = 60.0

PARTS: tuple[Callable[[Surroundings], Part], ...] = (Followers, Carrier, Writers)


class Outlet:
    """Writes messages to the controller, whole, in the order in which they come; waits while it is busy."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def send(self, message: object) -> None:
        """Write one message, unless nobody reads any more: then nobody writes either, and the process is about to end.

        Orderly: it still has a lease to give back.
        """
        data = memoryview(frame(message))
        with self._lock:
            while data:
                try:
                    data = data[os.write(self._descriptor, data) :]
                except BrokenPipeError:
                    return


class _Log(logging.Handler):
    """Hands what is logged on to the controller, which writes it where its own lines go."""

    def __init__(self, send: Callable[[object], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        """Send one line, or several when there is a traceback."""
        try:
            text = self.format(record)
        except (TypeError, ValueError):  # its arguments do not fit its format
            self.handleError(record)
        else:
            self._send(Said(record.levelno, record.name, text))


def serve(incoming: int, outlet: Outlet, parts: tuple[Callable[[Surroundings], Part], ...] = PARTS) -> None:
    """Do what the messages from `incoming` ask for; returns when nobody is there to ask."""
    reader = FrameReader()
    running: list[Part] = []
    while data := os.read(incoming, _PIECE):
        for message in reader.feed(data):
            if isinstance(message, Start):
                around = Surroundings(Api(message.source), message, outlet.send)
                running = [make(around) for make in parts]
                for part in running:
                    part.start()
                continue
            takers = [part for part in running if isinstance(message, part.wants)]
            for part in takers:
                part.take(message)
            if not takers:
                LOG.error("a %s, which nobody takes", type(message).__name__)
    for part in running:
        part.end()


def main() -> None:
    """Never returns: ends with the controller, or at once when it is told to."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # It is meant for the controller, whose end is ours.
    incoming, outlet = _own_streams()
    root = logging.getLogger()
    root.addHandler(_Log(outlet.send))
    root.setLevel(logging.INFO)
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    # Listings make a million objects that all go by themselves; looking for cycles among them takes longer than
    # reading them. What little is cyclic (errors and their frames) is looked for now and then.
    gc.disable()
    threading.Thread(target=_clean, daemon=True).start()
    try:
        serve(incoming, outlet)
    except Exception:  # Said where it is read; the controller starts another one.
        LOG.exception("the Kubernetes process ends by a mistake of ours")
        os._exit(1)
    # Threads wait for the API server: nothing of theirs is worth waiting for.
    os._exit(0)


def _own_streams() -> tuple[int, Outlet]:
    """The two pipes, out of the way of everything else: plugins inherit standard input, libraries may print."""
    incoming, outgoing = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    return incoming, Outlet(outgoing)


def _clean() -> None:
    while True:
        time.sleep(_CLEAN_SECONDS)
        gc.collect()


if __name__ == "__main__":
    main()
