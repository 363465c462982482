"""A cluster of real nodes (romana_ovs_emulate.cluster) with the objects, commands and counts that tests need."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from romana_ovs_emulate.cluster import images, requirements, runtime, switch
from romana_ovs_emulate.cluster.cluster import Cluster
from romana_ovs_emulate.cluster.node import ClusterNode
from romana_ovs_emulate.patience import patience
from tests.support.api_objects import Object, namespace
from tests.support.waiting import eventually

RUNNING_SECONDS = patience(60.0)
"""How long pods may take to run, on a loaded machine."""
GONE_SECONDS = 110.0
"""How long a namespace may take to be gone, half a minute where the runtime was killed; kubectl has two minutes."""
HTTP = ("httpd", "-f", "-p", "80", "-h", "/www")
CONNECT_SECONDS = 2


def skip_without_requirements() -> None:
    """Skips where a cluster cannot run, which in CI is a failure."""
    if reason := requirements.missing_requirement():
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


@dataclass(frozen=True)
class RealCluster:
    """A running cluster."""

    cluster: Cluster

    @property
    def nodes(self) -> Sequence[ClusterNode]:
        """The nodes, by name."""
        return [self.cluster.nodes[name] for name in sorted(self.cluster.nodes)]

    # Objects.

    def create(self, *objects: Object) -> None:
        """Create objects."""
        manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.cluster.plane.kubectl("create", "-f", "-", stdin=manifest)

    def create_namespace(self, name: str) -> None:
        """Create a namespace; returns when pods can be created in it."""
        self.create(namespace(name))
        plane = self.cluster.plane
        eventually(
            lambda: plane.try_kubectl("get", "serviceaccount", "default", "-n", name).returncode == 0,
            f"namespace {name} has its service account",
        )

    def delete_namespace(self, name: str) -> None:
        """Delete a namespace with all that is in it; returns when it is gone."""
        self.cluster.plane.kubectl("delete", "namespace", name, f"--timeout={GONE_SECONDS:.0f}s")

    def await_running(self, space: str, count: int) -> dict[str, Object]:
        """The pods of a namespace by name, as soon as so many run."""

        def running() -> dict[str, Object] | None:
            pods = self.pods(space)
            ready = [pod for pod in pods.values() if _is_ready(pod)]
            return pods if len(ready) == len(pods) == count else None

        return eventually(running, f"{count} pods of {space} run", RUNNING_SECONDS)

    def pods(self, space: str) -> dict[str, Object]:
        """The pods of a namespace by name."""
        listed = json.loads(self.cluster.plane.kubectl("get", "pods", "-n", space, "-o", "json"))
        return {pod["metadata"]["name"]: pod for pod in listed["items"]}

    # What pods do.

    def execute(self, space: str, pod: str, *argv: str) -> str:
        """The output of a command in a pod, with its exit code as the last line."""
        command = ["exec", "-n", space, pod, "--", "sh", "-c", '"$@"; echo "exit $?"', "sh", *argv]
        return self.cluster.plane.kubectl(*command)

    def connects(self, space: str, client: str, address: str) -> bool:
        """Whether a pod gets the page of another one's web server."""
        # Debian's static busybox crashes with the option -T of its wget.
        limit = ("timeout", str(CONNECT_SECONDS))
        output = self.execute(space, client, *limit, "wget", "-q", "-O", "-", f"http://{address}/")
        return output.splitlines() == [images.PAGE.decode().strip(), "exit 0"]

    # What is on a node.

    def traces(self, node: ClusterNode, space: str) -> dict[str, list[str]]:
        """What pods have on a node while they run, by kind, without the kinds of which there is nothing.

        Containers are those of the namespace `space`, all else is of all pods that have a network of their own.
        """
        links = json.loads(node.call("ip", "-j", "link", "show"))
        filters = f'labels."io.kubernetes.pod.namespace"=={space}'
        kinds = {
            "devices": sorted(link["ifname"] for link in links if link["ifname"].startswith("rp")),
            "ports": sorted(
                port for port in switch.vsctl(node, "list-ports", "br-int").split() if port.startswith("rp")
            ),
            "namespaces": sorted(path.name for path in node.path("/run/netns").iterdir()),
            "containers": runtime.ctr(node, "containers", "list", "-q", filters).split(),
            "cached results": _names(node, "/var/lib/cni/results"),
            "queued": _names(node, "/var/lib/romana-ovs/deletes"),
        }
        return {kind: names for kind, names in kinds.items() if names}

    def kill_process(self, node: ClusterNode, words: str) -> None:
        """Kill the one process of a node whose command line has these words; the kubelet starts its container again."""
        (pid,) = node.call("pgrep", "-f", words).split()
        node.call("kill", "-9", pid)

    def connections(self, node: ClusterNode, address: str) -> list[str]:
        """The entries of the switch's connection table that have this address."""
        return [line for line in switch.appctl(node, "dpctl/dump-conntrack").splitlines() if f"={address}," in line]


def web_pod(space: str, name: str, node: str, **labels: str) -> Object:
    """A pod with a web server on port 80."""
    return _pod(space, name, node, HTTP, labels)


def idle_pod(space: str, name: str, node: str, **labels: str) -> Object:
    """A pod that waits to be told what to run."""
    return _pod(space, name, node, ("sleep", "100000"), labels)


def _pod(space: str, name: str, node: str, command: Sequence[str], labels: Mapping[str, str]) -> Object:
    container: dict[str, Any] = {
        "name": "main",
        "image": images.BUSYBOX,
        "imagePullPolicy": "Never",
        "command": list(command),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": space, "labels": {"app": name, **labels}},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]},
    }


def _is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _names(node: ClusterNode, folder: str) -> list[str]:
    path = node.path(folder)
    return sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
