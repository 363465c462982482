"""The demonstration's cluster under faults: controller gone or restarted, switch killed, permissions removed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from romana_ovs.model.objects import PodKey
from romana_ovs.pipeline import priorities
from romana_ovs.policy.matrix import PodPath
from romana_ovs_emulate.cli.demo import BACKEND, FRONTEND, demo_folder
from romana_ovs_emulate.cli.demo_stage import PORTS
from romana_ovs_emulate.cli.session import Session
from romana_ovs_emulate.emulation import Emulation
from romana_ovs_emulate.fabric import Fabric
from romana_ovs_emulate.probe import probe_once
from romana_ovs_emulate.revocation import open_connection
from tests.support import still_sending
from tests.support.datapath import datapath_type
from tests.support.netns_sockets import Attempt, fetch
from tests.support.waiting import eventually

pytestmark = pytest.mark.root

SILENCE_MS = 1000.0


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """Three nodes, so that frontend and backend are on different ones; the policy is applied."""
    for path in [*demo_folder().iterdir(), demo_folder() / "policy" / "policy1.yaml"]:
        if path.is_file():
            shutil.copy(path, tmp_path)
    one = Session.prepare(tmp_path, 3, Fabric.LINK, ports=PORTS, datapath=datapath_type().value)
    with one.emulation as emulation:
        emulation.settle()
        assert emulation.pods[FRONTEND].place.node != emulation.pods[BACKEND].place.node
        yield one


def wrong(session: Session) -> list[str]:
    results = session.measure(PORTS)
    return [str(one) for one in (*results.differences, *results.unmeasured)]


def test_a_restarted_controller_changes_and_loses_nothing(session: Session) -> None:
    emulation = session.emulation
    pods = emulation.pods
    with open_connection(pods[FRONTEND], pods[BACKEND], 80, "tcp") as stream:
        gaps = Gaps(stream.client.streams, stream.server.streams)
        emulation.stop_controller(signal.SIGKILL)
        gaps.watch()
        assert wrong(session) == [], "the data plane goes on without the controller"
        emulation.start_controller()
        programmed = emulation.programmed_after(-1)
        emulation.settle()
        gaps.watch()
        assert gaps.longest < 0.3, "a lost packet would cost a retransmission timeout"
        assert sum(programmed.sent.values()) == 0
    assert wrong(session) == []


class Gaps:
    """The longest that either end of a stream heard nothing, as far as `watch` looked, in seconds."""

    def __init__(self, *ends: Callable[[], list[dict[str, Any]]]) -> None:
        self.ends = ends
        self.longest = 0.0

    def watch(self) -> None:
        """Returns once every end has received fifty pieces more, which takes a second; a gap would be among them."""
        wanted = [stream["received"] + 50 * still_sending.PIECE_BYTES for stream in self._looked()]
        eventually(
            lambda: all(stream["received"] >= least for stream, least in zip(self._looked(), wanted, strict=True)),
            "the stream goes on",
        )

    def _looked(self) -> list[dict[str, Any]]:
        found = []
        for end in self.ends:
            [stream] = end()
            assert stream["error"] == ""
            self.longest = max(self.longest, time.monotonic() - stream["last"])
            found.append(stream)
        return found


def test_a_killed_switch_gets_flows_back_and_opens_nothing(session: Session) -> None:
    emulation = session.emulation
    pods = emulation.pods
    node = emulation.nodes[pods[BACKEND].place.node]
    before = flow_count(emulation, node.name)
    closed = [
        PodPath(FRONTEND, BACKEND, "81/tcp"),
        PodPath(BACKEND, FRONTEND, "80/tcp"),
        PodPath(PodKey("default/nginx-default-0"), BACKEND, "80/tcp"),
    ]
    pid = node.switch_pid()
    os.kill(pid, signal.SIGKILL)
    while not ended(pid):
        time.sleep(0.01)
    node.start_switch()
    opened = []
    deadline = time.monotonic() + 30
    back = False
    while not back and time.monotonic() < deadline:
        back = flow_count(emulation, node.name) >= before
        # As long as it takes, but never longer than until the next look: an open path answers within milliseconds.
        opened += [path for path, answer in probe_once(pods, closed, seconds=0.2).items() if answer.open]
    assert opened == []
    assert flow_count(emulation, node.name) == before
    emulation.settle()
    assert wrong(session) == []
    assert "NORMAL" not in node.ofctl("dump-flows")


def flow_count(emulation: Emulation, node: str) -> int:
    """The flows of a node, but for those that only pre-restart pods have."""
    shown = emulation.nodes[node].ofctl("dump-flows").splitlines()
    loose = f"priority={int(priorities.ConntrackCommit.LOOSE_METERED)},"
    return sum("actions=" in line and loose not in line for line in shown)


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_server_that_goes_on_pushing_is_cut_too(session: Session, tmp_path: Path) -> None:
    emulation = session.emulation
    pods = emulation.pods
    policy = tmp_path / "policy1.yaml"
    generation = emulation.state.generation
    policy.write_text(policy.read_text().replace("protocol: TCP", "protocol: UDP"))
    emulation.programmed_after(generation)
    client, server = pods[FRONTEND].agent, pods[BACKEND].agent
    client.stream(pods[BACKEND].place.address, 80, "udp", push=False)
    deadline = time.monotonic() + 5
    while not (client.streams()[0]["received"] > 200):
        assert time.monotonic() < deadline, "the server does not push"
        time.sleep(0.05)
    assert time.monotonic() - server.streams()[0]["last"] > 0.1, "the client is silent: only the server sends"
    generation = emulation.state.generation
    changed = time.monotonic()
    policy.unlink()
    emulation.programmed_after(generation)
    place = (emulation.nodes[pods[BACKEND].place.node], pods[BACKEND])
    still_sending.goes_on([place])
    heard = client.streams()[0]["last"]
    assert (heard - changed) * 1000 < SILENCE_MS
    still_sending.goes_on([place])
    assert client.streams()[0]["last"] == heard


def test_nodes_reach_their_own_pods_and_no_others(session: Session) -> None:
    emulation = session.emulation
    pods = emulation.pods
    address = pods[BACKEND].place.address
    with contextlib.ExitStack() as stack:
        others = {
            name: stack.enter_context(Attempt(node.netns, address))
            for name, node in emulation.nodes.items()
            if name != pods[BACKEND].place.node
        }
        for name in others:
            probed = [pod for pod in pods.values() if pod.place.node == name]
            assert probed, "each node has pods of its own to reach"
            assert fetch(emulation.nodes[name].netns, probed[0].place.address) == probed[0].place.pod
        assert fetch(emulation.nodes[pods[BACKEND].place.node].netns, address) == BACKEND
        assert [name for name, attempt in others.items() if not attempt.unanswered] == []
