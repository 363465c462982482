"""A controller as a child process beside private switches, for tests: started, followed, ended by its process id."""

from __future__ import annotations

import errno
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest

from tests.support.private_ovs import Ovs
from tests.support.waiting import PATIENCE, eventually

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Controller:
    """Context manager: `romana-ovs controller` over `remotes`, following `manifests`, with its events."""

    remotes: Sequence[str]
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="rctl-")))
    settings: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None
    environment: dict[str, str] | None = None

    @property
    def manifests(self) -> Path:
        """The folder that it follows."""
        return self.folder / "manifests"

    @property
    def openflow(self) -> str:
        """The socket on which it listens for switches."""
        return str(self.folder / "of.sock")

    @property
    def log(self) -> str:
        """All that it said."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def __enter__(self) -> Self:
        self.manifests.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def write(self, name: str, text: str) -> None:
        """Put a manifest in place as an editor would."""
        path = self.manifests / f".{name}.new"
        path.write_text(text)
        path.rename(self.manifests / name)

    def start(self, argv: Sequence[str] = (sys.executable, "-m", "romana_ovs", "controller")) -> None:
        """Start it, again too; returns when its status feed is there."""
        conf = self.folder / "romana.conf"
        conf.write_text(
            f"[romana]\nmanifests = {self.manifests}\novsdb = {','.join(self.remotes)}\n"
            f"state_file = {self.folder}/state\nstatus_socket = {self.folder}/status.sock\n{self.settings}\n"
        )
        (self.folder / "status.sock").unlink(missing_ok=True)
        options = ["--config-file", str(conf), "--ofp-listen-host", self.openflow]
        program, rest = ([*argv, *options], []) if "romana_ovs.app" not in argv else ([argv[0], *options], argv[1:])
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([*program, *rest], stdout=log, stderr=log, cwd=ROOT, env=self.environment)
        self.events = []
        eventually(lambda: self._ended() or (self.folder / "status.sock").exists(), "the status socket")
        if self.process.poll() is not None:
            pytest.fail(f"the controller ended:\n{self.log}")
        threading.Thread(target=self._follow, args=(self.events,), daemon=True).start()

    def _ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def _follow(self, events: list[dict[str, Any]]) -> None:
        status = socket.socket(socket.AF_UNIX)
        try:
            while status.connect_ex(str(self.folder / "status.sock")) == errno.ECONNREFUSED:
                time.sleep(0.02)  # It is bound, and not listened on yet.
            for line in status.makefile():
                events.append(json.loads(line))
        except OSError:
            return

    def stop(self, number: int = signal.SIGTERM) -> int | None:
        """End it; returns its exit status."""
        if self.process is None:
            return None
        self.process.send_signal(number)
        status = self.process.wait(PATIENCE)
        self.process = None
        return status

    @property
    def state(self) -> dict[str, Any]:
        """The last state that it told."""
        return next((event for event in reversed(self.events) if event["event"] == "state"), {})

    def programmed(self) -> list[dict[str, Any]]:
        """Every `programmed` event so far."""
        return [event for event in self.events if event["event"] == "programmed"]

    def until(self, check: Callable[[dict[str, Any]], object], what: str) -> dict[str, Any]:
        """The first state that `check` likes."""
        limit = time.monotonic() + PATIENCE
        while time.monotonic() < limit:
            state = self.state
            if state and check(state):
                return state
            time.sleep(0.02)
        pytest.fail(f"never happened: {what}; last state {self.state}; log:\n{self.log[-3000:]}")

    def settled(self, nodes: int = 1) -> dict[str, Any]:
        """The state once every node has the present generation."""

        def check(state: dict[str, Any]) -> bool:
            found = [node for node in state["nodes"].values() if node["connected"]]
            return len(found) >= nodes and all(
                node["state"] == "synced" and node["synced_generation"] == state["generation"] for node in found
            )

        return self.until(check, f"{nodes} switches have everything")

    def after_change(self, change: Callable[[], object], nodes: int = 1) -> dict[str, Any]:
        """The state once every switch has what `change` brought."""
        before = self.settled(nodes)["generation"]
        change()
        self.until(lambda state: state["generation"] > before, "the change is noticed")
        return self.settled(nodes)


def sent_during(ovs: Ovs, bridge: str, action: Callable[[], object]) -> list[str]:
    """The OpenFlow messages that change flows or meters which a bridge got while `action` ran, by ovs-ofctl's snooping.

    Its controller must be connected in the end.
    """
    heard = ovs.folder / "snoop"
    argv = ["ovs-ofctl", "-vvconn:console:dbg", "snoop", f"unix:{ovs.folder}/{bridge}.snoop"]
    with heard.open("w") as out:
        snoop = subprocess.Popen(argv, stdout=out, stderr=out, env=ovs.environment)
    try:
        eventually(lambda: "negotiated OpenFlow version" in heard.read_text(), "the bridge is listened to")
        action()
        # The bridge tells its controller of this after all that the controller had told the bridge.
        ovs.ofctl(bridge, "mod-port", bridge, "no-packet-in")
        eventually(lambda: "NO_PACKET_IN" in heard.read_text(), "the mark is heard")
        ovs.ofctl(bridge, "mod-port", bridge, "packet-in")
    finally:
        snoop.terminate()
        snoop.wait(PATIENCE)
    lines = heard.read_text().splitlines()
    return [line for line in lines if re.match("OFPT_(FLOW_MOD|METER_MOD|BUNDLE)", line)]
