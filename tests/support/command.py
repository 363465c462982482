"""Runs `romana-ovs` in processes of their own, and types at the prompt of `emulate`."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue

from romana_ovs_emulate.patience import patience
from tests.support.datapath import datapath_type

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "romana_ovs")


def run_command(*words: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    """The command after its end; it reads an empty input. Raises TimeoutExpired."""
    return subprocess.run(
        [*COMMAND, *on_datapath(words)],
        input="",
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=patience(seconds),
        check=False,
    )


def on_datapath(words: Sequence[str]) -> list[str]:
    """The words of a command, with the datapath of this run if it emulates."""
    emulates = words[:1] and words[0] in ("demo", "emulate") and "--datapath" not in words
    return [words[0], "--datapath", datapath_type().value, *words[1:]] if emulates else list(words)


class Prompt:
    """A running `emulate` with its prompt: lines in, lines out. `said` are the lines that were read."""

    def __init__(self, *words: str) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [*COMMAND, *on_datapath(("emulate", *words))], stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=ROOT
        )
        self.said: list[str] = []
        self._lines: Queue[str] = Queue()
        self._threads = [
            threading.Thread(target=self._read, args=(stream,), daemon=True)
            for stream in (self.process.stdout, self.process.stderr)
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, stream: Iterator[str]) -> None:
        for line in stream:
            self._lines.put(line.rstrip("\n"))

    def ask(self, text: str) -> None:
        """Type one line."""
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def until(self, words: str, seconds: float = 30) -> str:
        """The first line from now on that has `words` in it."""
        deadline = time.monotonic() + patience(seconds)
        while (left := deadline - time.monotonic()) > 0:
            try:
                line = self._lines.get(timeout=left)
            except Empty:
                break
            self.said.append(line)
            if words in line:
                return line
        raise AssertionError(f"{words!r} was not said: {self.said}")

    def end(self) -> int:
        """The exit code after `exit`."""
        self.ask("exit")
        return self.process.wait(30)

    def close(self) -> None:
        """End it, however it is."""
        self.process.terminate()
        self.process.wait(30)
        for thread in self._threads:
            thread.join()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


@contextmanager
def prompts(*, seconds: float = 30) -> Iterator[Callable[..., Prompt]]:
    """Starts `emulate` with the words that it is called with; returns when the prompt is there. All end with it."""
    running: list[Prompt] = []

    def start(*words: str) -> Prompt:
        running.append(Prompt(*words))
        running[-1].until("help lists", seconds)
        return running[-1]

    yield start
    for prompt in running:
        prompt.close()
