"""Measures the time from an event of the API server to the switch: `python -m bench.kubernetes PODS SECONDS`.

A real kube-apiserver with a large cluster, a real Open vSwitch with one node's pods, and the controller as it is
installed: everything in one process, or this node's controller and a registry apart. Prints JSON.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from bench.allocation import ROOT, into_tier, large_cluster
from bench.apiserver import Request, Server, serving
from bench.echo import EchoProbe
from bench.followed import POD, REPORT, STARTED
from bench.latency import PERCENTILE, home_of
from bench.objects import pod_object, pods_path, policies_path, policy_object
from bench.switch import folder, node, plug
from bench.timed import serve
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.labels import Selector
from romana_ovs.model.objects import Pod, PolicyPeer, PolicyRule
from romana_ovs_emulate.controller import controller_socket
from romana_ovs_emulate.nodes import Node
from romana_ovs_emulate.runs import Run

SPARE = 10
"""Ports of pods that come and go on the node."""
RATE = 100.0
PATIENCE_SECONDS = 120.0
LOOK_SECONDS = 0.05
QUIET_SECONDS = 2.0
QUESTIONS = 10
TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")
PLAN = ("segment_bits = 11", "host_bits = 8", "endpoint_bits = 5")


class Controller:
    """A controller's process, which runs the application of `module`, and what it reports."""

    def __init__(self, place: Path, name: str, module: str, config: str, listen: Path) -> None:
        self.report = place / f"{name}.report"
        self._log = place / f"{name}.log"
        path = place / f"{name}.conf"
        path.write_text(config)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.kubernetes", "serve", module, str(path), str(listen)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, STARTED: str(time.monotonic()), REPORT: str(self.report)},
            )

    def lines(self, since: int = 0) -> list[dict[str, Any]]:
        """What it has reported, from line `since` on."""
        text = self.report.read_text() if self.report.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True)[since:] if line.endswith("\n")]

    def await_lines(self, count: int) -> list[dict[str, Any]]:
        """Its lines once there are so many; or when nothing more comes."""
        end = time.monotonic() + PATIENCE_SECONDS
        while len(self.lines()) < count:
            if self._process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"the controller failed:\n{self._log.read_text()[-3000:]}")
            time.sleep(LOOK_SECONDS)
        return self.lines()

    def started(self) -> dict[str, Any]:
        """What it tells of its start, once its tables are programmed."""
        return self.await_lines(1)[0]

    def settled(self) -> list[dict[str, Any]]:
        """Its lines once no more have come for some seconds."""
        before, since = -1, time.monotonic()
        while time.monotonic() - since < QUIET_SECONDS:
            found = len(self.lines())
            if found != before:
                before, since = found, time.monotonic()
            time.sleep(LOOK_SECONDS)
        return self.lines()

    def resident(self) -> dict[str, float]:
        """What of it, and of its Kubernetes process, is in memory: MiB, now and at most."""
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        own, child = _memory(pid), [_memory(int(each)) for each in children]
        return {
            "controller": own["VmRSS"],
            "kubernetes": sum(each["VmRSS"] for each in child),
            "most": own["VmHWM"] + sum(each["VmHWM"] for each in child),
        }

    def worked(self) -> float:
        """Milliseconds of processor time that it, without its Kubernetes process, has used (proc(5))."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK_MS

    def end(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _memory(pid: int) -> dict[str, float]:
    found = re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return {name: int(number) / 1024 for name, number in found}


def spare_pods(base: Cluster, count: int, where: str) -> list[Pod]:
    """Pods on `where` that come and go, one for each of `count` tenants, of the tier that all policies are about."""
    home = [pod for pod in base.pods.values() if pod.node == home_of(base)]
    return [replace(pod, name=f"at-{where}-{number}", node=where) for number, pod in enumerate((home * count)[:count])]


def streams(base: Cluster, seconds: float) -> list[list[Request]]:
    """Changes for so many seconds at RATE: half of them about pods of the node and policies that concern it."""
    count = int(RATE * seconds / 4)
    near, far = home_of(base), max(base.nodes)
    return [
        _pods(spare_pods(base, SPARE, near), count),
        _policies(base, count),
        _pods(spare_pods(base, SPARE, far), count),
        _relabelled([pod for pod in base.pods.values() if pod.node == far], count),
    ]


def _pods(pods: list[Pod], count: int) -> list[Request]:
    """Pods that are added, relabelled, deleted, each some changes later than the one before."""
    found: list[Request] = []
    while len(found) < count:
        for pod in pods:
            found.append(Request("POST", pods_path(pod.namespace), pod_object(pod)))
        found += _relabelled(pods, len(pods))
        found += [_removed(pods_path(pod.namespace), pod.name) for pod in pods]
    return found[: count - count % (3 * len(pods))] or found


def _relabelled(pods: list[Pod], count: int) -> list[Request]:
    found = []
    for number in range(count):
        turn, index = divmod(number, len(pods))
        pod = pods[index]
        tier = (int(pod.labels["tier"][-1]) + turn + 1) % 4
        path = f"{pods_path(pod.namespace)}/{pod.name}"
        found.append(Request("PATCH", path, {"metadata": {"labels": {"tier": f"tier{tier}"}}}))
    return found


def _policies(base: Cluster, count: int) -> list[Request]:
    """Policies of the node's tenants that are added and deleted, and ask nothing that none asked before."""
    names = sorted({pod.namespace for pod in base.pods.values() if pod.node == home_of(base)})
    found = []
    for number in range(count // 2):
        name = names[number % len(names)]
        policy = replace(into_tier(name, 2), name=f"more{number}", selector=Selector.of({"tier": "tier1"}))
        found.append(Request("POST", policies_path(name), policy_object(policy)))
        found.append(_removed(policies_path(name), policy.name))
    return found


def _removed(path: str, name: str) -> Request:
    return Request("DELETE", f"{path}/{name}?gracePeriodSeconds=0")


def questions(base: Cluster, count: int) -> list[Request]:
    """Policies of the node's tenants that ask what none asked before: which app a pod is of."""
    names = sorted({pod.namespace for pod in base.pods.values() if pod.node == home_of(base)})
    found = []
    for number in range(count):
        name = names[number % len(names)]
        peer = PolicyPeer(pods=Selector.of({"app": f"app{number % 7}"}))
        asks = replace(into_tier(name, 1), name=f"question{number}", ingress=(PolicyRule(peers=(peer,)),))
        found.append(Request("POST", policies_path(name), policy_object(asks)))
    return found


class Bench:
    """One node with its switch, and the ways in which controllers are started for it."""

    def __init__(self, server: Server, base: Cluster, run: Run, here: Node, place: Path) -> None:
        self.server, self.base, self.place = server, base, place
        self.home = home_of(base)
        self.listen = controller_socket(run)
        self._ovsdb = here.ovsdb

    @contextmanager
    def controller(self, name: str, *, apart: bool = False) -> Iterator[tuple[Controller, EchoProbe]]:
        """A controller of everything, or (`apart`) of this node alone; and how it answers its switch meanwhile."""
        account = self.server.account("romana-node" if apart else "romana-controller", node=self.home if apart else "")
        words = [f"kubeconfig = {account}", f"ovsdb = {self._ovsdb}"]
        words += [f"state_file = {self.place}/{'node' if apart else 'state'}"]
        if apart:
            words.append(f"node = {self.home}")
        with EchoProbe(self.listen) as probe:
            controller = Controller(self.place, name, "bench.followed", _configuration(*words), self.listen)
            try:
                yield controller, probe
            finally:
                controller.end()

    @contextmanager
    def registry(self) -> Iterator[None]:
        """The registry in a process of its own, from when it leads."""
        config = _configuration(f"kubeconfig = {self.server.account('romana-registry')}", "registry_only = yes")
        registry = Controller(self.place, "registry", "romana_ovs.app", config, self.place / "registry.sock")
        try:
            end = time.monotonic() + PATIENCE_SECONDS
            while not self.server.holder() and time.monotonic() < end:
                time.sleep(LOOK_SECONDS)
            yield
        finally:
            registry.end()

    def changed(self, controller: Controller, probe: EchoProbe, seconds: float) -> dict[str, Any]:
        """What becomes of RATE changes a second, and then of policies that ask something new, one a second."""
        controller.settled()
        since, before = len(controller.lines()), len(probe.delays)
        worked = controller.worked()
        rate = self.server.play(streams(self.base, seconds), RATE)
        lines = controller.settled()[since:]
        work = (controller.worked() - worked) / max(1, len(lines))
        echo = max(probe.delays[before:], default=0.0)
        told = {"rate": rate, "work": work, "resident": controller.resident(), "echo": echo}
        since += len(lines)
        asked = questions(self.base, min(QUESTIONS, int(seconds)))
        for question in asked:
            self.server.send(question)
            time.sleep(1.0)
        new = controller.settled()[since:]
        for question in asked:
            self.server.send(_removed(question.path, question.body["metadata"]["name"] if question.body else ""))
        controller.settled()
        return told | {"changes": _by_kind(lines), "questions": _summary(new)}


def measured(server: Server, base: Cluster, seconds: float) -> dict[str, Any]:
    """The first start of all, a restart, and a node's controller beside a registry apart; changes for two of them."""
    home = home_of(base)
    own = sorted(key for key, pod in base.pods.items() if pod.node == home)
    spare = [pod.key for pod in spare_pods(base, SPARE, home)]
    told: dict[str, Any] = {"starts": {}, "changes": {}}
    with folder() as place, node(home) as (run, here):
        plug(here, [*own, *spare])
        bench = Bench(server, base, run, here, place)
        with bench.controller("first") as (controller, probe):
            told["starts"]["first"] = _started(controller, probe)
            told["changes"]["one"] = bench.changed(controller, probe, seconds)
        with bench.controller("again") as (controller, probe):
            told["starts"]["again"] = _started(controller, probe)
        with bench.registry(), bench.controller("node", apart=True) as (controller, probe):
            told["starts"]["node"] = _started(controller, probe)
            told["changes"]["node"] = bench.changed(controller, probe, seconds)
    return told


def _started(controller: Controller, probe: EchoProbe) -> dict[str, Any]:
    return {**controller.started(), "echo": probe.longest, "resident": controller.resident()}


def _by_kind(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures of all changes, of pods and of policies."""
    parts = {"all": lines, "pods": [each for each in lines if each["kind"] == POD]}
    parts["policies"] = [each for each in lines if each["kind"] != POD]
    return {name: _summary(part) for name, part in parts.items()}


def _summary(lines: list[dict[str, Any]]) -> dict[str, float]:
    times = sorted(each["ms"] for each in lines)
    if not times:
        return {"count": 0, "median": 0.0, "p99": 0.0, "most": 0.0, "pipe": 0.0}
    return {
        "count": len(times),
        "median": median(times),
        "p99": times[min(len(times) - 1, int(PERCENTILE * len(times)))],
        "most": times[-1],
        "pipe": median(each["pipe"] for each in lines),
    }


def _configuration(*words: str) -> str:
    return "\n".join(("[romana]", *PLAN, *words, ""))


def main(pods: int, seconds: float) -> None:
    """Prints the figures."""
    base = large_cluster(pods)
    with serving(base) as server:
        told = measured(server, base, seconds)
    print(json.dumps({"pods": pods, "seconds": seconds, "per second": RATE, **told}))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
        sys.exit(1)
    main(int(sys.argv[1]), float(sys.argv[2]))
