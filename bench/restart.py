"""Measures from the start of a controller to an up-to-date switch: `python -m bench.restart PODS`.

The process is a new one each time, with a folder of manifests, a state file and one node's real switch; prints JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.allocation import large_cluster
from bench.latency import home_of, ports
from bench.memory import resident_mib
from bench.switch import folder, node, plug
from bench.timed import Clock, Timed, configuration, serve
from romana_ovs.model.cluster import Cluster
from romana_ovs_emulate.controller import controller_socket

# After `bench.timed`, which makes Ryu and eventlet fit each other.
import eventlet  # isort: skip

PATIENCE_SECONDS = 120.0
LIFE_SECONDS = 4.0
"""How long a controller goes on once it is done, before it is ended and started again."""
STARTED, REPORT = "BENCH_STARTED", "BENCH_REPORT"
"""Environment of the controller: when its process was made (seconds, monotonic), and where its figures go."""


class Restarted(Timed):
    """The application, which tells when its switch has everything, and ends."""

    read_at = rounded_at = ready_at = 0.0

    def _note_snapshot(self) -> None:
        super()._note_snapshot()
        if self.cluster is not None:
            self.read_at = self.read_at or time.monotonic()

    def _program(self, save: Callable[[], None] | None) -> None:
        super()._program(save)
        self.rounded_at = self.rounded_at or time.monotonic()

    def _take_changes(self, now: float) -> None:
        super()._take_changes(now)
        if self._ready_sessions:
            self.ready_at = self.ready_at or time.monotonic()

    def play(self) -> None:
        """Waits for the bell."""
        began = time.monotonic()
        self.bell.rung.wait()
        now, started = time.monotonic(), float(os.environ[STARTED])
        told = {
            "total": (now - started) * 1000,
            "importing": (began - started) * 1000,
            "manifests": (self.read_at - began) * 1000,
            "waiting": max(0.0, (self.ready_at - self.rounded_at) * 1000 - Clock.spent.reading),
            "computing": Clock.spent.computing,
            "reading": Clock.spent.reading,
            "processor": time.process_time() * 1000,
            "mib": resident_mib(),
            "flow_mods": Clock.spent.flow_mods,
            "pods": len(self.cluster.pods) if self.cluster is not None else 0,
        }
        # A connection that was short makes Open vSwitch wait twice as long before the next.
        eventlet.sleep(LIFE_SECONDS)
        Path(os.environ[REPORT]).write_text(json.dumps(told))
        os._exit(0)


def manifests_of(cluster: Cluster) -> dict[str, str]:
    """The cluster as files of JSON by name: the nodes, and one file for each namespace."""
    files = {"nodes.json": _list([_node(name, str(found.addresses[0])) for name, found in cluster.nodes.items()])}
    objects: dict[str, list[dict[str, Any]]] = {name: [] for name in cluster.namespaces}
    for pod in cluster.pods.values():
        objects[pod.namespace].append(_pod(pod.namespace, pod.name, dict(pod.labels), pod.node))
    for tier in (1, 2, 3):
        for name, found in objects.items():
            found.append(_policy(name, tier))
    return {**files, **{f"{name}.json": _list(found) for name, found in objects.items()}}


def _list(items: list[dict[str, Any]]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def _node(name: str, address: str) -> dict[str, Any]:
    status = {"addresses": [{"type": "InternalIP", "address": address}]}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": status}


def _pod(namespace: str, name: str, labels: dict[str, str], node_name: str) -> dict[str, Any]:
    container = {"name": "c", "image": "web", "ports": [{"containerPort": 80}]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"nodeName": node_name, "containers": [container]},
    }


def _policy(namespace: str, tier: int) -> dict[str, Any]:
    peer = {"podSelector": {"matchLabels": {"tier": f"tier{tier - 1}"}}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": f"into-tier{tier}", "namespace": namespace},
        "spec": {
            "podSelector": {"matchLabels": {"tier": f"tier{tier}"}},
            "ingress": [{"from": [peer], "ports": [{"port": 80}]}],
        },
    }


def main(pods: int, restarts: int = 2) -> None:
    """Prints the figures of a first start (`first`) and of the restarts after it."""
    base = large_cluster(pods)
    with folder() as place, node(home_of(base)) as (run, here):
        plug(here, ports(base)[:-1])
        manifests = place / "manifests"
        manifests.mkdir()
        for name, text in manifests_of(base).items():
            (manifests / name).write_text(text)
        config = place / "romana.conf"
        config.write_text(configuration(here.ovsdb, manifests, f"state_file = {place}/state"))
        runs = [_run(config, controller_socket(run), place / "report") for _ in range(restarts + 1)]
    print(json.dumps({"first": runs[0], "restarts": runs[1:]}))


def _run(config: Path, listen: Path, report: Path) -> dict[str, float]:
    report.unlink(missing_ok=True)
    environment = {**os.environ, STARTED: str(time.monotonic()), REPORT: str(report)}
    argv = [sys.executable, "-m", __spec__.name, "serve", str(config), str(listen)]
    done = subprocess.run(argv, env=environment, timeout=PATIENCE_SECONDS, capture_output=True, text=True, check=False)
    if done.returncode or not report.exists():
        raise SystemExit(f"the controller failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(report.read_text())
    return found


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve("bench.restart", Path(sys.argv[2]), Path(sys.argv[3]))
        sys.exit(1)
    main(int(sys.argv[1]))
