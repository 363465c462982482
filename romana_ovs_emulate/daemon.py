"""Runs a program in the background, with a log in the run folder."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from romana_ovs_emulate.patience import patience
from romana_ovs_emulate.runs import Run
from romana_ovs_emulate.system import inside

END_SECONDS = patience(10.0)
"""How long it may take to end on SIGTERM, in seconds."""
LOG_LINES = 12


class Daemon:
    """One program of a run. It can be stopped (or killed) and started again."""

    def __init__(self, run: Run, program: Path, *, niceness: int = 0, netns: str = "", name: str = "") -> None:
        """Nothing is started yet; `niceness` is that of nice(1), `netns` a network namespace other than this one.

        `name`, by default the program's, is that of its log.
        """
        self.name = name or program.name
        self.log = run.folder / f"{self.name}.log"
        command = ["nice", "-n", str(niceness), str(program)] if niceness else [str(program)]
        self._command = inside(netns, command) if netns else command
        self._run = run
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its process id, None while it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def running(self) -> bool:
        """Whether its process exists."""
        return self.pid is not None

    def start(self, arguments: Sequence[str], *, env: Mapping[str, str] | None = None) -> None:
        """Start it in a session of its own, so that Ctrl-C on the terminal does not end it.

        `env` is its environment, by default that of this process.
        """
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._run.folder,
                env=env,
                start_new_session=True,
            )
        self._run.record(self._process.pid)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal (SIGSTOP, SIGCONT, ...); does nothing when it does not run."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def stop(self) -> None:
        """Send SIGTERM, and SIGKILL when that takes too long. Idempotent."""
        self.signal(signal.SIGTERM)
        if self._process is not None:
            try:
                self._process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """Send SIGKILL and wait. Idempotent."""
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def log_tail(self) -> str:
        """The end of its log."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_LINES:])
        except FileNotFoundError:
            return ""
