"""A cluster of real bridges whose controllers are processes of their own: a registry, and one for each node.

    with split_cluster(plane, ("n1", "n2")) as cluster:
        cluster.pod("ns", "web", "n1")
        cluster.settled()

`tick` is every node's kubelet, once: whoever waits calls it, so that no thread of the test's own runs beside it.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from urllib3.exceptions import HTTPError

from romana_ovs.controller.status_reporter import digest
from romana_ovs.engine.node_agent import NodeAgent
from romana_ovs.flag import Flag
from romana_ovs.kube.api.messages import ListCompleted, ListStarted, ObjectsObserved
from romana_ovs.kube.api.object_decoder import decoder, object_meta
from romana_ovs.kube.api.resources import CLUSTER
from romana_ovs.kube.cache.cluster_cache import ClusterCache
from romana_ovs.kube.published import published_from_json
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.bridge import BridgeFacts
from romana_ovs.model.connection import PortRef
from romana_ovs.model.objects import PodKey
from romana_ovs.model.settings import Settings
from romana_ovs.pipeline.flow import Flow, FlowKey
from romana_ovs.policy.matrix import PodPath, reachability
from romana_ovs.state import StateFile
from romana_ovs.switch.bridges import bridges
from romana_ovs.switch.ovsdb import OvsdbWatch
from romana_ovs_emulate.agent_client import Zygote
from romana_ovs_emulate.controlplane import ControlPlane
from romana_ovs_emulate.fabric import Fabric, join, underlay_address
from romana_ovs_emulate.kubelet_objects import node_object, node_status, pod_status
from romana_ovs_emulate.nodes import BRIDGE, Node, start_node
from romana_ovs_emulate.pods import PodPlacement, Pods, RunningPod
from romana_ovs_emulate.probe import measure, probe_once
from romana_ovs_emulate.runs import Run, start_run
from tests.support import api_objects
from tests.support.api_objects import Object
from tests.support.confirming_engine import ConfirmingEngine
from tests.support.controller_process import Controller
from tests.support.datapath import datapath_type
from tests.support.merged_state import merged_state
from tests.support.private_ovs import RawSwitch
from tests.support.raw_client import Client, Refused

PATIENCE = 60.0
"""Seconds that anything may take on a loaded machine."""
TICK = 0.05
PORTS = ("80/tcp", "81/tcp", "80/udp")
SYSTEM = "kube-system"
ROMANA = "/apis/romana.io/v1"


class SplitController(Controller):
    """One controller of a cluster, with the options that say which nodes it drives."""

    def __init__(self, name: str, kubeconfig: Path, options: Sequence[str], nodes: Sequence[Node] = ()) -> None:
        # The registry asks no database, but the setting must name one.
        super().__init__([node.ovsdb for node in nodes] or ["unix:/nowhere"])
        self.name = name
        self.nodes = tuple(node.name for node in nodes)
        self._argv = (sys.executable, "-m", "romana_ovs", "controller", "--kubeconfig", str(kubeconfig), *options)

    def start(self, argv: Sequence[str] = ()) -> None:
        """Start it, again too; returns when its status feed is there."""
        super().start(argv or self._argv)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def child(self) -> int:
        """The process id of its Kubernetes process."""
        assert self.process is not None
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                words = path.read_text().rpartition(")")[2].split()
                ours = int(words[1]) == self.process.pid
                if ours and b"romana_ovs.kube.api.process" in (path.parent / "cmdline").read_bytes():
                    return int(path.parent.name)
        raise AssertionError(f"{self.name} has no Kubernetes process")

    @property
    def saved(self) -> dict[str, Any]:
        """What its state file holds."""
        return dict(StateFile(self.folder / "state").load() or {})

    def is_connected(self) -> bool:
        """Whether its switches are."""
        nodes = self.state.get("nodes", {})
        return all(nodes.get(name, {}).get("connected") for name in self.nodes)

    def is_done(self) -> bool:
        """Whether its switches have all that it knows of."""
        state = self.state
        nodes = [state.get("nodes", {}).get(name, {}) for name in self.nodes]
        return (
            bool(state)
            and not state["pending"]
            and all(
                node.get("state") == "synced" and node["synced_generation"] == state["generation"] for node in nodes
            )
        )


@dataclass
class SplitCluster:
    """Made by `split_cluster`. `controllers` by name: `registry`, and each node's by the node's."""

    plane: ControlPlane
    admin: Client
    run: Run
    nodes: Mapping[str, Node]
    pods: Pods
    controllers: dict[str, SplitController] = field(default_factory=dict)
    _uids: dict[PodKey, str] = field(default_factory=dict)
    _announced: dict[str, str] = field(default_factory=dict)

    # Objects.

    def namespace(self, name: str, **labels: str) -> str:
        self.admin.create("/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
        return name

    def pod(self, namespace: str, name: str, node: str, **labels: str) -> PodKey:
        """A new pod on a node; it runs once its controller has an address for it and somebody waits."""
        self.admin.create(
            f"/api/v1/namespaces/{namespace}/pods",
            api_objects.bound_pod(name, node, **{"app": name, **labels}),
        )
        return PodKey(f"{namespace}/{name}")

    def delete_pod(self, key: PodKey) -> None:
        namespace, _, name = key.partition("/")
        self.admin.delete(f"/api/v1/namespaces/{namespace}/pods/{name}")

    def policy(self, namespace: str, name: str, spec: Object, group: str = "networking.k8s.io") -> str:
        """A new policy, or another spec of one that there is; returns its path."""
        path = f"/apis/{group}/v1/namespaces/{namespace}/networkpolicies"
        body = api_objects.policy(name, spec) | {"apiVersion": f"{group}/v1"}
        try:
            self.admin.create(path, body)
        except Refused as there:
            assert there.status == 409, there
            self._put(f"{path}/{name}", body)
        return f"{path}/{name}"

    def _put(self, path: str, body: Object) -> None:
        """Replace an object, again when its status was written in between."""
        while True:
            metadata = {**body["metadata"], "resourceVersion": self.admin.get(path)["metadata"]["resourceVersion"]}
            try:
                self.admin.put(path, {**body, "metadata": metadata})
            except Refused as conflict:
                assert conflict.status == 409, conflict
            else:
                return

    def clear(self) -> None:
        """Take every pod and policy away; returns when all is settled."""
        for path in ("/apis/networking.k8s.io/v1/networkpolicies", f"{ROMANA}/networkpolicies", "/api/v1/pods"):
            for raw in self.admin.get(path)["items"]:
                place, (group, _, name) = raw["metadata"], path.rpartition("/")
                self.admin.delete(f"{group}/namespaces/{place['namespace']}/{name}/{place['name']}")
        self.settled()

    def loaded(self) -> ClusterSnapshot:
        """What a whole-cluster controller makes of what the API server has now."""
        return self._read()[0]

    def _read(self) -> tuple[ClusterSnapshot, str]:
        """The same, with the digest of its policies that nodes report when they have all of them."""
        store, snapshot = ClusterCache(Settings()), None
        for resource in CLUSTER:
            decode, name = decoder(resource, Settings()), str(resource)
            heads = [(item, object_meta(item, resource)) for item in self.admin.get(resource.path)["items"]]
            updates = tuple(decode(item, head) for item, head in heads if head is not None)
            for message in (ListStarted(name), ObjectsObserved(name, updates), ListCompleted(name)):
                snapshot = store.apply(message) or snapshot
        assert snapshot is not None
        return snapshot, digest(store.policies)

    def allocation(self) -> Object:
        """What the registry has published for all."""
        return dict(self.admin.get(f"{ROMANA}/allocations/cluster")["spec"])

    def report(self, node: str) -> Object:
        """A node's report; empty while there is none."""
        reports = {one["metadata"]["name"]: one for one in self.admin.get(f"{ROMANA}/nodereports")["items"]}
        return dict(reports.get(node, {}).get("status", {}))

    def conditions(self, path: str) -> dict[str, tuple[str, str]]:
        """Status and reason of each condition of an object."""
        status = self.admin.get(path).get("status", {})
        return {each["type"]: (each["status"], each["reason"]) for each in status.get("conditions", ())}

    def events(self, namespace: str) -> set[str]:
        """The reasons of all Events of a namespace."""
        path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
        return {each["reason"] for each in self.admin.get(path)["items"]}

    # Nodes.

    def tick(self) -> None:
        """What kubelets do: run the pods that are bound to their nodes, and report their addresses."""
        listed = _unless_away(lambda: self.admin.get("/api/v1/pods")["items"])
        if listed is None:
            return  # All goes on as it is.
        wanted = {
            PodKey(f"{raw['metadata']['namespace']}/{raw['metadata']['name']}"): raw
            for raw in listed
            if raw["spec"].get("nodeName") in self.nodes and "deletionTimestamp" not in raw["metadata"]
        }
        running = self.pods.running
        same = {key for key in running if key in wanted and wanted[key]["metadata"]["uid"] == self._uids[key]}
        if same != running.keys():
            self.pods.reconcile([running[key].place for key in same])
        statuses = {
            key: state
            for controller in self.controllers.values()
            for key, state in controller.state.get("pods", {}).items()
        }
        places = {
            key: PodPlacement(
                key, statuses[key]["node"], statuses[key]["address"], statuses[key]["mac"], statuses[key]["uid"]
            )
            for key in wanted
            if key in statuses and statuses[key]["uid"] == wanted[key]["metadata"]["uid"]
        }
        self._uids = {key: raw["metadata"]["uid"] for key, raw in wanted.items()}
        self.pods.reconcile({**{key: running[key].place for key in same}, **places}.values())
        for key, raw in wanted.items():
            if key in places and statuses[key]["port"] is not None and key in self.pods.running:
                self._report(raw, statuses[key]["address"])

    def _report(self, raw: Object, address: str) -> None:
        uid, path = raw["metadata"]["uid"], raw["metadata"]["namespace"] + "/pods/" + raw["metadata"]["name"]
        if raw.get("status", {}).get("podIP") == address or self._announced.get(uid) == address:
            return
        status = pod_status(raw, address=address, host=None, now=_now())
        with contextlib.suppress(HTTPError, Refused):
            self.admin.patch(f"/api/v1/namespaces/{path}/status", {"metadata": {"uid": uid}, "status": status})
            self._announced[uid] = address

    def until(self, check: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
        """What `check` finds as soon as it finds something. Fails the test after `patience` seconds."""
        limit = time.monotonic() + patience
        while not (result := _unless_away(check)):
            if time.monotonic() > limit:
                pytest.fail(f"not within {patience} s: {what}\n{self._words()}")
            self.tick()
            time.sleep(TICK)
        return result

    def _words(self) -> str:
        return "\n".join(
            f"--- {name}: problems {controller.state.get('problems')} pending {controller.state.get('pending')} "
            f"nodes {controller.state.get('nodes')}\n{controller.log[-1500:]}"
            for name, controller in self.controllers.items()
        )

    def settled(self, *keys: PodKey, but: Sequence[str] = ()) -> None:
        """Returns when every node but some has all that there is, with `keys` and all other pods running."""
        nodes = [name for name in self.nodes if name not in but]

        def done() -> bool:
            loaded, policies = self._read()
            pods = {key: pod for key, pod in loaded.cluster.pods.items() if pod.node in nodes}
            there = {
                key
                for controller in self.controllers.values()
                for key, pod in controller.state.get("pods", {}).items()
                if pod["node"] in nodes and pod["port"] is not None and key in self.pods.running
            }
            reported = all(self.report(node).get("policiesDigest") == policies for node in nodes)
            ready = [
                controller.is_done()
                for name, controller in self.controllers.items()
                if name not in but and controller.running
            ]
            addressed = all(pod.address is not None for pod in pods.values())
            return all(ready) and reported and addressed and there == pods.keys() and pods.keys() >= {*keys}

        self.until(done, f"all is settled, with {keys}")

    def address(self, key: PodKey) -> str:
        return self.pods.running[key].place.address

    def flows(self, name: str) -> set[str]:
        """The flows of a node's bridge, without what counts."""
        node, lines = self.nodes[name], set()
        for line in node.ofctl("dump-flows", "--no-stats").splitlines():
            if "actions=" in line:
                lines.add(line.strip())
        return lines

    def youngest(self, name: str) -> float:
        """Seconds since the last flow-mod that a node's bridge followed, but for those that took flows away."""
        shown = self.nodes[name].ofctl("dump-flows")
        return min(float(age) for age in re.findall(r"duration=([0-9.]+)s", shown))

    def facts(self) -> dict[str, BridgeFacts]:
        """What is known of every node's bridge."""
        facts: dict[str, BridgeFacts] = {}
        for name, node in self.nodes.items():
            watch = OvsdbWatch(node.ovsdb, Flag())
            try:
                limit = time.monotonic() + PATIENCE
                while not watch._idl.run() and time.monotonic() < limit:
                    time.sleep(TICK)
                [bridge] = [one for one in bridges(watch._rows()) if one.node == name]
            finally:
                watch._idl.close()
            facts[name] = bridge.facts
        return facts

    def has(self, name: str) -> dict[FlowKey, Flow]:
        """The flows of a node's bridge as the switch itself tells them."""
        management = SimpleNamespace(management=lambda _: self.nodes[name].management)
        switch = RawSwitch(management, BRIDGE)  # type: ignore[arg-type]
        try:
            return {item.flow.key: item.flow for item in switch.read()}
        finally:
            switch.close()

    def saved_state(self) -> dict[str, Any]:
        """The state files of all nodes as the one of a controller that drives them all."""
        saved = {name: self.controllers[name].saved for name in self.nodes}
        newest = max(
            (each["published"] for each in saved.values()),
            key=lambda one: published_from_json(one).revision,
        )
        agents = {name: each["parts"][name] for name, each in saved.items()}
        return {"format": 1, "parts": agents, "published": newest}

    def merged_engine(self) -> ConfirmingEngine:
        """One process for the whole cluster, with the numbers that the registry and the nodes gave."""
        state = self.saved_state()
        nodes = [
            NodeAgent(name, Settings(), {**agent, "published": state["published"]})
            for name, agent in state["parts"].items()
        ]
        engine = ConfirmingEngine(Settings(), merged_state(published_from_json(state["published"]), nodes))
        engine.update(self.loaded().cluster)
        return engine

    def opens(self, source: PodKey, destination: PodKey, port: str) -> bool:
        """Whether a real connection comes through."""
        path = PodPath(source, destination, port)
        return probe_once(self.pods.running, [path])[path].open

    def verdicts(self, *keys: PodKey) -> list[str]:
        """Every path between these pods that real packets find otherwise than the reference evaluation."""
        cluster = self.loaded().cluster
        addresses = {key: IPv4Address(pod.place.address) for key, pod in self.pods.running.items()}
        expected = reachability(cluster, addresses, [PortRef.parse(port) for port in PORTS])
        pods: dict[PodKey, RunningPod] = {key: self.pods.running[key] for key in keys}
        measured = measure(pods, PORTS, expected=expected)
        return [
            str(one)
            for one in measured.differences(expected)
            if one.path.source in pods and one.path.destination in pods
        ]

    # Controllers.

    def start(self, *names: str) -> None:
        """Start these controllers, all at once."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda name: self.controllers[name].start(), names))

    @contextmanager
    def all_in_one(self) -> Iterator[SplitController]:
        """One controller in the place of all the others, with what they have saved."""
        before, state = self.controllers, self.saved_state()
        for controller in before.values():
            controller.stop()
        config = self.plane.kubeconfig_for_service_account(SYSTEM, "romana-controller")
        with SplitController("whole", config, [], list(self.nodes.values())) as whole:
            StateFile(whole.folder / "state").save(state)
            self.controllers = {"whole": whole}
            try:
                self._point({name: whole for name in self.nodes})
                whole.start()
                yield whole
            finally:
                whole.stop()
                self.controllers = before
                self._point(before)
                self.start(*before)

    def _point(self, controllers: Mapping[str, SplitController]) -> None:
        """Have each node's bridge look for its controller there."""
        for name, node in self.nodes.items():
            link = node.folder / "controller.sock"
            link.unlink()
            link.symlink_to(controllers[name].openflow)

    def heal(self) -> None:
        """Start whatever does not run."""
        away = [name for name, controller in self.controllers.items() if not controller.running]
        self.start(*away)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _unless_away(ask: Callable[[], Any]) -> Any:
    """What `ask` finds, None while the API server does not answer or is not ready."""
    try:
        return ask()
    except HTTPError:
        return None
    except Refused as refused:
        if refused.status != 429 and refused.status < 500:
            raise
        return None


@contextmanager
def split_cluster(
    plane: ControlPlane, names: Sequence[str], through: Mapping[str, str] | None = None
) -> Iterator[SplitCluster]:
    """A running cluster of these nodes, each with the rights that etc/kubernetes gives it.

    `through` are the URLs that some controllers, by their names, ask in place of the API server's own.
    """
    run = start_run()
    try:
        zygote = Zygote(run)
        try:
            with contextlib.ExitStack() as stack:
                admin = stack.enter_context(Client.of_kubeconfig(plane.kubeconfig))
                yield stack.enter_context(_cluster(plane, admin, run, zygote, names, through or {}))
        finally:
            run.close()
            zygote.close()
    finally:
        run.close()


@contextmanager
def _cluster(
    plane: ControlPlane, admin: Client, run: Run, zygote: Zygote, names: Sequence[str], through: Mapping[str, str]
) -> Iterator[SplitCluster]:
    for index, name in enumerate(names):
        admin.create("/api/v1/nodes", node_object(name, run.id))
        status = node_status(name, str(underlay_address(index)), _now())
        admin.patch(f"/api/v1/nodes/{name}/status", {"status": status})
    with contextlib.ExitStack() as stack:
        account = plane.kubeconfig_for_service_account
        config = _through(through.get("registry"), account(SYSTEM, "romana-registry"))
        registry = stack.enter_context(SplitController("registry", config, ["--registry"]))
        controllers, nodes = {"registry": registry}, {}
        for name in names:
            config = _through(through.get(name), account(SYSTEM, "romana-node", node=name))
            node_controller = SplitController(name, config, ["--node", name])
            controllers[name] = stack.enter_context(node_controller)
            nodes[name] = start_node(run, name, controller=Path(node_controller.openflow), datapath=datapath_type())
            node_controller.remotes, node_controller.nodes = [nodes[name].ovsdb], (name,)
        # A node knows its own links only, and reaches all others through its tunnel.
        join(run, list(nodes.values()), Fabric.VXLAN)
        pods = Pods(run, nodes, zygote, mtu=Fabric.VXLAN.mtu)
        pods.serve(PORTS)
        cluster = SplitCluster(plane, admin, run, nodes, pods, controllers)
        cluster.start(*controllers)
        cluster.settled()
        yield cluster


def _through(url: str | None, config: Path) -> Path:
    """A kubeconfig of the same user, who asks `url` in place of what stands there."""
    if url is None:
        return config
    content = json.loads(config.read_text())
    content["clusters"][0]["cluster"] = {"server": url}
    path = config.with_suffix(".through")
    path.write_text(json.dumps(content))
    return path
