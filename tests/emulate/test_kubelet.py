"""What the kubelets of emulated nodes tell an API server, and when."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from romana_ovs.kube.api.client import Answer
from romana_ovs.model.errors import ApiError, ConflictError, FaultyError, MissingError, SetupError
from romana_ovs.model.objects import PodKey
from romana_ovs_emulate import kubelet as kubelets
from romana_ovs_emulate.kubelet import Kubelet
from romana_ovs_emulate.kubelet_objects import (
    EMULATED,
    LEASE_NAMESPACE,
    node_lease,
    node_object,
    node_status,
    pod_status,
)
from romana_ovs_emulate.pods import PodPlacement
from romana_ovs_emulate.runs import start_run
from tests.support.api_objects import Object, pod

NODES = "/api/v1/nodes"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{LEASE_NAMESPACE}/leases"
PODS = "/api/v1/namespaces/shop/pods"
SECONDS = 20.0
A = PodKey("shop/a")


class ScriptedApi:
    """Objects by their path; `faults` are raised in place of an answer to what begins with (method, path)."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.asked: list[tuple[str, str]] = []
        self.faults: dict[tuple[str, str], ApiError] = {}
        self.changed = threading.Condition()

    def request(self, method: str, path: str, *, body: Any = None, content_type: str = "", **_: Any) -> Answer:
        with self.changed:
            self.asked.append((method, path))
            self.changed.notify_all()
            for (what, begin), error in self.faults.items():
                if method == what and path.startswith(begin):
                    raise error
            return Answer(200, {}, json.dumps(getattr(self, f"_{method.lower()}")(path, body)).encode())

    def _get(self, path: str, _: Any) -> Object:
        if path not in self.objects:
            raise MissingError(path, status=404)
        return self.objects[path]

    def _post(self, path: str, body: Object) -> Object:
        at = f"{path}/{body['metadata']['name']}"
        if at in self.objects:
            raise ConflictError(at, status=409)
        self.objects[at] = copy.deepcopy(body)
        return self.objects[at]

    def _patch(self, path: str, body: Object) -> Object:
        held = self._get(path.removesuffix("/status"), None)
        uid = body.get("metadata", {}).get("uid")
        if uid is not None and held["metadata"].get("uid") != uid:
            raise ConflictError(path, status=409)
        _merge(held, body)
        return held

    def _delete(self, path: str, body: Object | None) -> Object:
        held = self._get(path, None)
        if body is not None and body["preconditions"]["uid"] != held["metadata"].get("uid"):
            raise ConflictError(path, status=409)
        return self.objects.pop(path)

    def until(self, condition: Callable[[], object]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, SECONDS), self.asked

    def times(self, method: str, path: str) -> int:
        return self.asked.count((method, path))


def _merge(held: Object, change: Object) -> None:
    """A merge patch (RFC 7396), without deletions."""
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(held.get(key), dict):
            _merge(held[key], value)
        else:
            held[key] = copy.deepcopy(value)


@dataclass(frozen=True)
class FakeRun:
    id: str = "ab12"


class Rig:
    """A Kubelet of the node n1, whose Api is `api`."""

    def __init__(self, api: ScriptedApi) -> None:
        self.api = api
        self.errors: list[str] = []
        self.ended = 0
        self.kubelet = Kubelet(
            api,  # type: ignore[arg-type]
            addresses={"n1": "192.0.2.1"},
            on_error=self._complain,
            on_terminating=self._end,
        )

    def _complain(self, text: str) -> None:
        with self.api.changed:
            self.errors.append(text)
            self.api.changed.notify_all()

    def _end(self) -> None:
        self.ended += 1

    def start(self, *nodes: str) -> None:
        self.kubelet.start(FakeRun(), dict.fromkeys(nodes or ("n1",)))  # type: ignore[arg-type]

    def take(self, *pods: Object) -> None:
        """The API server has these pods."""
        named = {one["metadata"]["name"]: one for one in pods}
        for name, one in named.items():
            self.api.objects.setdefault(f"{PODS}/{name}", one)
        self.kubelet.on_pods({PodKey(f"shop/{name}"): one for name, one in named.items()})

    def run(self, *names: str, address: str = "10.0.0.1", uid: str = "") -> None:
        """These pods run."""
        keys = [PodKey(f"shop/{name}") for name in names]
        self.kubelet.report_running({key: PodPlacement(key, "n1", address, "", uid) for key in keys})


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr(kubelets, "RETRY_SECONDS", 0.01)
    made = Rig(ScriptedApi())
    yield made
    made.api.faults.clear()
    made.kubelet.close()


def bound_pod(name: str, *, node: str = "n1", uid: str = "u", status: Mapping[str, Any] = {}) -> Object:
    containers = [{"name": "c", "image": "i"}, {"name": "d"}]
    return pod(f"shop/{name}", node, uid=uid, spec={"containers": containers}, status=status)


def terminating_pod(name: str, *, uid: str = "u") -> Object:
    made = bound_pod(name, uid=uid)
    made["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return made


def test_nodes_are_registered_ready_with_address_and_lease(rig: Rig) -> None:
    rig.api.objects[LEASE] = {}
    rig.start("n1", "n2")
    first, second = (rig.api.objects[f"{NODES}/{name}"] for name in ("n1", "n2"))
    assert first["metadata"]["labels"][EMULATED] == "ab12"
    assert {each["type"]: each["address"] for each in first["status"]["addresses"]} == {
        "InternalIP": "192.0.2.1",
        "Hostname": "n1",
    }
    assert [each["type"] for each in second["status"]["addresses"]] == ["Hostname"]
    [ready] = [each for each in first["status"]["conditions"] if each["type"] == "Ready"]
    assert ready["status"] == "True" and ready["lastHeartbeatTime"]
    assert rig.api.objects[f"{LEASE}/n1"]["spec"]["holderIdentity"] == "n1"


def test_when_it_ends_nodes_and_leases_are_gone(rig: Rig) -> None:
    rig.start("n1", "n2")
    rig.api.objects[f"{NODES}/other"] = {"metadata": {"name": "other"}}
    rig.kubelet.close()
    assert list(rig.api.objects) == [f"{NODES}/other"]
    asked = len(rig.api.asked)
    rig.kubelet.close()
    assert len(rig.api.asked) == asked


def test_a_node_of_a_dead_run_is_taken_over(rig: Rig) -> None:
    rig.api.objects[f"{NODES}/n1"] = node_object("n1", "dead")
    rig.start()
    assert rig.api.objects[f"{NODES}/n1"]["metadata"]["labels"][EMULATED] == "ab12"


def test_a_node_of_a_live_run_is_left_alone(rig: Rig) -> None:
    other = start_run()
    try:
        rig.api.objects[f"{NODES}/n1"] = node_object("n1", other.id)
        with pytest.raises(SetupError, match=f"n1 belongs to the emulation {other.id}, which is running"):
            rig.start()
        assert rig.api.objects[f"{NODES}/n1"] == node_object("n1", other.id)
    finally:
        other.close()


def test_a_real_node_is_left_alone(rig: Rig) -> None:
    real = {"metadata": {"name": "n2", "labels": {"a": "b"}}}
    rig.api.objects[f"{NODES}/n2"] = copy.deepcopy(real)
    with pytest.raises(SetupError, match="has a node n2 already, which is not an emulated one"):
        rig.start("n1", "n2")
    assert rig.api.objects == {f"{NODES}/n2": real}, "n1 is gone again"


def test_a_registration_that_fails_leaves_no_node(rig: Rig) -> None:
    rig.api.faults["PATCH", f"{NODES}/n2"] = FaultyError("it broke", status=500)
    with pytest.raises(SetupError, match="the nodes cannot be registered: it broke"):
        rig.start("n1", "n2")
    assert rig.api.objects == {}


def test_the_lease_namespace_may_be_created_later(rig: Rig) -> None:
    rig.api.faults["POST", LEASE] = MissingError("namespaces kube-node-lease not found", status=404)
    rig.start()
    assert f"{NODES}/n1" in rig.api.objects and rig.errors == []


def test_nodes_send_heartbeats(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubelets, "HEARTBEAT_SECONDS", 0.01)
    rig.start()
    rig.api.until(lambda: rig.api.times("PATCH", f"{NODES}/n1/status") > 3)
    rig.api.until(lambda: rig.api.times("PATCH", f"{LEASE}/n1") > 3)


def test_a_running_pod_is_reported_once(rig: Rig) -> None:
    rig.start()
    rig.take(bound_pod("a"), bound_pod("elsewhere", node="real"))
    rig.run("a", "elsewhere")
    rig.api.until(lambda: rig.api.times("PATCH", f"{PODS}/a/status"))
    status = rig.api.objects[f"{PODS}/a"]["status"]
    assert (status["phase"], status["podIP"], status["podIPs"]) == ("Running", "10.0.0.1", [{"ip": "10.0.0.1"}])
    assert status["hostIP"] == "192.0.2.1"
    assert [each["name"] for each in status["containerStatuses"]] == ["c", "d"]
    # What was told is not known here before the watch brings it; until then it is not told again.
    rig.take(bound_pod("a"))
    rig.run("a")
    rig.take(bound_pod("a"), bound_pod("b", uid="v"))
    rig.run("a", "b", address="10.0.0.1")
    rig.api.until(lambda: rig.api.times("PATCH", f"{PODS}/b/status"))
    assert rig.api.times("PATCH", f"{PODS}/a/status") == 1
    assert rig.api.times("PATCH", f"{PODS}/elsewhere/status") == 0
    rig.run("a", "b", address="10.0.0.2")
    rig.api.until(lambda: rig.api.times("PATCH", f"{PODS}/a/status") == 2)


def test_a_pod_with_status_running_is_not_reported(rig: Rig) -> None:
    rig.start()
    rig.take(bound_pod("a", status={"phase": "Running", "podIP": "10.0.0.1"}), bound_pod("b", uid="v"))
    rig.run("a", "b")
    rig.api.until(lambda: rig.api.times("PATCH", f"{PODS}/b/status"))
    assert rig.api.times("PATCH", f"{PODS}/a/status") == 0


def test_another_pod_of_the_same_name_is_distinguished(rig: Rig) -> None:
    rig.start()
    rig.api.objects[f"{PODS}/a"] = bound_pod("a", uid="another")
    rig.take(bound_pod("a", uid="old"))
    rig.run("a")
    rig.api.until(lambda: rig.api.times("PATCH", f"{PODS}/a/status"))
    assert rig.api.objects[f"{PODS}/a"]["status"] == {}
    rig.take(bound_pod("a", uid="another"))
    rig.api.until(lambda: rig.api.times("PATCH", f"{PODS}/a/status") == 2)
    rig.kubelet.close()
    assert rig.api.objects[f"{PODS}/a"]["status"]["podIP"] == "10.0.0.1" and rig.errors == []


def test_a_new_pod_is_not_reported_with_its_predecessors_address(rig: Rig) -> None:
    """The controller hears of pods by a watch of its own, which may be later than ours."""
    rig.start()
    rig.take(bound_pod("a", uid="new"), bound_pod("b", uid="v"))
    rig.run("a", uid="old")
    rig.take(bound_pod("a", uid="new"), bound_pod("b", uid="v"), bound_pod("c", uid="w"))
    rig.run("a", "c", uid="old")
    rig.run("a", uid="new", address="10.0.0.2")
    rig.api.until(lambda: rig.api.times("PATCH", f"{PODS}/a/status"))
    rig.kubelet.close()
    assert rig.api.objects[f"{PODS}/a"]["status"]["podIP"] == "10.0.0.2"
    assert (rig.api.times("PATCH", f"{PODS}/a/status"), rig.api.times("PATCH", f"{PODS}/c/status")) == (1, 0)


def test_only_the_pod_of_the_uid_is_terminating(rig: Rig) -> None:
    rig.take(terminating_pod("a", uid="old"))
    assert (
        rig.kubelet.is_terminating(A)
        and rig.kubelet.is_terminating(A, "old")
        and not rig.kubelet.is_terminating(A, "new")
    )


def test_a_pod_that_fails_to_start_is_not_ready_with_a_reason(rig: Rig) -> None:
    rig.start()
    rig.take(bound_pod("a"), bound_pod("b", uid="v"))
    for _ in range(2):
        rig.kubelet.report_failed({A: "pod shop/a cannot be started: why"})
        rig.run("b", uid="v")
    rig.api.until(lambda: rig.api.times("PATCH", f"{PODS}/b/status"))
    rig.api.until(lambda: rig.api.times("PATCH", f"{PODS}/a/status"))
    status = rig.api.objects[f"{PODS}/a"]["status"]
    (ready,) = status["conditions"]
    assert (status["phase"], ready["type"], ready["status"]) == ("Pending", "Ready", "False")
    assert (ready["reason"], ready["message"]) == ("StartFailed", "pod shop/a cannot be started: why")
    assert rig.api.objects[f"{PODS}/b"]["status"]["phase"] == "Running"
    rig.take(rig.api.objects[f"{PODS}/a"], rig.api.objects[f"{PODS}/b"])
    rig.kubelet.report_failed({})
    rig.run("a", "b")
    rig.api.until(lambda: rig.api.objects[f"{PODS}/a"]["status"].get("podIP"))
    status = rig.api.objects[f"{PODS}/a"]["status"]
    assert status["phase"] == "Running" and all(each["status"] == "True" for each in status["conditions"])
    assert rig.api.times("PATCH", f"{PODS}/a/status") == 2


def test_a_terminating_pod_is_deleted_once_it_has_ended(rig: Rig) -> None:
    rig.start()
    rig.take(bound_pod("a"), bound_pod("b", uid="v"))
    rig.run("a")
    rig.api.until(lambda: rig.api.times("PATCH", f"{PODS}/a/status"))
    assert not rig.kubelet.is_terminating(A) and rig.ended == 0
    rig.take(terminating_pod("a"), bound_pod("b", uid="v"))
    assert rig.kubelet.is_terminating(A) and rig.ended == 1
    rig.take(terminating_pod("a"), bound_pod("b", uid="v"))
    assert rig.ended == 1, "told once"
    rig.run("a", "b")
    rig.api.until(lambda: rig.api.times("PATCH", f"{PODS}/b/status"))
    assert rig.api.times("DELETE", f"{PODS}/a") == 0, "its processes and its port are still there"
    rig.run("b")
    rig.api.until(lambda: rig.api.times("DELETE", f"{PODS}/a"))
    rig.kubelet.close()
    assert f"{PODS}/a" not in rig.api.objects and not rig.kubelet.is_terminating(PodKey("shop/unknown"))


def test_a_rejected_report_is_one_error_and_retried(rig: Rig) -> None:
    rig.start()
    rig.api.faults["PATCH", f"{PODS}/a"] = FaultyError("it broke", status=500)
    rig.take(bound_pod("a"))
    rig.run("a")
    rig.api.until(lambda: rig.api.times("PATCH", f"{PODS}/a/status") > 3)
    assert rig.errors == ["the API server rejects reports of nodes: it broke"]
    with rig.api.changed:
        rig.api.faults.clear()
    rig.api.until(lambda: rig.api.objects[f"{PODS}/a"]["status"].get("podIP") == "10.0.0.1" or None)
    rig.api.faults["PATCH", f"{PODS}/b"] = FaultyError("it broke", status=500)
    rig.take(bound_pod("a"), bound_pod("b", uid="v"))
    rig.run("a", "b")
    rig.api.until(lambda: len(rig.errors) == 2)


def test_close_does_not_wait_for_retries(rig: Rig) -> None:
    rig.start()
    rig.api.faults["PATCH", PODS] = rig.api.faults["DELETE", NODES] = FaultyError("it broke", status=500)
    rig.take(bound_pod("a"))
    rig.run("a")
    rig.api.until(lambda: rig.errors)
    rig.kubelet.close()
    assert f"{NODES}/n1" in rig.api.objects and f"{LEASE}/n1" not in rig.api.objects


def test_objects_are_of_plain_values() -> None:
    made = [
        node_object("n", "r"),
        node_status("n", None, "t"),
        node_lease("n", "t"),
        pod_status(bound_pod("a"), address="10.0.0.1", host=None, now="t"),
    ]
    assert json.loads(json.dumps(made)) == made
    assert "hostIP" not in made[-1] and made[2]["metadata"]["namespace"] == LEASE_NAMESPACE
    assert {each["type"] for each in made[-1]["conditions"]} >= {"Ready", "PodScheduled"}
