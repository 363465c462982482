"""A real emulated cluster under test: edits, the reports of its controller, traffic in its pods, its flow tables."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.model.objects import PodKey
from romana_ovs.model.settings import Settings
from romana_ovs.pipeline.actions import Load
from romana_ovs.pipeline.priorities import ConntrackCommit
from romana_ovs.pipeline.registers import RECEIVER_PRE_RESTART, SENDER_PRE_RESTART
from romana_ovs_emulate.controller import Event, Programmed, State
from romana_ovs_emulate.emulation import Emulation, Plan
from romana_ovs_emulate.fabric import Fabric
from romana_ovs_emulate.nodes import BRIDGE, Node
from romana_ovs_emulate.patience import patience
from romana_ovs_emulate.pods import RunningPod
from romana_ovs_emulate.system import inside
from tests.support import still_sending, traffic_program
from tests.support.datapath import datapath_type
from tests.support.manifests import count_pods, ingress_policy
from tests.support.waiting import PATIENCE, eventually

SURVIVES = tuple(f"{Load(register.bits, 1).text({})}," for register in (RECEIVER_PRE_RESTART, SENDER_PRE_RESTART))
"""The marks of ends that are older than their switch's connections, in ovs-ofctl's words."""
LOOSE = f"priority={int(ConntrackCommit.LOOSE_METERED)},"
"""A row that only survivors have."""
PORTS = ("80/tcp", "81/tcp", "80/udp", "81/udp")


@dataclass(frozen=True, slots=True)
class Shown:
    """A flow of a bridge as `ovs-ofctl dump-flows` shows it: seconds since it was added, and packets so far."""

    age: float
    packets: int


@dataclass
class LiveCluster:
    """A running cluster. Made by `live`."""

    folder: Path
    emulation: Emulation
    heard: list[Event] = field(default_factory=list)

    def write(self, name: str, text: str) -> None:
        """Put a manifest in place as an editor would."""
        path = self.folder / f".{name}.new"
        path.write_text(text)
        path.rename(self.folder / f"{name}.yaml")

    def remove(self, name: str) -> None:
        """Take a manifest away."""
        (self.folder / f"{name}.yaml").unlink()

    def pod(self, key: str) -> RunningPod:
        """A pod that runs."""
        return self.emulation.pods[PodKey(key)]

    def node(self, name: str) -> Node:
        """A node."""
        return self.emulation.nodes[name]

    def edit(self, change: Callable[[], object], *, portless: int = 0) -> Mapping[str, int]:
        """The flow-mods that each node was sent for `change`, once every switch has it and all (or but `portless`) pods
        their ports."""
        before, count, pods = self.emulation.state.generation, len(self.heard), len(self.emulation.pods)
        change()
        self.await_state(lambda state: state.generation > before, "the change is noticed")
        self.sent_since(count, portless=portless)
        if len(self.emulation.pods) < pods:
            # That its port is gone is a change of its own, which may be noticed later than all the rest.
            self.await_state(lambda state: state.generation > before + 1, "the port is gone too")
        return self.sent_since(count, portless=portless)

    def sent_since(self, count: int, *, portless: int = 0) -> Mapping[str, int]:
        """The flow-mods that each node was sent after the first `count` events, once all is settled and told."""

        def told() -> bool:
            state = self.emulation.state
            done = [event for event in self.heard[count:] if isinstance(event, Programmed)]
            followed = all(
                node.connected and node.synced_generation >= state.generation for node in state.nodes.values()
            )
            missing = [pod.port for pod in state.pods.values()].count(None)
            whole = self.emulation.settled if portless == 0 else missing == portless
            return followed and whole and bool(done) and done[-1].generation >= state.generation

        eventually(told, "all is settled")
        sent: Counter[str] = Counter(dict.fromkeys(self.emulation.nodes, 0))
        for event in self.heard[count:]:
            if isinstance(event, Programmed):
                sent.update(event.sent)
        return sent

    def await_state(self, check: Callable[[State], object], what: str) -> State:
        """The first state that `check` likes."""
        eventually(lambda: check(self.emulation.state), what)
        return self.emulation.state

    def stop_controller(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the controller by a signal; the data plane goes on."""
        self.emulation._ending = True  # It is meant to end: nobody has to be told.
        self.emulation.controller.stop(number)
        self.emulation.stop_controller()

    def start_controller(self) -> Mapping[str, int]:
        """Start the controller again; the flow-mods that each node was sent, once all is settled."""
        count = len(self.heard)
        self.emulation.start_controller()
        self.emulation.settle()
        return self.sent_since(count)

    def kill_switch(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """End a node's ovs-vswitchd as a crash would, or by another signal."""
        pid = self.node(name).switch_pid()
        os.kill(pid, number)
        eventually(lambda: not Path(f"/proc/{pid}").exists(), "the switch is gone")

    def flows(self, name: str) -> dict[str, Shown]:
        """The flows of a node's bridge by their text without counters. Fails the test over a NORMAL action."""
        found = {}
        for line in self.node(name).ofctl("dump-flows").splitlines():
            if "actions=" in line:
                age, packets = (re.search(rf"{word}=([0-9.]+)", line) for word in ("duration", "n_packets"))
                assert age is not None
                assert packets is not None
                text = re.sub(r"(duration|n_packets|n_bytes|idle_age|hard_age)=[^ ,]+,? ?", "", line).strip()
                found[text] = Shown(float(age[1]), int(packets[1]))
        assert not any("NORMAL" in text for text in found)
        return found

    def meaning(self, name: str) -> set[str]:
        """The flows of a node with its ports by their names, and without the mark of pods that are older than their
        switch's process: what stays the same when that process dies and its ports get other numbers."""
        listed = self.node(name).vsctl("--format=json", "--columns=name,ofport", "list", "interface")
        ports = {number: port for port, number in json.loads(listed)["data"]}

        def named(found: re.Match[str]) -> str:
            return f"{found[1]}{ports[int(found[2], 0)]}{found[3]}" if int(found[2], 0) in ports else found[0]

        def plain(text: str) -> str:
            shown = re.sub(r"(in_port=|set_field:)(0x[0-9a-f]+|[0-9]+)(,|/0xffff->reg11)", named, text)
            for mark in SURVIVES:
                shown = shown.replace(mark, "")
            return shown

        return {plain(text) for text in self.flows(name) if LOOSE not in text}

    def hidden_flows(self, name: str) -> str:
        """What `ovs-appctl bridge/dump-flows` shows: hidden flows too."""
        return self.node(name).appctl("bridge/dump-flows", BRIDGE)

    def log(self) -> str:
        """Everything the controller said."""
        return (self.emulation.controller._log).read_text(errors="replace")


@contextmanager
def live_cluster(
    folder: Path,
    nodes: Sequence[str],
    *,
    fabric: Fabric = Fabric.LINK,
    manifests: Mapping[str, str],
    settings: tuple[Path, ...] = (),
) -> Iterator[LiveCluster]:
    """A settled cluster of `nodes` with these manifests, and configuration files for its controller."""
    heard: list[Event] = []
    for name, text in manifests.items():
        (folder / f"{name}.yaml").write_text(text)
    plan = Plan(folder, tuple(nodes), len(nodes), AddressPlan.of(Settings()), fabric, PORTS, settings)
    plan = replace(plan, datapath=datapath_type())
    with Emulation(plan, listener=heard.append) as emulation:
        cluster = LiveCluster(folder, emulation, heard)
        wanted = sum(map(count_pods, manifests.values()))
        eventually(lambda: len(emulation.pods) == wanted, "every pod runs")
        cluster.sent_since(0)
        yield cluster


class Traffic:
    """Tasks of `tests.support.traffic_program` in one pod."""

    def __init__(self, pod: RunningPod, tasks: Sequence[Mapping[str, object]]) -> None:
        program = [sys.executable, traffic_program.__file__, json.dumps(tasks)]
        self._process = subprocess.Popen(
            inside(pod.netns, program), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def report(self) -> list[dict[str, Any]]:
        """How every task does."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return cast(list[dict[str, Any]], json.loads(self._process.stdout.readline()))

    def flowing(self) -> None:
        """Returns once every task but sinks has gone well ten times from now on."""
        before = [each["good"] for each in self.report()]
        eventually(
            lambda: all(each["good"] >= good + 10 for each, good in zip(self.report(), before, strict=True)),
            "traffic flows",
        )

    def decided(self) -> list[dict[str, Any]]:
        """The report once all that was begun until now has had its outcome (what has no answer in time is lost)."""
        begun = [each.get("next", 0) for each in self.report()]

        def all_of_it() -> bool:
            return all(each.get("oldest", 0) >= first for each, first in zip(self.report(), begun, strict=True))

        eventually(all_of_it, "what was begun has an outcome")
        return self.report()

    def unharmed(self) -> None:
        """Fails the test if anything that was begun until now is lost; returns once all of it is known not to be."""
        self.flowing()
        assert [each["lost"] for each in self.decided() if each["lost"]] == []

    def close(self) -> None:
        """End it."""
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()


@contextmanager
def flowing(cluster: LiveCluster, source: str, *tasks: tuple[str, str, int]) -> Iterator[Traffic]:
    """Traffic in pod `source` of (kind, pod, port) tasks, every one of which goes well already."""
    with attempts(cluster, source, *tasks) as running:
        running.flowing()
        yield running


@contextmanager
def attempts(cluster: LiveCluster, source: str, *tasks: tuple[str, str, int]) -> Iterator[Traffic]:
    """The same for traffic that is not expected to go well."""
    wanted = [
        {"kind": kind, "address": cluster.pod(target).place.address, "port": port} for kind, target, port in tasks
    ]
    running = Traffic(cluster.pod(source), wanted)
    try:
        running.report()
        yield running
    finally:
        running.close()


def cuts_both_ways(cluster: LiveCluster) -> None:
    """Checks a revocation in a cluster that has a/client and a/near on one node, and a/guarded on another."""
    opening = "{from: [{podSelector: {matchLabels: {app: client}}}]}"
    also = ingress_policy("also-guarded", "app: guarded", opening) + ingress_policy("also-near", "app: near", opening)
    nothing = ingress_policy("shut-guarded", "app: guarded") + ingress_policy("shut-near", "app: near")

    def revise() -> None:
        cluster.write("shut", nothing)
        cluster.write("also", also)

    cluster.edit(revise)
    client = cluster.pod("a/client").agent
    ends = [(cluster.pod(key), protocol) for key in ("a/guarded", "a/near") for protocol in ("tcp", "udp")]
    try:
        for server, protocol in ends:
            # The client of UDP is silent once it was answered: only the server goes on pushing.
            client.stream(server.place.address, 81, protocol, push=protocol == "tcp")
        eventually(lambda: [one["received"] > 100 for one in client.streams()] == [True] * len(ends), "streams push")
        cluster.edit(lambda: cluster.write("unrelated", ingress_policy("unrelated", "app: far", opening)))
        after = time.monotonic()
        eventually(lambda: all(one["last"] > after for one in client.streams()), "an unrelated edit cuts nothing")
        changed = time.monotonic()
        cluster.edit(lambda: cluster.remove("also"))
        told = time.monotonic()
        still_sending.goes_on((cluster.node(server.place.node), server) for server, _ in ends)
        assert told - changed < patience(1.0)
        heard = {one["peer"]: one["last"] - changed for one in client.streams()}
        assert max(heard.values()) < patience(1.0), heard
        for server in {server.place.pod: server for server, _ in ends}.values():
            for one in server.agent.streams():
                assert one["last"] < told + patience(0.1), f"{server.place.pod} still hears {one['peer']}"
        assert max(one["last"] for one in client.streams()) < told + patience(0.1)
    finally:
        for agent in (client, *(server.agent for server, _ in ends)):
            agent.close_streams()
        for name in ("also", "shut", "unrelated"):
            (cluster.folder / f"{name}.yaml").unlink(missing_ok=True)
    cluster.edit(lambda: cluster.write("touch", ingress_policy("touch", "app: nobody")))
    cluster.edit(lambda: cluster.remove("touch"))


@dataclass(frozen=True, slots=True)
class Change:
    """A flow as it was added to a node's bridge: when, as text that sorts, and by which of the node's updates.

    Times are those of the monitor's output, which a busy machine delays: two updates may have the same.
    """

    when: str
    node: str
    text: str
    update: int = 0

    def precedes(self, other: Change) -> bool:
        """Whether it was made before `other`, as far as the monitors can tell."""
        return self.update < other.update if self.node == other.node else self.when <= other.when


@contextmanager
def watched(cluster: LiveCluster) -> Iterator[Callable[[], list[Change]]]:
    """Yields what lists the flows that were added to any bridge since, in order of time, by ovs-ofctl's monitor."""
    files = {name: cluster.folder.parent / f"{cluster.folder.name}-{name}-flows" for name in cluster.emulation.nodes}
    monitors = []
    for name, file in files.items():
        node = cluster.node(name)
        argv = ["ovs-ofctl", "-O", "OpenFlow15", "--timestamp", "monitor", node.management, "watch:!initial"]
        with file.open("w") as out:
            monitors.append(subprocess.Popen(argv, stdout=out, stderr=out, env={**os.environ, **node.environment}))

    def changes() -> list[Change]:
        found = []
        for name, file in files.items():
            when, update = "", 0
            for line in file.read_text().splitlines():
                stamp = re.match(r"(\d{4}-\d\d-\d\d [0-9:.]+): ", line)
                when, update = (stamp[1], update + 1) if stamp else (when, update)
                if line.startswith(" event=ADDED"):
                    found.append(Change(when, name, line.removeprefix(" event=ADDED "), update))
        return sorted(found, key=lambda change: change.when)

    try:
        eventually(lambda: all("reply" in file.read_text() for file in files.values()), "the monitors watch")
        yield changes
    finally:
        for monitor in monitors:
            monitor.terminate()
            monitor.wait(PATIENCE)


@contextmanager
def sink(cluster: LiveCluster, target: str, port: int) -> Iterator[Traffic]:
    """A UDP port of pod `target` that counts what arrives and answers nothing."""
    running = Traffic(cluster.pod(target), [{"kind": "sink", "address": "0.0.0.0", "port": port}])
    try:
        running.report()
        yield running
    finally:
        running.close()
