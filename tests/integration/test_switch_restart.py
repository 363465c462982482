"""What goes on over a restart of Open vSwitch: TCP, UDP and SCTP in and between nodes, on the datapath of this run.

The kernel's datapath forwards and keeps its connections while no ovs-vswitchd runs. The userspace one ends with it.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest

from romana_ovs.model.bridge import DatapathType
from romana_ovs_emulate.patience import patience
from romana_ovs_emulate.pods import RunningPod
from romana_ovs_emulate.system import inside
from tests.support import echo_streams
from tests.support.datapath import datapath_type
from tests.support.live_cluster import LiveCluster, live_cluster
from tests.support.manifests import placed_pod
from tests.support.waiting import PATIENCE, eventually

pytestmark = pytest.mark.root

PODS = placed_pod("client", "node1") + placed_pod("near", "node1") + placed_pod("far", "node2")
SERVERS = ("near", "far")
PORT = 7
DEAD_SECONDS = patience(2.0)
"""How long a node has no ovs-vswitchd."""
NOTICED_SECONDS = patience(1.0)
"""A stream that has been silent for longer is interrupted."""


class Program:
    """`tests.support.echo_streams` in a pod."""

    def __init__(self, pod: RunningPod, *words: str) -> None:
        argv = inside(pod.netns, [sys.executable, echo_streams.__file__, *words])
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def line(self) -> str:
        """The next line that it prints."""
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def report(self) -> dict[str, Any]:
        """The figures of a stream."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return cast(dict[str, Any], json.loads(self.line()))

    def close(self) -> None:
        """End it."""
        with self._process:
            self._process.kill()


Streams = dict[str, Program]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    """Three pods on two linked nodes, each but the client with an echo server."""
    with live_cluster(tmp_path_factory.mktemp("m"), ("node1", "node2"), manifests={"pods": PODS}) as running:
        servers = [Program(running.pod(f"a/{name}"), "serve", str(PORT)) for name in SERVERS]
        try:
            for server in servers:
                assert set(echo_streams.protocols()) == set(server.line().split())
            yield running
        finally:
            for server in servers:
                server.close()


@contextmanager
def _streams(cluster: LiveCluster) -> Iterator[Streams]:
    """A stream of each protocol to each server, every one of which is answered."""
    client = cluster.pod("a/client")
    streams = {
        f"{protocol} to {name}": Program(
            client, "stream", protocol, str(cluster.pod(f"a/{name}").place.address), str(PORT)
        )
        for name in SERVERS
        for protocol in echo_streams.protocols()
    }
    try:
        for stream in streams.values():
            assert stream.line() == "connected\n"
        _answered(streams)
        yield streams
    finally:
        for stream in streams.values():
            stream.close()


def _answered(streams: Streams) -> None:
    """Returns once each stream has been answered ten times more; fails the test when one has ended."""
    before = {name: stream.report()["answers"] for name, stream in streams.items()}

    def each() -> bool:
        reports = {name: stream.report() for name, stream in streams.items()}
        assert {name: report["error"] for name, report in reports.items() if report["error"]} == {}
        return all(report["answers"] >= before[name] + 10 for name, report in reports.items())

    # A retransmission after a long silence comes as late as that silence was long.
    eventually(each, "every stream goes on", 2 * PATIENCE)


def _entries(cluster: LiveCluster, name: str, streams: Streams) -> set[str]:
    """The ends of these streams in a node's connection table."""
    listed = cluster.node(name).appctl("dpctl/dump-conntrack").splitlines()
    ports = [f",sport={stream.report()['port']}," for stream in streams.values()]
    originals = {line.partition(",reply=")[0] for line in listed}
    return {original for original in originals if any(port in original for port in ports)}


@pytest.mark.parametrize("dead", ["node1", "node2"])
def test_connections_go_on_over_a_killed_and_restarted_switch(cluster: LiveCluster, dead: str) -> None:
    with _streams(cluster) as streams:
        before = _entries(cluster, dead, streams)
        cluster.kill_switch(dead)
        time.sleep(DEAD_SECONDS)
        silent = {name for name, stream in streams.items() if stream.report()["silent"] > NOTICED_SECONDS}
        started = time.monotonic()
        cluster.node(dead).start_switch()
        cluster.emulation.settle()
        programmed = time.monotonic() - started
        _answered(streams)
        if datapath_type() is DatapathType.NETDEV:
            assert silent, "the datapath is gone with the process"
            return
        assert silent == set(), "the kernel goes on forwarding"
        assert before and before <= _entries(cluster, dead, streams), "what has the same owners is not forgotten"
        # What is sent during the gap is sent again once, after as long again at most, or a second (RFC 6298, RFC 9260).
        longest = {name: stream.report()["gap"] for name, stream in streams.items()}
        print(programmed, longest)
        assert {name: gap for name, gap in longest.items() if gap > 2 * programmed + NOTICED_SECONDS} == {}


def _waits(cluster: LiveCluster, name: str) -> bool:
    return "flow-restore-wait" in cluster.node(name).vsctl("--no-wait", "get", "open_vswitch", ".", "other_config")


def _upgrade(cluster: LiveCluster, name: str) -> None:
    """What docs/kubernetes.md says of an upgrade; `systemctl restart` ends the process and starts it."""
    node = cluster.node(name)
    node.vsctl("--no-wait", "set", "open_vswitch", ".", "other_config:flow-restore-wait=true")
    cluster.kill_switch(name, signal.SIGTERM)
    time.sleep(DEAD_SECONDS)
    node.start_switch()
    eventually(lambda: not _waits(cluster, name), "the controller has ended the wait")


@pytest.mark.parametrize("upgraded", ["node1", "node2"])
def test_an_upgrade_of_a_switch_interrupts_no_stream(cluster: LiveCluster, upgraded: str) -> None:
    """The kernel goes on by its megaflows until the tables are in; the userspace datapath ends with its process."""
    meaning = cluster.meaning(upgraded)
    with _streams(cluster) as streams:
        before = _entries(cluster, upgraded, streams)
        _upgrade(cluster, upgraded)
        longest = {name: stream.report()["gap"] for name, stream in streams.items()}
        _answered(streams)
        cluster.emulation.settle()
        if datapath_type() is DatapathType.SYSTEM:
            print(longest)
            assert {name: gap for name, gap in longest.items() if gap > NOTICED_SECONDS} == {}
            assert before and before <= _entries(cluster, upgraded, streams), (
                "what has the same owners is not forgotten"
            )
    assert cluster.meaning(upgraded) == meaning
