"""A cluster of an API server, as the emulator follows it: one listing and watch of everything, and pods as they are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from romana_ovs.kube.api.messages import Health, ListCompleted, ListStarted, ObjectsObserved, Update
from romana_ovs.kube.api.resources import CLUSTER, NAMESPACES, NODES, PODS, Resource
from romana_ovs.kube.api.source import ApiSource
from romana_ovs.model.errors import ApiError, MissingError, SetupError, UnreachableError
from romana_ovs.model.objects import PodKey
from romana_ovs.model.settings import Settings
from romana_ovs_emulate import api_cluster
from romana_ovs_emulate.api_cluster import ApiCluster
from tests.support.api_objects import pod
from tests.support.observed_objects import decoded

A = PodKey("shop/a")


@dataclass(frozen=True)
class FakeApi:
    source: ApiSource
    error: ApiError | None = None

    def request(self, *_: object, **__: object) -> None:
        if self.error is not None:
            raise self.error


class Told:
    """In the place of what follows resources: says nothing but what the test has it say."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.followed: dict[Resource, Callable[[object], None]] = {}
        self.first: dict[str, list[dict[str, Any]]] = {}
        told = self

        class ListWatcher:
            def __init__(self, _: object, resource: Resource, __: Settings, send: Callable[[object], None]) -> None:
                self.resource, self.send = resource, send

            def start(self) -> None:
                told.followed[self.resource] = self.send
                for message in told.listing(self.resource):
                    self.send(message)

        monkeypatch.setattr(api_cluster, "ListWatcher", ListWatcher)

    def listing(self, resource: Resource) -> list[object]:
        name = str(resource)
        if name not in self.first:
            return [Health(name, f"{name} are not told")]
        updates = tuple(decoded(one, resource) for one in self.first[name])
        return [ListStarted(name), ObjectsObserved(name, updates), ListCompleted(name)]

    def say(self, resource: Resource, value: dict[str, Any], *, there: bool = True) -> None:
        """A change of an object; of pods both who decode them and who do not hear of it."""
        for one, send in self.followed.items():
            if str(one) == str(resource):
                found = decoded(value, one)
                send(ObjectsObserved(str(one), (found if there else Update(found.id, exists=False),)))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    made = Told(monkeypatch)
    made.first = {str(resource): [] for resource in CLUSTER}
    made.first[str(NODES)] = [{"metadata": {"name": "n"}}]
    made.first[str(PODS)] = [pod("shop/a", "n", uid="a")]
    return made


def api_cluster_of(name: str = "") -> ApiCluster:
    return ApiCluster(FakeApi(ApiSource(name)), Settings())  # type: ignore[arg-type]


def test_the_cluster_is_complete_once_listed(told: Told) -> None:
    followed = api_cluster_of("config")
    with pytest.raises(SetupError, match="has not listed"):
        followed.read()
    followed.start()
    assert list(followed.read().cluster.pods) == [A] and list(followed.read().cluster.nodes) == ["n"]
    assert followed.served() == ("80/tcp",)
    assert "kubectl --kubeconfig" in followed.edit_hint


def test_a_failed_list_is_an_error_with_the_reason(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_cluster, "LISTING_SECONDS", 0.01)
    del told.first[str(NAMESPACES)]
    with pytest.raises(SetupError, match="does not list its objects: namespaces are not told"):
        api_cluster_of().start()


def test_an_unreachable_server_is_an_error_at_once() -> None:
    api = FakeApi(ApiSource("config"), UnreachableError("https://127.0.0.1:1: Connection refused"))
    with pytest.raises(SetupError, match=r"cannot be reached: https://127.0.0.1:1: Connection refused"):
        ApiCluster(api, Settings()).start()  # type: ignore[arg-type]


def test_a_cluster_without_crds_is_an_error() -> None:
    with pytest.raises(SetupError, match="kubectl apply -f etc/kubernetes"):
        api = FakeApi(ApiSource("config"), MissingError("GET /apis/romana.io/v1/allocations: 404", status=404))
        ApiCluster(api, Settings()).start()  # type: ignore[arg-type]


def test_handlers_get_pods_as_the_server_has_them(told: Told) -> None:
    followed, changes = api_cluster_of(), 0
    pods: list[Mapping[PodKey, Mapping[str, Any]]] = []

    def changed() -> None:
        nonlocal changes
        changes += 1

    followed.start()
    followed.changed = changed
    followed.watch_pods(pods.append)
    assert [list(each) for each in pods] == [[A]] and pods[0][A]["spec"]["nodeName"] == "n"
    told.say(PODS, pod("shop/b", "n", uid="b"))
    assert list(pods[-1]) == [A, "shop/b"] and changes == 1
    told.say(PODS, pod("shop/a", "n", uid="a", status={"phase": "Pending"}))
    assert pods[-1][A]["status"] == {"phase": "Pending"} and len(pods) == 3
    told.say(PODS, pod("shop/b", "n", uid="b"), there=False)
    assert list(pods[-1]) == [A] and list(followed.read().cluster.pods) == [A]


def test_a_pod_added_during_the_first_call_comes_after_it(told: Told) -> None:
    followed, pods = api_cluster_of(), []
    followed.start()
    coming = threading.Thread(target=lambda: told.say(PODS, pod("shop/b", "n", uid="b")))

    def take(now: Mapping[PodKey, Mapping[str, Any]]) -> None:
        if not coming.ident:
            coming.start()
            coming.join(0.2)
        pods.append(list(now))

    followed.watch_pods(take)
    coming.join()
    assert pods == [[A], [A, "shop/b"]]


def test_waiting_for_a_condition_of_the_cluster(told: Told) -> None:
    followed = api_cluster_of()
    followed.start()
    assert list(followed.await_cluster(lambda found: A in found.pods).pods) == [A]
    with pytest.raises(SetupError, match="after 0 s"):
        followed.await_cluster(lambda found: not found.pods, 0.01)
