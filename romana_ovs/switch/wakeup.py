"""Wakes a thread that waits for file descriptors."""

from __future__ import annotations

import contextlib
import socket


class Wakeup:
    """A file descriptor that is readable from `set` to `clear`; neither of them waits, nor lets another thread run.

    Sockets in non-blocking mode, as eventlet's `os.read` and `os.write` wait for a pipe even then: a thread that clears
    what another one is about to set would wait for ever.
    """

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def fileno(self) -> int:
        """The file descriptor to wait for."""
        return self._reader.fileno()

    def set(self) -> None:
        """Make it readable, if it is not."""
        with contextlib.suppress(BlockingIOError):
            self._writer.send(b"x")

    def clear(self) -> None:
        """Make it not readable, if it is."""
        with contextlib.suppress(BlockingIOError):
            while self._reader.recv(4096):
                pass
