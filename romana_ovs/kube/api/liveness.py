"""Checks whether a server is alive while its streams are silent (as client-go's HTTP/2 health check does).

The kernel of a machine whose server hangs keeps its connections alive, and a healthy watch may be silent for a minute.
So a server that sends nothing for a while gets a small request.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator

from romana_ovs.model.errors import TornError, UnreachableError

LOG = logging.getLogger("romana_ovs.api")

QUIET_SECONDS = 35.0
"""Seconds without data from any stream before the server is checked; with ANSWER_SECONDS well below a minute."""
ANSWER_SECONDS = 10.0


class LivenessCheck:
    """Checks one server for all of its streams, in a thread that exists while there are any.

    `is_alive` sends a request and returns whether there was any response. Without one, and without data from any
    stream for `quiet` seconds, all streams are aborted.
    """

    def __init__(self, is_alive: Callable[[], bool], *, quiet: float = QUIET_SECONDS) -> None:
        self._is_alive = is_alive
        self._quiet = quiet
        self._changed = threading.Condition()
        self._streams: list[_Stream] = []
        self._running = False
        self._last_data = 0.0
        """When data was last received from any stream."""

    def guard(self, chunks: Iterable[bytes], cut: Callable[[], None]) -> Iterator[bytes]:
        """The `chunks` of a stream as they are received. Raises UnreachableError when it is aborted.

        `cut` then closes the stream; it is called in another thread, while this one waits for the next chunk.
        """
        stream = _Stream(cut)
        self._add(stream)
        try:
            for chunk in chunks:
                self._last_data = time.monotonic()
                yield chunk
        except TornError:
            if not stream.aborted:
                raise
        finally:
            self._remove(stream)
        if stream.aborted:
            raise UnreachableError(f"no data for {self._quiet:g} s, and the server does not respond to requests either")

    def _add(self, stream: _Stream) -> None:
        with self._changed:
            self._last_data = time.monotonic()
            self._streams.append(stream)
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="liveness", daemon=True).start()

    def _remove(self, stream: _Stream) -> None:
        with self._changed:
            self._streams.remove(stream)
            self._changed.notify()

    def _run(self) -> None:
        while self._await_silence():
            before = self._last_data
            try:
                is_alive = self._is_alive()
            except Exception:  # An internal error does not mean that the server is down.
                LOG.exception("internal error in a liveness check, please report")
                is_alive = True
            if not is_alive and before == self._last_data:
                self._abort_all()
            self._last_data = time.monotonic()

    def _await_silence(self) -> bool:
        """Wait until no data was received for `quiet` seconds; returns False, and the thread ends, without streams."""
        with self._changed:
            while self._streams:
                left = self._last_data + self._quiet - time.monotonic()
                if left <= 0:
                    return True
                self._changed.wait(left)
            self._running = False
            return False

    def _abort_all(self) -> None:
        # Under the lock: the connection of a removed stream may be in use by another one.
        with self._changed:
            for stream in self._streams:
                stream.abort()


class _Stream:
    def __init__(self, cut: Callable[[], None]) -> None:
        self._cut = cut
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True
        try:
            self._cut()
        except (OSError, ValueError, RuntimeError) as error:  # It is ending by itself.
            LOG.debug("an aborted stream has ended already: %s", error)
