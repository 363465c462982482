"""A private Open vSwitch whose ports are made of thin air: packets go in as bytes and come out in captures.

The dummy datapath is the userspace one (flow tables, megaflows, conntrack and all) over ports without devices.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from romana_ovs_emulate.patience import patience
from romana_ovs_emulate.system import ovs_schema

DEADLINE_SECONDS = patience(20.0)


class DummySwitch:
    """Bridge br0 with the given ports (name -> OpenFlow number); `LOCAL` is br0's own."""

    def __init__(self, rundir: Path, ports: Mapping[str, int]) -> None:
        self.rundir = rundir
        self.numbers = {**ports, "br0": 65534}
        self.environment = {**os.environ, **dict.fromkeys(("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"), str(rundir))}
        self._read: dict[str, int] = {}
        self._sent: dict[str, int] = dict.fromkeys(self.numbers, 0)

    def run(self, *command: str, text: str | None = None) -> str:
        """Run an Open vSwitch tool against this instance and return what it prints."""
        done = subprocess.run(command, env=self.environment, input=text, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
        return done.stdout

    def start(self) -> None:
        """Start database and switch, and make the bridge."""
        database = str(self.rundir / "conf.db")
        self.run("ovsdb-tool", "create", database, str(ovs_schema()))
        daemon = ("--pidfile", "--detach", "--no-chdir", "--log-file")
        self.run("ovsdb-server", database, f"--remote=punix:{self.rundir}/db.sock", *daemon)
        self.run("ovs-vsctl", "--no-wait", "init")
        self.run("ovs-vswitchd", f"unix:{self.rundir}/db.sock", "--enable-dummy", *daemon)
        self.make_bridge()
        self.run("ovs-ofctl", "-O", "OpenFlow15", "set-frags", "br0", "nx-match")

    def make_bridge(self) -> None:
        """Make the bridge and its ports."""
        command = ["ovs-vsctl", "add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=dummy"]
        command += ["fail_mode=secure", "protocols=OpenFlow15"]
        for name, number in self.numbers.items():
            if name != "br0":
                command += ["--", "add-port", "br0", name, "--", "set", "interface", name, "type=dummy"]
                command += [f"ofport_request={number}"]
            command += ["--", "set", "interface", name, f"options:tx_pcap={self.rundir}/{name}.pcap"]
        self.run(*command)

    def stop(self) -> None:
        """End both daemons by their pids."""
        for pidfile in self.rundir.glob("*.pid"):
            with contextlib.suppress(ProcessLookupError, ValueError):
                os.kill(int(pidfile.read_text()), 9)

    def load(self, lines: list[str]) -> None:
        """Replace all flows, as one bundle."""
        self.run("ovs-ofctl", "-O", "OpenFlow15", "--bundle", "replace-flows", "br0", "-", text="\n".join(lines))

    def conntrack(self) -> str:
        """The conntrack table as text."""
        return self.run("ovs-appctl", "dpctl/dump-conntrack", "-m")

    def flush(self) -> None:
        """Forget every connection, as a restart would."""
        self.run("ovs-appctl", "dpctl/flush-conntrack")

    def send(self, port: str, *frames: bytes) -> dict[str, list[bytes]]:
        """What came out of which port because of `frames` coming in by `port`; ports that stayed quiet are absent.

        The switch's one forwarding thread also answers for its counters: once they have counted the
        frames, what the frames caused has happened.
        """
        before = self._received(port)
        for frame in frames:
            self.run("ovs-appctl", "netdev-dummy/receive", port, frame.hex())
        end = time.monotonic() + DEADLINE_SECONDS
        while self._received(port) < before + len(frames):
            if time.monotonic() > end:
                raise TimeoutError(f"{port} did not receive {len(frames)} frames")
        return {name: out for name in self.numbers if (out := self._captured(name))}

    def _received(self, port: str) -> int:
        number = "LOCAL" if port == "br0" else str(self.numbers[port])
        text = self.run("ovs-ofctl", "-O", "OpenFlow15", "dump-ports", "br0", number)
        return int(text.partition("rx pkts=")[2].partition(",")[0])

    def _captured(self, name: str) -> list[bytes]:
        data = (self.rundir / f"{name}.pcap").read_bytes() if (self.rundir / f"{name}.pcap").exists() else b""
        position = self._read.get(name, 24)
        frames = []
        while position + 16 <= len(data):
            length = struct.unpack_from("=I", data, position + 8)[0]
            frames.append(data[position + 16 : position + 16 + length])
            position += 16 + length
        self._read[name] = position
        return frames


@contextlib.contextmanager
def dummy_switch(ports: Mapping[str, int]) -> Iterator[DummySwitch]:
    """A running DummySwitch that is gone afterwards."""
    rundir = Path(tempfile.mkdtemp(prefix="romana-dummy-"))
    switch = DummySwitch(rundir, ports)
    try:
        switch.start()
        yield switch
    finally:
        switch.stop()
        shutil.rmtree(rundir, ignore_errors=True)
