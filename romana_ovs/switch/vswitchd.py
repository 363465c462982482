"""Commands to a running ovs-vswitchd over its control socket, as ovs-appctl gives them.

Source: ovs-appctl(8) and unixctl(7): JSON-RPC over a unix socket `ovs-vswitchd.PID.ctl` in the folder where the
process keeps `ovs-vswitchd.pid`. `ovs.unixctl.client` waits without a deadline and, in a green thread, for all others
too: so the little that is needed of it is here.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import eventlet
from eventlet.green import socket

from romana_ovs.model.errors import SwitchError

ANSWER_SECONDS = 2.0
"""How long the process may take for one command: its main thread answers, which a full table may keep for a while."""
MAX_ANSWER = 1 << 22
"""Bytes of one answer; limits of all 65,536 zones are about half of that."""
PROGRAM = "ovs-vswitchd"


class NotThere(SwitchError):
    """The process cannot be asked from here: the sentence says why."""


class Vswitchd:
    """The ovs-vswitchd that serves the database at `remote`; its control socket lies where the database's does."""

    def __init__(self, remote: str) -> None:
        self._remote = remote

    def ask(self, command: str, *words: str) -> str:
        """What the process prints for a command. Raises NotThere when it cannot be asked or does not answer in time,
        SwitchError when it refuses the command.
        """
        path = self._socket_path()
        request = json.dumps({"method": command, "params": list(words), "id": 0}).encode()
        late = NotThere(f"{path}: no answer to {command} within {ANSWER_SECONDS:g} s")
        try:
            with eventlet.Timeout(ANSWER_SECONDS, late):
                answer = _exchange(path, request)
        except OSError as error:
            # Green sockets give the name of the error in place of its words.
            raise NotThere(f"{path}: {os.strerror(error.errno) if error.errno else error}") from error
        if answer.get("error") is not None:
            raise SwitchError(f"{command}: {str(answer['error']).strip()}")
        return str(answer.get("result", ""))

    def _socket_path(self) -> Path:
        """The control socket of the process that runs now."""
        if not self._remote.startswith("unix:"):
            raise NotThere(f"the Open vSwitch at {self._remote} has no control socket on this machine")
        folder = Path(self._remote.removeprefix("unix:")).parent
        pidfile = folder / f"{PROGRAM}.pid"
        try:
            pid = pidfile.read_text(errors="replace").strip()
        except OSError as error:
            raise NotThere(f"{pidfile}: {error.strerror or error}") from error
        if not (pid.isascii() and pid.isdigit()):
            raise NotThere(f"{pidfile}: names no process")
        return folder / f"{PROGRAM}.{pid}.ctl"


def _exchange(path: Path, request: bytes) -> dict[str, object]:
    """The one JSON object that answers `request`. Raises OSError and NotThere."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(request)
        data = bytearray()
        while len(data) <= MAX_ANSWER:
            more = connection.recv(1 << 16)
            if not more:
                raise NotThere(f"{path}: hung up without an answer")
            data += more
            # A whole answer ends so; anything less is not parsed again and again.
            if not data.rstrip().endswith(b"}"):
                continue
            try:
                found = json.loads(data)
            except ValueError:
                continue
            if isinstance(found, dict):
                return found
            break
    raise NotThere(f"{path}: the answer is not understood")
