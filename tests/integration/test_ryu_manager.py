"""The application as users start it by hand, over TCP and a bridge of their own, by both of its commands.

Everything is in network namespaces of one run: bridge and controller in the first, as on a machine, each pod in one.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from romana_ovs_emulate.runs import Run, start_run
from romana_ovs_emulate.system import inside as argv_inside
from romana_ovs_emulate.system import ip_batch, run
from tests.support.datapath import datapath_type
from tests.support.netns_sockets import Attempt, Echo, Page, fetch, pings, within
from tests.support.private_ovs import Ovs
from tests.support.waiting import PATIENCE, eventually

ROOT = Path(__file__).resolve().parents[2]
RYU_MANAGER = Path(sys.executable).with_name("ryu-manager")
PROGRAMS = {
    "ryu-manager": [str(RYU_MANAGER)],
    "romana-ovs controller": [sys.executable, "-m", "romana_ovs", "controller"],
}
END_SECONDS = 2.0
MANIFESTS = """
{apiVersion: v1, kind: Node, metadata: {name: node1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: db, labels: {tier: backend}}, spec: {containers: [{name: c, image: i}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, labels: {tier: frontend}}, spec: {containers: [{name: c, image: i}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: spy, namespace: other}, spec: {containers: [{name: c, image: i}]}}
"""
POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-web, namespace: default}
spec:
  podSelector: {matchLabels: {tier: backend}}
  ingress:
  - from: [{podSelector: {matchLabels: {tier: frontend}}}]
    ports: [{port: 80}]
"""


@dataclass
class Machine:
    """A machine with an Open vSwitch, a manifest folder, and whatever the test attaches."""

    run: Run
    ovs: Ovs
    folder: Path

    @property
    def netns(self) -> str:
        return self.run.netns("host")

    def pod(self, name: str) -> str:
        """The namespace of a pod."""
        return self.run.netns(name)

    def environment(self) -> Mapping[str, str]:
        """What an installed package has anyway: the modules, and the `.pth` file that makes Ryu importable."""
        (self.folder / "sitecustomize.py").write_text(f"import site\nsite.addsitedir({str(ROOT)!r})\n")
        return {**os.environ, "PYTHONPATH": f"{self.folder}:{ROOT}"}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = start_run()
    try:
        host = made.netns("host")
        ip_batch([f"netns add {host}"])
        ip_batch(["link set lo up"], netns=host)
        (tmp_path / "manifests").mkdir()
        with Ovs(netns=host) as ovs:
            yield Machine(made, ovs, tmp_path)
    finally:
        made.close()


def make_bridge(machine: Machine, port: int) -> None:
    machine.ovs.vsctl(
        *(
            f"add-br br-int -- set bridge br-int datapath_type={datapath_type().value} fail_mode=secure"
            " protocols=OpenFlow15 external_ids:romana-node=node1 --"
            f" set-controller br-int tcp:127.0.0.1:{port} --"
            " set controller br-int connection_mode=out-of-band type=service"
        ).split()
    )


def attach(machine: Machine, key: str, address: str) -> None:
    """A network namespace as pod `key`, with the address that `ipam` told."""
    name = key.partition("/")[2]
    space, mac = machine.pod(name), "0a:58:" + ":".join(f"{int(byte):02x}" for byte in address.split("."))
    ip_batch(
        [
            f"netns add {space}",
            f"link add {name}-port netns {machine.netns} type veth peer name eth0 netns {space} address {mac}",
        ]
    )
    ip_batch([f"address add {address}/32 dev eth0", "link set eth0 up", "route add default dev eth0"], netns=space)
    run(argv_inside(space, ["ethtool", "-K", "eth0", "tx", "off"]))
    ip_batch([f"link set {name}-port up"], netns=machine.netns)
    machine.ovs.vsctl(
        "add-port", "br-int", f"{name}-port", "--", "set", "interface", f"{name}-port", f"external_ids:iface-id={key}"
    )


def addresses(machine: Machine) -> dict[str, str]:
    """What `romana-ovs ipam --pods` tells, kept in the controller's state file."""
    command = ["ipam", "--pods", "--json", "--state", str(machine.folder / "state"), str(machine.folder / "manifests")]
    told = run([sys.executable, "-m", "romana_ovs", *command], env={"PYTHONPATH": str(ROOT)})
    return {pod["pod"]: pod["address"] for pod in json.loads(told)["pods"]}


def free_port(machine: Machine) -> int:
    """A TCP port of the machine that nobody listens on."""

    def find() -> int:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            return int(probe.getsockname()[1])

    return within(machine.netns, find)


@contextlib.contextmanager
def controller(machine: Machine, program: Sequence[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The running application. Ends it by SIGKILL if the test has not ended it."""
    conf = machine.folder / "romana-ovs.conf"
    conf.write_text(
        f"[romana]\nmanifests = {machine.folder}/manifests\nstate_file = {machine.folder}/state\n"
        f"ovsdb = {machine.ovs.remote}\n"
    )
    argv = [
        *program,
        "--config-file",
        str(conf),
        "--ofp-listen-host",
        "127.0.0.1",
        "--ofp-tcp-listen-port",
        str(port),
        "romana_ovs.app",
    ]
    with (machine.folder / "log").open("ab") as log:
        process = subprocess.Popen(
            argv_inside(machine.netns, argv),
            env=machine.environment(),
            cwd=machine.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    machine.run.record(process.pid)
    try:
        yield process
    finally:
        process.kill()
        process.wait(PATIENCE)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_bridge_made_by_hand_gets_the_verdicts(machine: Machine, name: str) -> None:
    if name == "ryu-manager" and not RYU_MANAGER.is_file():
        pytest.skip(f"NOT TESTED: {RYU_MANAGER} is missing, so Ryu is not installed beside this Python")
    (machine.folder / "manifests" / "pods.yaml").write_text(MANIFESTS)
    where = addresses(machine)
    assert sorted(where) == ["default/db", "default/web", "other/spy"]
    port = free_port(machine)
    make_bridge(machine, port)
    for key, address in where.items():
        attach(machine, key, address)
    db, web, spy = where["default/db"], machine.pod("web"), machine.pod("spy")
    with Page(machine.pod("db"), 80, "db"), Page(machine.pod("db"), 81, "db:81"):
        # Half a second: as nothing is open yet, no answer to anything later can be waited for.
        assert fetch(web, db, seconds=0.5) is None, "nothing is open before the controller comes"
        with controller(machine, PROGRAMS[name], port) as process:
            log = machine.folder / "log"
            eventually(lambda: process.poll() is not None or fetch(web, db, seconds=0.3) == "db", "a way opens")
            assert process.poll() is None, log.read_text()
            assert pings(web, db)
            with Attempt(spy, db) as stranger:
                assert fetch(web, db, 81) == "db:81"
                assert stranger.unanswered, "another tenant"
            (machine.folder / "manifests" / "policy.yaml").write_text(POLICY)
            eventually(lambda: fetch(web, db, 81, seconds=0.3) is None, "the policy closes port 81")
            with Echo(web, db) as asked:
                assert fetch(web, db) == "db"
                assert asked.unanswered
            listening = run(argv_inside(machine.netns, ["ss", "-Hltn"]))
            assert [line.split()[3] for line in listening.splitlines()] == [f"127.0.0.1:{port}"], "and on nothing else"
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            status = process.wait(PATIENCE)
            assert time.monotonic() - began < END_SECONDS
            assert status in (0, -signal.SIGTERM), log.read_text()
        assert "Traceback" not in log.read_text()
        with Attempt(web, db, 81) as closed, Attempt(spy, db) as stranger:
            assert fetch(web, db) == "db", "the data plane goes on without a controller"
            assert closed.unanswered
            assert stranger.unanswered
