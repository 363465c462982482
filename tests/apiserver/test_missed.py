"""What a real API server says to whoever missed something, and what it takes that we must not go by."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from romana_ovs.kube.api.client import Answer, Api
from romana_ovs.kube.api.list_watch import ListWatcher
from romana_ovs.kube.api.messages import Health, ObjectsObserved, Start
from romana_ovs.kube.api.reflector import ListPage
from romana_ovs.kube.api.resources import CLUSTER, PODS, POLICIES
from romana_ovs.kube.api.source import ApiSource
from romana_ovs.kube.cache.cluster_cache import ClusterCache
from romana_ovs.kube.decode.objects import ObjectId
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.cluster import NO_TENANT
from romana_ovs.model.objects import KubernetesPolicy, PodKey, PolicyKey
from romana_ovs.model.settings import Settings
from romana_ovs_emulate.controlplane import ControlPlane
from romana_ovs_emulate.kube import manifests_folder
from tests.apiserver.followed_source import Source, pods_path, policies_path
from tests.support.api_objects import bound_pod, policy, romana_policy
from tests.support.control_plane import needed_binaries
from tests.support.kubernetes_process import kubernetes_process
from tests.support.manifests import BY_OWNER
from tests.support.raw_client import Client


class Counted(Api):
    """Requests, with a note of what was listed."""

    def __init__(self, source: ApiSource) -> None:
        super().__init__(source)
        self.lists: list[str] = []

    def request(self, method: str, path: str, **more: Any) -> Answer:
        if "continue" not in more["query"]:
            self.lists.append(path)
        return super().request(method, path, **more)


class Watcher:
    """Followers of pods and policies, and what comes of all that they tell."""

    def __init__(self, plane: ControlPlane) -> None:
        self.api = Counted(ApiSource(str(plane.kubeconfig)))
        self.store = ClusterCache(Settings(), map(str, (POLICIES, PODS)))
        self.loaded: list[ClusterSnapshot] = []
        self.told: list[object] = []
        self.followers = [
            ListWatcher(self.api, resource, Settings(), self._heard, silent=1.0) for resource in (POLICIES, PODS)
        ]

    def _heard(self, message: object) -> None:
        self.told.append(message)
        if (loaded := self.store.apply(message)) is not None:
            self.loaded.append(loaded)

    def list(self) -> None:
        for follower in self.followers:
            while isinstance(follower._reflector.next_request(), ListPage):
                assert follower.step() == 0


@pytest.fixture
def forgetful() -> Iterator[ControlPlane]:
    """A control plane that is ours to restart: an API server remembers no change from before it began."""
    with ControlPlane(binaries=needed_binaries()) as plane:
        plane.apply(manifests_folder())
        yield plane


def test_an_expired_watch_relists_once_and_finds_every_change(
    forgetful: ControlPlane,
) -> None:
    """docs/hazards.md C2 and C6: policies that went meanwhile, a pod and a policy made anew under their names."""
    with Client.of_kubeconfig(forgetful.kubeconfig) as admin:
        _miss(forgetful, admin, "default")


def _miss(plane: ControlPlane, admin: Client, namespace: str) -> None:
    pods, policies = pods_path(namespace), policies_path(namespace)
    keys = {name: PolicyKey("NetworkPolicy", namespace, name) for name in ("goes", "changes", "stays", "anew")}
    for name in keys:
        admin.create(policies, policy(name, {"podSelector": {"matchLabels": {"app": name}}}))
    first = admin.create(pods, bound_pod("web", "n1", app="web"))["metadata"]["uid"]
    admin.create(pods, bound_pod("other", "n1"))
    watcher = Watcher(plane)
    watcher.list()
    before, web = watcher.loaded[-1].cluster, PodKey(f"{namespace}/web")
    assert before.pods[web].uid == first and before.policies.keys() >= {*keys.values()}
    for path in (f"{policies}/goes", f"{policies}/anew", f"{pods}/web"):
        admin.delete(path)
    admin.patch(f"{policies}/changes", {"spec": {"podSelector": {"matchLabels": {"app": "web"}}}})
    admin.create(policies, policy("anew", {"podSelector": {"matchLabels": {"app": "changed"}}}))
    second = admin.create(pods, bound_pod("web", "n1", app="web"))["metadata"]["uid"]
    plane.kill_api_server()
    plane.start_api_server()
    del watcher.api.lists[:], watcher.told[:]
    for follower in watcher.followers:
        assert follower.step() > 0 and isinstance(follower._reflector.next_request(), ListPage), "it was told 410"
    assert watcher.loaded[-1].cluster is before, "nothing is deleted before the listing is complete"
    watcher.list()
    now = watcher.loaded[-1].cluster
    assert now.pods[web].uid == second != first
    assert keys["goes"] not in now.policies and now.policies[keys["stays"]] is before.policies[keys["stays"]]
    assert all(now.policies[keys[name]] != before.policies[keys[name]] for name in ("changes", "anew"))
    updates = [update.id.name for one in watcher.told if isinstance(one, ObjectsObserved) for update in one.updates]
    assert {*updates} >= {"web", "changes", "anew"} and not {*updates} & {"stays", "other"}, "differences only"
    assert not [one for one in watcher.told if isinstance(one, Health)], "it is everyday life"
    for follower in watcher.followers:
        follower.step()  # Now it watches, for as long as nothing comes.
    assert watcher.api.lists == [POLICIES.path, PODS.path], "there is no second listing"


def test_without_admission_pod_authors_still_choose_no_tenant(
    control_plane: ControlPlane, admin: Client, namespace: str
) -> None:
    """docs/hazards.md E1, E2 and E5: admission is not applied here, so the controller closes such labels."""
    web = PodKey(f"{namespace}/web")
    objects = {ObjectId("Pod", namespace, "web"), ObjectId("RomanaNetworkPolicy", namespace, "p")}
    with kubernetes_process(lambda message: made[0].heard(message)) as process:
        made = [Source(process, ClusterCache(BY_OWNER))]
        process.send(Start(ApiSource(str(control_plane.kubeconfig)), BY_OWNER, CLUSTER))
        opening = romana_policy("p", {"podSelector": {}, "allowIncoming": [{}]})
        opening["metadata"]["labels"] = {"owner": "t1"}
        admin.create(policies_path(namespace, "romana.io"), opening)
        admin.create(pods_path(namespace), bound_pod("web", "n1", owner="t1"))
        made[0].until(lambda _: made[0].store.invalid >= objects)
        for tenant in ("t1", "t2", "shared", "t1"):
            admin.patch(f"{pods_path(namespace)}/web", {"metadata": {"labels": {"owner": tenant, "now": tenant}}})
            loaded = made[0].until(partial(_is_labelled, web, tenant))
            assert loaded.cluster.tenant_of(loaded.cluster.pods[web]) == NO_TENANT
            assert made[0].store.invalid >= objects
        [found] = [one for one in loaded.cluster.policies.values() if one.namespace == namespace]
        assert isinstance(found, KubernetesPolicy) and not found.ingress, "it isolates, and allows nothing"
        told = {str(problem) for problem in loaded.problems if problem.name.startswith(f"{namespace}/")}
        said = f'label "owner" names tenant "t1", but namespace {namespace} has no label tenants.romana.io/t1=allowed'
        assert len([problem for problem in told if said in problem]) == 2
        # Whoever may label namespaces says so; then it counts.
        admin.patch(f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": {"tenants.romana.io/t1": "allowed"}}})
        now = made[0].until(lambda loaded: loaded.cluster.tenant_of(loaded.cluster.pods[web]) == "t1")
        assert not made[0].store.invalid & objects
        assert PolicyKey("RomanaNetworkPolicy", namespace, "p") in now.cluster.policies


def _is_labelled(pod: PodKey, tenant: str, loaded: ClusterSnapshot) -> bool:
    return loaded.cluster.pods[pod].labels.get("now") == tenant
