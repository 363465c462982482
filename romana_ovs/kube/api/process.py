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
from dataclasses import dataclass, field
from typing import Protocol

from romana_ovs.kube.api.carry import Carrier
from romana_ovs.kube.api.client import Api
from romana_ovs.kube.api.follow import Follower
from romana_ovs.kube.api.lease import Fence
from romana_ovs.kube.api.messages import FrameReader, Said, Start, frame
from romana_ovs.kube.api.writers import Writers

LOG = logging.getLogger("romana_ovs.kube")

_PIECE = 1 << 16
_CLEAN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a part has to work with. `send` takes any message for the controller, from any thread.

    `fence` says whether we lead: Writers keeps it, and whoever writes what only the leader may write asks it.
    """

    api: Api
    start: Start
    send: Callable[[object], None]
    fence: Fence = field(default_factory=Fence)


class Part(Protocol):
    """One job of the process. `wants` are the kinds of messages that are for it."""

    wants: tuple[type, ...]

    def start(self) -> None:
        """Begin; returns at once."""

    def take(self, message: object) -> None:
        """A message from the controller, of a kind that it wants; returns at once."""

    def end(self) -> None:
        """Nobody asks any more: come to an orderly end, within a few seconds."""


class Followers:
    """The part that lists and watches."""

    wants: tuple[type, ...] = ()

    def __init__(self, around: Surroundings) -> None:
        self._followers = [
            Follower(around.api, resource, around.start.settings, around.send) for resource in around.start.resources
        ]

    def start(self) -> None:
        """Follow every resource."""
        for follower in self._followers:
            follower.start()

    def take(self, message: object) -> None:
        """There is none that it wants."""

    def end(self) -> None:
        """There is nothing to end."""


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
