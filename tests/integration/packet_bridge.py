"""Runs a bridge for packets as bytes on the datapath that ROMANA_DATAPATH names: dummy interfaces, or veth pairs.

Tests that only send and receive frames, load flows and read connections run on both.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from romana_ovs.model.bridge import DatapathType
from romana_ovs.simulator.conntrack_behaviour import BEHAVIOURS, ConntrackBehaviour
from tests.integration.dummy_interfaces import DummyOvs, interface
from tests.integration.dummy_switch import DummySwitch
from tests.integration.veth_ports import BRIDGE, MARKER_FLOWS, MARKER_NAME, MARKER_PORT, VethPorts
from tests.support.datapath import datapath_type


class VethOvs(DummyOvs):
    """One bridge `br0` on the kernel's datapath."""

    marker_flows = MARKER_FLOWS

    def __init__(self, ports: tuple[int, ...]) -> None:
        super().__init__(ports)
        self._veths = VethPorts(interface(port) for port in ports)

    def _make_bridge(self) -> None:
        self._veths.make()
        words = ["add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "datapath_type=system", "fail-mode=secure"]
        for port in (*self.ports, MARKER_PORT):
            name = interface(port)
            if name != BRIDGE:
                words += ["--", "add-port", BRIDGE, name, "--", "set", "interface", name, f"ofport_request={port}"]
        self.run("ovs-vsctl", f"--db=unix:{self.directory}/db.sock", "--timeout=60", *words)
        self._finish_bridge()
        self._veths.open()

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self.run("ovs-vsctl", f"--db=unix:{self.directory}/db.sock", "--timeout=30", "del-br", BRIDGE)
        super().__exit__()
        self._veths.close()

    def send(self, port: int, frame: bytes) -> list[tuple[int, bytes]]:
        """What leaves by which port when `frame` comes in, sorted by port."""
        numbers = {interface(number): number for number in self.ports}
        received = self._veths.exchange(interface(port), frame)
        return sorted(((numbers[name], data) for name, data in received), key=lambda one: one[0])


class VethSwitch(DummySwitch):
    """Bridge br0 on the kernel's datapath with the given ports (name -> OpenFlow number)."""

    def __init__(self, rundir: Path, ports: Mapping[str, int]) -> None:
        super().__init__(rundir, ports)
        self._veths = VethPorts(ports)

    def make_bridge(self) -> None:
        """Make the bridge and its ports."""
        self._veths.make()
        command = ["ovs-vsctl", "--timeout=60", "add-br", BRIDGE, "--", "set", "bridge", BRIDGE]
        command += ["datapath_type=system", "fail_mode=secure", "protocols=OpenFlow15"]
        for name, number in {**self.numbers, MARKER_NAME: MARKER_PORT}.items():
            if name != BRIDGE:
                command += ["--", "add-port", BRIDGE, name, "--", "set", "interface", name, f"ofport_request={number}"]
        self.run(*command)
        self._veths.open()

    def stop(self) -> None:
        """Remove the bridge, end both daemons, and remove the pairs."""
        with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
            self.run("ovs-vsctl", "--timeout=30", "del-br", BRIDGE)
        super().stop()
        self._veths.close()

    def load(self, lines: list[str]) -> None:
        """Replace all flows, as one bundle; no megaflow of the former ones is left."""
        super().load([*lines, *MARKER_FLOWS])
        self.run("ovs-appctl", "revalidator/purge")

    def send(self, port: str, *frames: bytes) -> dict[str, list[bytes]]:
        """What came out of which port because of `frames` coming in by `port`; ports that stayed quiet are absent."""
        out: dict[str, list[bytes]] = {}
        for frame in frames:
            for name, data in self._veths.exchange(port, frame):
                out.setdefault(name, []).append(data)
        return out


def packet_ovs(ports: tuple[int, ...]) -> DummyOvs:
    """A bridge by port numbers, to use in a `with` statement."""
    return VethOvs(ports) if datapath_type() is DatapathType.SYSTEM else DummyOvs(ports)


@contextlib.contextmanager
def packet_switch(ports: Mapping[str, int]) -> Iterator[DummySwitch]:
    """A running bridge by port names that is gone afterwards."""
    rundir = Path(tempfile.mkdtemp(prefix="romana-dummy-"))
    switch = (VethSwitch if datapath_type() is DatapathType.SYSTEM else DummySwitch)(rundir, ports)
    try:
        switch.start()
        yield switch
    finally:
        switch.stop()
        shutil.rmtree(rundir, ignore_errors=True)


def behaviour(ovs: DummyOvs) -> ConntrackBehaviour:
    """What the conntrack of a bridge does. Whether it tracks SCTP by ports is asked of it: versions differ in that."""
    return replace(BEHAVIOURS[datapath_type()], sctp_ports=ovs.sctp_ports)
