"""Sends commands to a running ovs-vswitchd over its control socket, like ovs-appctl.

Source: ovs-appctl(8) and unixctl(7): JSON-RPC over a unix socket `ovs-vswitchd.PID.ctl` in the folder of
`ovs-vswitchd.pid`. `ovs.unixctl.client` is not used: it has no deadline, and blocks all green threads.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import eventlet
from eventlet.green import socket

from romana_ovs.model.errors import SwitchError

ANSWER_SECONDS = 2.0
"""Deadline of one command: the main thread answers, which a full table may keep busy."""
MAX_ANSWER = 1 << 22
"""Bytes of one answer; limits of all 65,536 zones are about half of that."""
PROGRAM = "ovs-vswitchd"


class VswitchdUnavailable(SwitchError):
    """The control socket cannot be used; the message has the reason."""


class Vswitchd:
    """The ovs-vswitchd that serves the database at `remote`; its control socket is in the same folder."""

    def __init__(self, remote: str) -> None:
        self._remote = remote

    def transact(self, command: str, *words: str) -> str:
        """The output of a command, as `ovs-appctl` prints it.

        Raises VswitchdUnavailable when the process cannot be reached or does not answer in time, SwitchError when it
        refuses the command.
        """
        path = self._socket_path()
        request = json.dumps({"method": command, "params": list(words), "id": 0}).encode()
        late = VswitchdUnavailable(f"{path}: no answer to {command} within {ANSWER_SECONDS:g} s")
        try:
            with eventlet.Timeout(ANSWER_SECONDS, late):
                answer = exchange(path, request)
        except OSError as error:
            # Green sockets have the name of the error instead of its text.
            raise VswitchdUnavailable(f"{path}: {os.strerror(error.errno) if error.errno else error}") from error
        if answer.get("error") is not None:
            raise SwitchError(f"{command}: {str(answer['error']).strip()}")
        return str(answer.get("result", ""))

    def pid(self) -> int:
        """The process id in its pid file. Raises VswitchdUnavailable."""
        pidfile = self._folder() / f"{PROGRAM}.pid"
        try:
            pid = pidfile.read_text(errors="replace").strip()
        except OSError as error:
            raise VswitchdUnavailable(f"{pidfile}: {error.strerror or error}") from error
        if not (pid.isascii() and pid.isdigit()):
            raise VswitchdUnavailable(f"{pidfile}: no process id in it")
        return int(pid)

    def _socket_path(self) -> Path:
        """The control socket of the running process."""
        return self._folder() / f"{PROGRAM}.{self.pid()}.ctl"

    def _folder(self) -> Path:
        """The folder of its sockets and its pid file. Raises VswitchdUnavailable."""
        if not self._remote.startswith("unix:"):
            raise VswitchdUnavailable(f"the Open vSwitch at {self._remote} has no control socket on this machine")
        return Path(self._remote.removeprefix("unix:")).parent


def exchange(path: Path, request: bytes) -> dict[str, object]:
    """The one JSON object that the program at the socket `path` answers. Raises OSError and VswitchdUnavailable."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(request)
        data = bytearray()
        while len(data) <= MAX_ANSWER:
            more = connection.recv(1 << 16)
            if not more:
                raise VswitchdUnavailable(f"{path}: disconnected without an answer")
            data += more
            # Only a complete answer ends like this; do not parse incomplete ones repeatedly.
            if not data.rstrip().endswith(b"}"):
                continue
            try:
                response = json.loads(data)
            except ValueError:
                continue
            if isinstance(response, dict):
                return response
            break
    raise VswitchdUnavailable(f"{path}: invalid answer")
