"""The pulse of a server: whether it still lives while the streams that come from it say nothing.

The kernel of a machine whose server has stopped goes on to answer for its connections, and a stream may be silent for
a minute in all health. So a server that says nothing for a while is asked something.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator

from romana_ovs.model.errors import TornError, UnreachableError

LOG = logging.getLogger("romana_ovs.api")

QUIET_SECONDS = 35.0
"""Nothing from any stream for so long, and the server is asked; with the answer's time well below a minute."""
ANSWER_SECONDS = 10.0


class Pulse:
    """Of one server, for all its streams: one question for all of them, in a thread that is there while they are.

    `lives` asks the server something, and says whether anything was answered. When nothing was, and nothing has come
    from any stream for `quiet` seconds, all streams are given up.
    """

    def __init__(self, lives: Callable[[], bool], *, quiet: float = QUIET_SECONDS) -> None:
        self._lives = lives
        self._quiet = quiet
        self._changed = threading.Condition()
        self._streams: list[_Stream] = []
        self._running = False
        self._heard = 0.0
        """When there was a sign of life last, from whichever stream."""

    def kept(self, pieces: Iterable[bytes], cut: Callable[[], None]) -> Iterator[bytes]:
        """The `pieces` of a stream as they come. Raises UnreachableError when it is given up.

        `cut` then ends the stream: it is called in another thread, while this one waits for the next piece.
        """
        stream = _Stream(cut)
        self._add(stream)
        try:
            for piece in pieces:
                self._heard = time.monotonic()
                yield piece
        except TornError:
            if not stream.given_up:
                raise
        finally:
            self._remove(stream)
        if stream.given_up:
            raise UnreachableError(f"nothing came for {self._quiet:g} s, and the server answers nothing else either")

    def _add(self, stream: _Stream) -> None:
        with self._changed:
            self._heard = time.monotonic()
            self._streams.append(stream)
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="pulse", daemon=True).start()

    def _remove(self, stream: _Stream) -> None:
        with self._changed:
            self._streams.remove(stream)
            self._changed.notify()

    def _run(self) -> None:
        while self._await_silence():
            before = self._heard
            try:
                lives = self._lives()
            except Exception:  # A mistake of ours says nothing of the server.
                LOG.exception("a mistake of ours")
                lives = True
            if not lives and before == self._heard:
                self._give_up()
            self._heard = time.monotonic()

    def _await_silence(self) -> bool:
        """Wait until nothing has come for long; returns False, and nobody waits any more, when no stream is left."""
        with self._changed:
            while self._streams:
                left = self._heard + self._quiet - time.monotonic()
                if left <= 0:
                    return True
                self._changed.wait(left)
            self._running = False
            return False

    def _give_up(self) -> None:
        # Under the lock: a stream that has been removed may be another's connection already.
        with self._changed:
            for stream in self._streams:
                stream.give_up()


class _Stream:
    def __init__(self, cut: Callable[[], None]) -> None:
        self._cut = cut
        self.given_up = False

    def give_up(self) -> None:
        self.given_up = True
        try:
            self._cut()
        except (OSError, ValueError, RuntimeError) as error:  # It is just coming to its end by itself.
            LOG.debug("a stream that is given up has ended: %s", error)
