"""The Kubernetes process as its controller has it: spoken to, and listened to."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from romana_ovs.kube.api.messages import FrameReader, frame

SECONDS = 60.0
"""What anything may take on a loaded machine."""
COMMAND = [sys.executable, "-m", "romana_ovs.kube.api.process"]


class KubeProcess:
    """The process, and what it has said; `heard` is told of every message as it comes."""

    def __init__(self, heard: Callable[[Any], None] = lambda message: None) -> None:
        self.process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self.said: list[Any] = []
        self._reader = FrameReader()
        self._last_data = heard

    def send(self, *messages: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"".join(map(frame, messages)))

    def until(self, wanted: Callable[[Any], bool], *, anew: bool = False) -> Any:
        """The first message of this kind, of those that come now only with `anew`; raises when it does not come."""
        watchdog = threading.Timer(SECONDS, self.process.kill)
        watchdog.start()
        try:
            for message in () if anew else self.said:
                if wanted(message):
                    return message
            for message in self._coming():
                if wanted(message):
                    return message
            raise AssertionError(f"it ended, or it did not come in {SECONDS} s, after {self.said[-20:]}")
        finally:
            watchdog.cancel()

    def _coming(self) -> Iterator[Any]:
        assert self.process.stdout is not None
        while data := os.read(self.process.stdout.fileno(), 65536):
            came = self._reader.feed(data)
            self.said += came
            for message in came:
                self._last_data(message)
            yield from came


@contextmanager
def kubernetes_process(heard: Callable[[Any], None] = lambda message: None) -> Iterator[KubeProcess]:
    """A running process, which is ended in the end."""
    made = KubeProcess(heard)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()
        for pipe in (made.process.stdin, made.process.stdout):
            if pipe is not None:
                pipe.close()
