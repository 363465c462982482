"""Prepares the demonstration on a cluster of real nodes: its pods are containers, measured by `kubectl exec`."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from romana_ovs.cli.progress import activity
from romana_ovs.config import settings_in
from romana_ovs.kube.api.client import Api
from romana_ovs.kube.api.source import ApiSource
from romana_ovs.model.bridge import DatapathType
from romana_ovs.model.connection import PortRef
from romana_ovs.model.errors import SetupError
from romana_ovs.model.objects import PodKey
from romana_ovs_emulate.agent_client import AgentClient
from romana_ovs_emulate.api_cluster import ApiCluster
from romana_ovs_emulate.cli.demo_stage import (
    PODS,
    POLICY,
    PORTS,
    SETTINGS_FILE,
    allow_tenants,
    apply_policy,
    delete_policy,
)
from romana_ovs_emulate.cli.measured import EmulationState, ProbeResults, between, unmeasured
from romana_ovs_emulate.cluster.cluster import Cluster
from romana_ovs_emulate.cluster.status_feeds import StatusFeeds
from romana_ovs_emulate.controller import Programmed, State
from romana_ovs_emulate.controlplane import ControlPlane
from romana_ovs_emulate.image.build import CHECKOUT
from romana_ovs_emulate.image.build import NAME as IMAGE
from romana_ovs_emulate.patience import patience
from romana_ovs_emulate.pods import PodPlacement, RunningPod
from romana_ovs_emulate.probe import measure

MOUNT = "/opt/emulator"
"""Where containers have the agent that serves and probes, from this checkout."""
RUNNING_SECONDS = patience(60.0)
RETRY_SECONDS = 0.2
_POLICY_RESOURCE = "networkpolicies.romana.io"
_ON_NODES = {"nginx-frontend": "node1", "nginx-backend": "node2"}
"""Apart, so that the policy is shown across nodes."""


@dataclass(frozen=True, slots=True)
class ClusterPods:
    """The pods and nodes of the demonstration."""

    feeds: StatusFeeds
    pods: Mapping[PodKey, RunningPod]
    datapath: DatapathType = DatapathType.NETDEV

    @property
    def state(self) -> State:
        """What the controllers report."""
        return self.feeds.state

    def programmed_after(self, generation: int) -> Programmed:
        """Wait until what is newer than that generation of the state is in every switch. Raises SetupError."""
        return self.feeds.programmed_after(generation)


@dataclass(frozen=True, slots=True)
class ClusterSession:
    """The cluster with what is expected of it, and its measurement."""

    source: ApiCluster
    emulation: ClusterPods

    def measure(self, ports: Sequence[PortRef]) -> ProbeResults:
        """Every pair of pods on these ports. Raises SetupError."""
        expected, running = self.source.expected(ports), self.emulation.pods
        state = EmulationState(self.emulation.state.nodes.keys(), {}, self.emulation.state.problems)
        missing = tuple(unmeasured(self.source.read(), expected.pods, running, state))
        with activity(f"probing {len(running) * (len(running) - 1) * len(ports)} paths"):
            measurement = measure(running, expected.ports, expected=between(expected, running))
        return ProbeResults(expected, measurement, missing)


class ClusterStage:
    """The demonstration's pods and policy on a running cluster."""

    change = "Event"

    def __init__(self, cluster: Cluster, source: Path, session: ClusterSession) -> None:
        """`source` is the folder of the demonstration's manifests; its pods run."""
        self.session = session
        self._plane = cluster.plane
        self._source = source
        self.leave_message = f"Its kubectl: {self._plane.kubectl_path} --kubeconfig {self._plane.kubeconfig}"

    def settle(self) -> None:
        """The pods run already."""

    def apply(self) -> None:
        """Create the policy; returns when it is programmed. Raises SetupError."""
        apply_policy(self._plane, self._source)
        name = f"{_POLICY_RESOURCE}/{POLICY.name}"
        self._plane.kubectl("wait", "--for=condition=Programmed", name, f"--timeout={RUNNING_SECONDS:.0f}s")
        self.session.source.await_cluster(lambda cluster: POLICY in cluster.policies)

    def remove(self) -> None:
        """Delete the policy. Raises SetupError."""
        delete_policy(self._plane)
        self.session.source.await_cluster(lambda cluster: POLICY not in cluster.policies)


def settings_text(source: Path, defaults: str) -> str:
    """The settings of the demonstration after those of a cluster, as one configuration file."""
    return defaults + (source / SETTINGS_FILE).read_text().replace("[romana]\n", "")


@contextlib.contextmanager
def cluster_stage(cluster: Cluster, settings: Path, source: Path) -> Iterator[ClusterStage]:
    """A stage on a cluster that runs with these settings. Raises SetupError."""
    plane = cluster.plane
    allow_tenants(plane)
    plane.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": _objects(source)}))
    api = ApiCluster(Api(ApiSource(str(plane.kubeconfig))), settings_in(settings))
    with contextlib.ExitStack() as stack:
        api.start()
        stack.callback(api.stop)
        feeds = StatusFeeds(list(cluster.nodes.values()))
        stack.callback(feeds.close)
        feeds.start()
        pods = {key: stack.enter_context(_running(plane, key, pod)) for key, pod in _await_pods(plane).items()}
        for pod in pods.values():
            pod.agent.serve([str(port) for port in PORTS])
        api.await_cluster(lambda known: all(key in known.pods and known.pods[key].address for key in pods))
        yield ClusterStage(cluster, source, ClusterSession(api, ClusterPods(feeds, pods)))


def _objects(source: Path) -> list[dict[str, Any]]:
    """The demonstration's objects, with an image that the nodes have, and what measures them mounted."""
    objects = [each for path in sorted(source.glob("*.yaml")) for each in yaml.safe_load_all(path.read_text())]
    for each in objects:
        spec = each["spec"]["template"]["spec"] if "template" in each["spec"] else each["spec"]
        if node := _ON_NODES.get(each["metadata"]["name"]):
            spec["nodeName"] = node
        spec["terminationGracePeriodSeconds"] = 0
        spec["volumes"] = [
            {"name": "emulator", "hostPath": {"path": str(CHECKOUT / "romana_ovs_emulate"), "type": "Directory"}}
        ]
        for container in spec["containers"]:
            container |= {"image": IMAGE, "imagePullPolicy": "Never", "command": ["sleep", "infinity"]}
            mount = {"name": "emulator", "mountPath": f"{MOUNT}/romana_ovs_emulate", "readOnly": True}
            container["volumeMounts"] = [mount]
    return objects


def _await_pods(plane: ControlPlane) -> dict[PodKey, dict[str, Any]]:
    """The pods of the demonstration, as soon as all of them run. Raises SetupError."""
    deadline = time.monotonic() + RUNNING_SECONDS
    while True:
        pods = json.loads(plane.kubectl("get", "pods", f"--namespace={POLICY.namespace}", "-o", "json"))["items"]
        running = [pod for pod in pods if pod["status"].get("phase") == "Running" and pod["status"].get("podIP")]
        if len(running) == PODS:
            return {PodKey(f"{POLICY.namespace}/{pod['metadata']['name']}"): pod for pod in running}
        if time.monotonic() > deadline:
            events = plane.try_kubectl("get", "events", f"--namespace={POLICY.namespace}").stdout
            raise SetupError(f"{len(running)} of {PODS} pods run after {RUNNING_SECONDS:.0f} s:\n{events}")
        time.sleep(RETRY_SECONDS)


@contextlib.contextmanager
def _running(plane: ControlPlane, key: PodKey, pod: Mapping[str, Any]) -> Iterator[RunningPod]:
    """A pod with the agent that serves and probes in its container."""
    namespace, _, name = key.partition("/")
    ours, theirs = socket.socketpair()
    program = ["env", f"PYTHONPATH={MOUNT}", "python3", "-m", "romana_ovs_emulate.agent.container", key]
    command = [str(plane.kubectl_path), "--kubeconfig", str(plane.kubeconfig), "exec", "-i", f"--namespace={namespace}"]
    with theirs, (plane.folder / "exec.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, name, "--", *program],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=log,
            start_new_session=True,
        )
    agent = AgentClient(key, ours, process.pid)
    place = PodPlacement(key, pod["spec"]["nodeName"], pod["status"]["podIP"], "", pod["metadata"]["uid"])
    try:
        yield RunningPod(place, netns="", port="", agent=agent)
    finally:
        agent.close()
        process.kill()
        process.wait()
