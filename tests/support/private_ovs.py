"""A private Open vSwitch for tests: its own databases, daemons and bridges under one temporary directory.

Ended by process id; nothing of the system's own Open vSwitch is touched.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from romana_ovs.pipeline.flow import Flow
from romana_ovs.switch.wire import ReadFlow, flows_request, message, read_flows
from romana_ovs_emulate.system import ovs_schema
from tests.support.datapath import datapath_type
from tests.support.waiting import PATIENCE, eventually

START_SWITCH = f"""
ip link set lo up
cd "$OVS_RUNDIR"
ovsdb-tool create conf.db {ovs_schema()}
ovsdb-server conf.db --remote=punix:db.sock --pidfile=o.pid --detach --log-file=o.log -vconsole:off
ovs-vsctl --no-wait init
ovs-vswitchd unix:db.sock --pidfile=v.pid --detach --log-file=v.log -vconsole:off
"""
"""Shell commands that start a switch in the folder $OVS_RUNDIR; the working folder is that one afterwards."""

needs_ovs = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ovs-vswitchd") is None, reason="needs root and Open vSwitch"
)


@dataclass
class Ovs:
    """A running private Open vSwitch: context manager.

    `netns` names an existing network namespace for its switch; without one it has a namespace that ends with it.
    `flags` are further ones for ovs-vswitchd.
    """

    netns: str | None = None
    flags: tuple[str, ...] = ()
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="rovs-")))

    def __enter__(self) -> Ovs:
        try:
            self.run(["ovsdb-tool", "create", f"{self.folder}/conf.db", str(ovs_schema())])
            self._daemon("ovsdb-server", f"{self.folder}/conf.db", f"--remote=p{self.remote}")
            self.vsctl("--no-wait", "init")
            self.start_switch()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for program in ("ovs-vswitchd", "ovsdb-server"):
            self._end(program)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def environment(self) -> dict[str, str]:
        """What Open vSwitch's programs need to leave the system's own alone."""
        places = ("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR")
        return {**os.environ, **dict.fromkeys(places, str(self.folder))}

    @property
    def remote(self) -> str:
        """Its database, as Open vSwitch writes connections."""
        return f"unix:{self.folder}/db.sock"

    def management(self, bridge: str) -> str:
        """Where `ovs-ofctl` reaches a bridge."""
        return f"unix:{self.folder}/{bridge}.mgmt"

    def run(self, argv: Sequence[str], stdin: str | None = None) -> str:
        """The output of a program in this instance's environment. Fails the test when it fails."""
        env = self.environment
        done = subprocess.run(argv, env=env, input=stdin, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            pytest.fail(f"{' '.join(argv)}: {done.stderr}")
        return done.stdout

    def vsctl(self, *words: str) -> str:
        """The output of ovs-vsctl, which waits until the switch has followed (unless --no-wait)."""
        return self.run(["ovs-vsctl", f"--db={self.remote}", "--timeout=20", *words])

    def ofctl(self, bridge: str, command: str, *words: str, stdin: str | None = None) -> str:
        """The output of an ovs-ofctl command on a bridge."""
        return self.run(["ovs-ofctl", "-O", "OpenFlow15", command, self.management(bridge), *words], stdin)

    def appctl(self, *words: str) -> str:
        """The output of an ovs-appctl command to the switch process."""
        return self.run(["ovs-appctl", "-t", "ovs-vswitchd", *words])

    def start_switch(self) -> None:
        """Start ovs-vswitchd, also again after it was killed."""
        self._daemon("ovs-vswitchd", self.remote, *self.flags, netns=self.netns)

    def kill_switch(self) -> None:
        """End ovs-vswitchd as a crash would."""
        self._end("ovs-vswitchd")

    def bridge(self, name: str, *, node: str | None = None, controller: str | None = None) -> None:
        """A secure bridge of `node` on the datapath of this run; `controller` is a socket's path or a `tcp:` target."""
        datapath = f"datapath_type={datapath_type().value}"
        words = ["add-br", name, "--", "set", "bridge", name, datapath, "fail_mode=secure"]
        if node is not None:
            words.append(f"external_ids:romana-node={node}")
        if controller is not None:
            words += self._controller(name, controller)
        self.vsctl(*words)

    def _controller(self, name: str, controller: str) -> list[str]:
        if not controller.startswith("tcp:"):
            link = self.folder / "controller.sock"
            if not link.is_symlink():
                link.symlink_to(controller)
            controller = f"unix:{link}"
        return [
            "--",
            "set-controller",
            name,
            controller,
            "--",
            "set",
            "controller",
            name,
            "connection_mode=out-of-band",
            "type=service",
            "max_backoff=1000",
        ]

    def port(self, bridge: str, name: str, *, iface_id: str | None = None, ofport: int | None = None) -> None:
        """A port without any network behind it (an internal one), with `iface-id` when given."""
        words = ["add-port", bridge, name, "--", "set", "interface", name, "type=internal"]
        words += [f"ofport_request={ofport}"] if ofport is not None else []
        words += [f"external_ids:iface-id={iface_id}"] if iface_id is not None else []
        self.vsctl(*words)

    def flows(self, bridge: str) -> list[str]:
        """What ovs-ofctl shows of a bridge's flows, without counters, sorted."""
        shown = self.run(
            [
                "ovs-ofctl",
                "-O",
                "OpenFlow15",
                "--no-stats",
                "--sort",
                "dump-flows",
                self.management(bridge),
            ]
        )
        return sorted(line.strip() for line in shown.splitlines() if "actions=" in line)

    def _daemon(self, program: str, *words: str, netns: str | None = None) -> None:
        pidfile = f"--pidfile={self.folder}/{program}.pid"
        # Two userspace switches in one namespace collide over the device `ovs-netdev`, so each has its own.
        inside = ["ip", "netns", "exec", netns] if netns else ["unshare", "--net"]
        log = f"--log-file={self.folder}/{program}.log"
        self.run([*inside, program, *words, pidfile, log, "--detach", "--no-chdir", "-vconsole:off"])

    def _end(self, program: str) -> None:
        """End it at once: nothing in here is worth an orderly farewell."""
        pidfile = self.folder / f"{program}.pid"
        if not pidfile.exists():
            return
        pid = int(pidfile.read_text())
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: _gone(pid), f"{program} ends")
        pidfile.unlink(missing_ok=True)


def _gone(pid: int) -> bool:
    """Whether a process has ended, though perhaps nobody has asked how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except (FileNotFoundError, ProcessLookupError):  # It ended before, or while it was read.
        return True


class RawSwitch:
    """An OpenFlow 1.5 conversation with a bridge's management socket, without any controller."""

    def __init__(self, ovs: Ovs, bridge: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(ovs.management(bridge).removeprefix("unix:"))
        self._socket.sendall(message(0, 1))
        self.receive()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send whole messages as they are."""
        self._socket.sendall(data)

    def receive(self) -> tuple[int, int, bytes]:
        """(type, xid, body) of the next message."""
        version, kind, length, xid = struct.unpack("!BBHI", self._exactly(8))
        assert version == 6
        return kind, xid, self._exactly(length - 8)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self._socket.recv(count - len(data))
            assert more, "the switch hung up"
            data += more
        return data

    def barrier(self) -> list[bytes]:
        """Bodies of the errors that came before the reply to a barrier."""
        self.send(message(20, 77))
        errors: list[bytes] = []
        while True:
            kind, _, body = self.receive()
            if kind == 21:
                return errors
            if kind == 1:
                errors.append(body)

    def read(self) -> list[ReadFlow]:
        """Every flow of the bridge."""
        self.send(flows_request(78))
        found: list[ReadFlow] = []
        while True:
            kind, _, body = self.receive()
            if kind != 19:
                continue
            found += read_flows(memoryview(body)[8:])
            if not struct.unpack_from("!H", body, 2)[0] & 1:
                return found


def by_key(counted: list[ReadFlow]) -> dict[object, Flow]:
    """Flows of ours by their key."""
    return {item.flow.key: item.flow for item in counted if item.ours}


def ofports(ovs: Ovs) -> set[str]:
    """The in_port matches of the bridge's flows."""
    return {word for line in ovs.flows("br-int") for word in line.replace(" ", ",").split(",") if "in_port=" in word}
