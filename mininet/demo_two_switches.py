"""Runs the demonstration's pods on Mininet with two switches: `mininet/demo_two_switches.py [FOLDER [DATAPATH]]`.

DATAPATH is that of the switches in Mininet's words, `user` (the default) or `kernel`. Needs root, Mininet and a running
Open vSwitch (its own one when OVS_RUNDIR names a private instance). Starts the controller, gives every host the address
that the controller chose for its pod, serves HTTP on port 80 in each, and prints who reaches whom, beside what the
reference evaluation expects. Exits 1 if they differ.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mininet.log import setLogLevel
from mininet.net import Mininet

from romana_ovs.config import load_settings
from romana_ovs.kube.manifests.load import load
from romana_ovs.model.connection import PortRef
from romana_ovs.policy.matrix import Matrix, PodPath, reachability

sys.path.insert(0, str(Path(__file__).resolve().parent))
from romana_topo import PodHost, RomanaController, RomanaTopo

NODES = 2
PORT = PortRef.parse("80/tcp")
WAIT_SECONDS = 30.0
CURL_SECONDS = 1.5


def main() -> int:
    """0 when every pair of pods reaches each other exactly as expected."""
    setLogLevel("warning")
    here = Path(__file__).resolve().parents[1]
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else here / "etc" / "demo"
    datapath = sys.argv[2] if len(sys.argv) > 2 else "user"
    cluster = load(folder, load_settings(folder), nodes=NODES).cluster
    keys = tuple(sorted(key for key, pod in cluster.pods.items() if pod.networked))
    with tempfile.TemporaryDirectory(prefix="romana-mn-") as name:
        port = free_port()
        controller = start_controller(folder, Path(name), port)
        await_file(Path(name) / "status.sock")
        net = Mininet(topo=RomanaTopo(nodes=NODES, names=keys, datapath=datapath), host=PodHost, controller=None)
        try:
            net.addController("c0", controller=RomanaController, port=port)
            net.start()
            pods = settle(Path(name) / "status.sock", len(keys))
            hosts = {host.pod: host for host in net.hosts}
            for pod, seen in pods.items():
                hosts[pod].become(seen["address"], seen["mac"])
            addresses = {pod: seen["address"] for pod, seen in pods.items()}
            measured = measure(hosts, addresses)
        finally:
            net.stop()
            controller.send_signal(signal.SIGTERM)
            controller.wait()
    expected = reachability(cluster, {}, [PORT])
    for opening in measured.open_paths():
        print(f"{opening.source} -> {opening.destination} {opening.port}")
    wrong = set(measured.open_paths()) ^ set(expected.open_paths())
    for opening in sorted(wrong):
        print(f"WRONG: {opening}", file=sys.stderr)
    return 1 if wrong else 0


def start_controller(folder: Path, scratch: Path, port: int) -> subprocess.Popen[bytes]:
    """The controller's process, driving the Open vSwitch that the environment names."""
    rundir = os.environ.get("OVS_RUNDIR", "/var/run/openvswitch")
    config = scratch / "romana.conf"
    config.write_text(
        f"[romana]\nmanifests = {folder}\nnodes = {NODES}\novsdb = unix:{rundir}/db.sock\n"
        f"status_socket = {scratch}/status.sock\n"
    )
    files = [path for path in (folder / "romana.conf", config) if path.is_file()]
    options = [word for path in files for word in ("--config-file", str(path))]
    with (scratch / "controller.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "romana_ovs", "controller", *options, "--ofp-tcp-listen-port", str(port)],
            stdout=log,
            stderr=log,
        )


def await_file(path: Path) -> None:
    """Return once the file is there. Raises TimeoutError."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the controller does not report at {path}")
        time.sleep(0.05)


def settle(path: Path, count: int) -> dict[str, dict[str, Any]]:
    """The pods as the controller placed them, once every switch has everything. Raises TimeoutError."""
    with socket.socket(socket.AF_UNIX) as status:
        status.connect(str(path))
        status.settimeout(WAIT_SECONDS)
        for line in status.makefile("rb"):
            event = json.loads(line)
            if event["event"] != "state" or len(event["pods"]) < count:
                continue
            synced = [node["synced_generation"] for node in event["nodes"].values()]
            ports = [pod["port"] for pod in event["pods"].values()]
            if None not in (*synced, *ports) and min(synced) >= event["generation"]:
                return event["pods"]
    raise TimeoutError("the controller ended")


def measure(hosts: dict[str, Any], addresses: dict[str, str]) -> Matrix:
    """Who fetches from whom by HTTP, all pairs at once."""
    servers = [
        host.popen(
            [sys.executable, "-m", "http.server", str(PORT.port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for host in hosts.values()
    ]
    try:
        for host, server in zip(hosts.values(), servers, strict=True):
            await_server(host, server)
        asked = {
            PodPath(source, destination, str(PORT)): hosts[source].popen(
                ["curl", "-s", "-o", "/dev/null", "-m", str(CURL_SECONDS), f"http://{address}/"]
            )
            for source in addresses
            for destination, address in addresses.items()
            if source != destination
        }
        opened = [opening for opening, process in asked.items() if process.wait() == 0]
    finally:
        for server in servers:
            server.terminate()
            server.wait()
    return Matrix.of(addresses, [str(PORT)], opened)


def await_server(host: Any, server: subprocess.Popen[bytes]) -> None:
    """Return once `server` listens. Raises RuntimeError when it ends instead, TimeoutError when it does neither."""
    deadline = time.monotonic() + WAIT_SECONDS
    while host.cmd(f"ss -Hltn sport = :{PORT.port}").strip() == "":
        if server.poll() is not None:
            raise RuntimeError(f"the HTTP server of {host.name} ended with status {server.returncode}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"the HTTP server of {host.name} does not listen")
        time.sleep(0.05)


def free_port() -> int:
    """A TCP port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
