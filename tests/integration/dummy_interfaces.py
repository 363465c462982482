"""A private Open vSwitch with dummy interfaces: frames go in and come out without any real network.

Everything lives under one temporary directory; the two daemons are ended by process id.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import struct
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from ovs.unixctl.client import UnixctlClient

from romana_ovs.simulator.packet import Addresses, sctp
from romana_ovs_emulate.patience import patience
from romana_ovs_emulate.system import ovs_schema
from tests.integration.wire import MARKER, frame

MARKER_PORT = 999
LOCAL = 0xFFFE
_MARKER_FLOWS = (f"table=0,priority=65535,dl_type=0x{MARKER[12:14].hex()} actions=output:{MARKER_PORT}",)
_PROBED = Addresses.of("192.0.2.1", "192.0.2.2")
_PROBE_ZONE = 65534
PCAP_HEADER = 24
RECORD_HEADER = 16
PATIENCE = patience(20.0)
"""Seconds to wait for what takes milliseconds on an idle machine."""


def wanted() -> bool:
    """Whether this machine can run it at all."""
    return os.geteuid() == 0 and all(shutil.which(tool) for tool in ("ovs-vswitchd", "ovsdb-server", "ovs-ofctl"))


@dataclass
class DummyOvs:
    """One bridge `br0` on a dummy datapath; `ports` are OpenFlow numbers of dummy interfaces (LOCAL among them)."""

    ports: tuple[int, ...]
    directory: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="romana-dummy-")))
    _client: UnixctlClient | None = None
    _read: dict[int, int] = field(default_factory=dict)
    marker_flows: ClassVar[tuple[str, ...]] = _MARKER_FLOWS

    def __enter__(self) -> DummyOvs:
        run = str(self.directory)
        self._env = {**os.environ, "OVS_RUNDIR": run, "OVS_LOGDIR": run, "OVS_DBDIR": run, "OVS_SYSCONFDIR": run}
        common = ["--detach", "--no-chdir", f"--log-file={run}/log"]
        try:
            self.run("ovsdb-tool", "create", f"{run}/conf.db", str(ovs_schema()))
            self.run(
                "ovsdb-server", f"{run}/conf.db", f"--remote=punix:{run}/db.sock", f"--pidfile={run}/db.pid", *common
            )
            self.run("ovs-vsctl", f"--db=unix:{run}/db.sock", "--no-wait", "init")
            self.run(
                "ovs-vswitchd",
                f"unix:{run}/db.sock",
                f"--pidfile={run}/vs.pid",
                "--enable-dummy",
                f"--unixctl={run}/vs.ctl",
                *common,
            )
            self._make_bridge()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.close()
        for name in ("vs.pid", "db.pid"):
            path = self.directory / name
            if path.exists():
                _end(int(path.read_text()))
        shutil.rmtree(self.directory, ignore_errors=True)

    def _make_bridge(self) -> None:
        words = ["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=dummy", "fail-mode=secure"]
        for port in (*self.ports, MARKER_PORT):
            name = interface(port)
            if port != LOCAL:
                words += ["--", "add-port", "br0", name, "--", "set", "interface", name, "type=dummy"]
                words += [f"ofport_request={port}"]
            words += ["--", "set", "interface", name, f"options:tx_pcap={self._pcap(port)}"]
        self.run("ovs-vsctl", f"--db=unix:{self.directory}/db.sock", *words)
        self._finish_bridge()

    def _finish_bridge(self) -> None:
        self.ofctl("set-frags", "br0", "nx-match")
        error, self._client = UnixctlClient.create(f"{self.directory}/vs.ctl")
        assert error == 0, f"no control socket: {error}"

    def _pcap(self, port: int) -> Path:
        return self.directory / f"p{port}.pcap"

    def run(self, *words: str) -> str:
        """Run a command of this instance; its standard output."""
        done = subprocess.run(words, env=self._env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
        return done.stdout

    def ofctl(self, command: str, *words: str) -> str:
        """Run `ovs-ofctl -O OpenFlow15 COMMAND`."""
        return self.run("ovs-ofctl", "-O", "OpenFlow15", command, *words)

    def appctl(self, command: str, *words: str) -> str:
        """Ask the running ovs-vswitchd."""
        assert self._client is not None
        error, failure, answer = self._client.transact(command, list(words))
        assert not error and failure is None, f"{command} {words}: {failure}"
        return str(answer)

    @functools.cached_property
    def sctp_ports(self) -> bool:
        """Whether it tracks SCTP by ports, as a connection in a zone of its own shows."""
        packet = f"in_port=controller,packet={frame(sctp(_PROBED, 5, 6)).hex()},actions=ct(commit,zone={_PROBE_ZONE})"
        self.ofctl("packet-out", "br0", packet)
        dump = self.appctl("dpctl/dump-conntrack", f"zone={_PROBE_ZONE}")
        self.appctl("dpctl/flush-conntrack", f"zone={_PROBE_ZONE}")
        assert dump.startswith("sctp,"), dump
        return "sport=5,dport=6" in dump

    def program(self, text: str) -> None:
        """Replace all flows by those of `text`, and one that lets the marker frame through."""
        path = self.directory / "flows"
        path.write_text(f"{text.rstrip()}\n{self._marker_text()}")
        self.ofctl("del-flows", "br0")
        self.ofctl("add-flows", "br0", str(path))

    def _marker_text(self) -> str:
        return "".join(f"{line}\n" for line in self.marker_flows)

    def difference(self, text: str) -> tuple[set[str], set[str]]:
        """The flows that the bridge has and those that `text` has instead, as `ovs-ofctl diff-flows` words them.

        In OpenFlow 1.5 an untagged frame is a match on fewer bits than the same words in a file mean, and some
        masks of nw_frag differ though they print alike; what reads the same counts as the same here.
        """
        path = self.directory / "wanted"
        path.write_text(f"{text.rstrip()}\n{self._marker_text()}")
        command = ["ovs-ofctl", "-O", "OpenFlow15", "diff-flows", "br0", str(path)]
        done = subprocess.run(command, env=self._env, capture_output=True, text=True, check=False)
        assert not done.stderr, done.stderr
        lines = done.stdout.replace("vlan_tci=0x0000/0x1fff", "vlan_tci=0x0000").splitlines()
        has, wanted = ({line[1:] for line in lines if line.startswith(sign)} for sign in "-+")
        return has - wanted, wanted - has

    def send(self, port: int, frame: bytes) -> list[tuple[int, bytes]]:
        """What leaves by which port when `frame` comes in, sorted by port."""
        for known in self.ports:
            self._frames(known)
        self.appctl("netdev-dummy/receive", interface(port), frame.hex())
        self.appctl("netdev-dummy/receive", interface(port), MARKER.hex())
        deadline = time.monotonic() + PATIENCE
        while not self._frames(MARKER_PORT):
            assert time.monotonic() < deadline, "the marker frame never came out"
            time.sleep(0.001)
        return [(known, found) for known in self.ports for found in self._frames(known)]

    def _frames(self, port: int) -> list[bytes]:
        """Frames that left by `port` since the last call."""
        data = self._pcap(port).read_bytes()
        position = self._read.get(port, PCAP_HEADER)
        found = []
        while len(data) >= position + RECORD_HEADER:
            (length,) = struct.unpack_from("<I", data, position + 8)
            end = position + RECORD_HEADER + length
            if len(data) < end:
                break
            found.append(data[position + RECORD_HEADER : end])
            position = end
        self._read[port] = position
        return found


def interface(port: int) -> str:
    """The name of the interface with an OpenFlow number."""
    return "br0" if port == LOCAL else f"p{port}"


def _end(pid: int) -> None:
    """End one process of ours and wait until it is gone."""
    deadline = time.monotonic() + PATIENCE
    try:
        os.kill(pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            os.kill(pid, 0)
            if "State:\tZ" in Path(f"/proc/{pid}/status").read_text():
                return
            time.sleep(0.01)
    except (ProcessLookupError, FileNotFoundError):
        return
    os.kill(pid, signal.SIGKILL)
