"""A real API server as the source: what is created there is what the controller's process tells."""

from __future__ import annotations

import json
import os
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import yaml

from romana_ovs.kube.api.client import Api
from romana_ovs.kube.api.list_watch import ListWatcher
from romana_ovs.kube.api.messages import Health, ListCompleted, LogLine, ObjectsObserved
from romana_ovs.kube.api.resources import CLUSTER, NAMESPACES, PODS, ROMANA_POLICIES, pods_of
from romana_ovs.kube.api.source import ApiSource
from romana_ovs.kube.cache.cluster_cache import ClusterCache
from romana_ovs.kube.decode.limits import MAX_TERMS
from romana_ovs.model.errors import DeniedError, UnreachableError
from romana_ovs.model.labels import EVERYTHING
from romana_ovs.model.objects import KubernetesPolicy, Pod, PodKey, PolicyKey
from romana_ovs.model.settings import Settings
from romana_ovs_emulate import binaries
from romana_ovs_emulate.controlplane import ControlPlane
from romana_ovs_emulate.kube import manifests_folder
from tests.apiserver.followed_source import pods_path, policies_path, source
from tests.support.api_objects import bound_pod, policy, romana_policy
from tests.support.kubernetes_process import SECONDS
from tests.support.raw_client import Client

NODES_PATH = "/api/v1/nodes"


def test_it_follows_what_happens(control_plane: ControlPlane, admin: Client, namespace: str) -> None:
    key = PodKey(f"{namespace}/web")
    admin.create(pods_path(namespace), bound_pod("web", "n1", app="web"))
    with source(control_plane.kubeconfig) as followed:
        one = followed.until(lambda loaded: key in loaded.cluster.pods).cluster.pods[key]
        # Nobody has given it an address yet: it is ours to give.
        assert one.networked and one.address is None and one.node == "n1" and one.labels["app"] == "web"
        assert followed.cluster.namespaces[namespace].labels["kubernetes.io/metadata.name"] == namespace
        admin.patch(f"{pods_path(namespace)}/web/status", {"status": {"phase": "Running", "podIP": "10.1.2.3"}})
        followed.until(lambda loaded: loaded.cluster.pods[key].address == IPv4Address("10.1.2.3"))
        admin.patch(f"{pods_path(namespace)}/web", {"metadata": {"labels": {"app": "db"}}})
        followed.until(lambda loaded: loaded.cluster.pods[key].labels["app"] == "db")
        admin.patch(f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": {"team": "blue"}}})
        followed.until(lambda loaded: loaded.cluster.namespaces[namespace].labels.get("team") == "blue")
        admin.create(policies_path(namespace), policy("p", {"podSelector": {}}))
        admin.create(policies_path(namespace, "romana.io"), romana_policy("p", {"podSelector": {}}))
        both = {PolicyKey(kind, namespace, "p") for kind in ("NetworkPolicy", "RomanaNetworkPolicy")}
        followed.until(lambda loaded: both <= loaded.cluster.policies.keys())
        admin.delete(f"{policies_path(namespace)}/p")
        admin.delete(f"{pods_path(namespace)}/web")
        followed.until(lambda loaded: key not in loaded.cluster.pods and not both <= loaded.cluster.policies.keys())


def test_a_pod_that_is_made_anew_is_another(control_plane: ControlPlane, admin: Client, namespace: str) -> None:
    key = PodKey(f"{namespace}/web")
    with source(control_plane.kubeconfig, (PODS,)) as followed:
        uids = []
        for _ in range(2):
            made = admin.create(pods_path(namespace), bound_pod("web", "n1"))
            uids.append(made["metadata"]["uid"])
            followed.until(lambda loaded: [uids[-1]] == [one.uid for k, one in loaded.cluster.pods.items() if k == key])
            admin.delete(f"{pods_path(namespace)}/web")
        assert uids[0] != uids[1]


def test_a_node_is_told_of_its_own_pods_only(control_plane: ControlPlane, admin: Client, namespace: str) -> None:
    node = f"n-{secrets.token_hex(4)}"
    admin.create(pods_path(namespace), bound_pod("other", "elsewhere"))
    admin.create(pods_path(namespace), bound_pod("first", node))
    with source(control_plane.kubeconfig, (pods_of(node),)) as followed:
        followed.until(lambda loaded: True)
        admin.create(pods_path(namespace), bound_pod("another", "elsewhere"))
        admin.create(pods_path(namespace), bound_pod("second", node))
        followed.until(lambda loaded: len(loaded.cluster.pods) == 2)
        assert {one.name for one in followed.cluster.pods.values()} == {"first", "second"}


def test_every_page_of_a_long_list_comes(
    control_plane: ControlPlane, admin: Client, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/hazards.md C9."""
    monkeypatch.setattr("romana_ovs.kube.api.reflector.PAGE", 3)
    for number in range(10):
        admin.create(pods_path(namespace), bound_pod(f"p{number}", "n1"))
    told: list[object] = []
    api = Api(ApiSource(str(control_plane.kubeconfig)))
    follower = ListWatcher(api, PODS, Settings(), told.append)
    while ListCompleted("pods") not in told:
        assert follower.step() == 0
    pages = [message for message in told if isinstance(message, ObjectsObserved)]
    here = [update for one in pages for update in one.updates if update.id.namespace == namespace]
    assert len(here) == 10 and len(pages) >= 4
    assert all(isinstance(update.value, Pod) and update.uid and int(update.version) for update in here)


def test_what_the_schema_lets_through_but_nobody_can_mean(
    control_plane: ControlPlane, admin: Client, namespace: str
) -> None:
    """It isolates what it selects, allows nothing, and says why; an edit keeps what was valid. docs/hazards.md E5."""
    path, key = policies_path(namespace), PolicyKey("NetworkPolicy", namespace, "p")
    blocks = [{"ipBlock": {"cidr": f"10.77.{number >> 8}.{number & 255}/32"}} for number in range(MAX_TERMS + 1)]
    good = {"podSelector": {}, "ingress": [{"from": blocks[:1]}]}
    bad = {"podSelector": {}, "ingress": [{"from": blocks}]}
    with source(control_plane.kubeconfig) as followed:
        admin.create(path, policy("p", bad))
        loaded = followed.until(lambda loaded: key in loaded.cluster.policies)
        found = loaded.cluster.policies[key]
        assert isinstance(found, KubernetesPolicy) and found.ingress == () and found.selector == EVERYTHING
        mine = [str(problem) for problem in loaded.problems if problem.name == f"{namespace}/p"]
        begin = f"NetworkPolicy {namespace}/p: spec.ingress: its peers and ports take about {MAX_TERMS + 1} flows"
        assert mine and mine[0].startswith(begin)
        admin.patch(f"{path}/p", {"spec": good})
        valid = followed.until(lambda loaded: loaded.cluster.policies[key] != found).cluster.policies[key]
        admin.patch(f"{path}/p", {"spec": bad})
        kept = followed.until(lambda loaded: bool(loaded.kept))
        assert kept.cluster.policies[key] is valid and len(kept.kept) == 1


def test_a_policy_as_large_as_the_server_takes(control_plane: ControlPlane, admin: Client, namespace: str) -> None:
    """1 MiB of one policy: it is more than we do for one policy, and what comes behind it does not wait for long.

    docs/hazards.md E10.
    """
    blocks = [{"ipBlock": {"cidr": f"10.77.{number >> 8}.{number & 255}/32"}} for number in range(22_000)]
    assert len(json.dumps(blocks, separators=(",", ":"))) > 800_000
    key = PolicyKey("NetworkPolicy", namespace, "huge")
    with source(control_plane.kubeconfig) as followed:
        followed.until(lambda loaded: True)
        admin.create(policies_path(namespace), policy("huge", {"podSelector": {}, "ingress": [{"from": blocks}]}))
        begin = time.monotonic()
        admin.create(pods_path(namespace), bound_pod("after", "n1"))
        followed.until(lambda loaded: PodKey(f"{namespace}/after") in loaded.cluster.pods)
        followed.until(lambda loaded: key in loaded.cluster.policies)
        assert time.monotonic() - begin < 10
        found = followed.cluster.policies[key]
        assert isinstance(found, KubernetesPolicy) and found.ingress == () and found.selector == EVERYTHING
        mine = [str(problem) for problem in followed.loaded[-1].problems if problem.name == f"{namespace}/huge"]
        assert mine and mine[0].startswith(
            f"NetworkPolicy {namespace}/huge: spec.ingress: its peers and ports take about 22000 flows"
        )
        admin.delete(f"{policies_path(namespace)}/huge")
        followed.until(lambda loaded: key not in loaded.cluster.policies)


@contextmanager
def own_plane() -> Iterator[ControlPlane]:
    with ControlPlane(binaries=binaries.find()) as plane:
        yield plane


@pytest.fixture(scope="module")
def fragile(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """A control plane whose API server may be ended."""
    with own_plane() as plane:
        plane.apply(manifests_folder())
        yield plane


def test_a_definition_that_goes_and_comes_back(fragile: ControlPlane) -> None:
    path, name = policies_path("default", "romana.io"), str(ROMANA_POLICIES)
    told: list[object] = []
    store = ClusterCache(Settings(), [name])
    clusters: list[list[str]] = [[]]

    def send(message: object) -> None:
        told.append(message)
        if (loaded := store.apply(message)) is not None:
            clusters.append([key.name for key in loaded.cluster.policies])

    # The server leaves watches of a definition that is gone open, in silence.
    follower = ListWatcher(Api(ApiSource(str(fragile.kubeconfig))), ROMANA_POLICIES, Settings(), send, silent=1.0)
    with Client.of_kubeconfig(fragile.kubeconfig) as admin:
        admin.create(path, romana_policy("p", {"podSelector": {}}))
        follower.step()
        fragile.kubectl("delete", "crd", "networkpolicies.romana.io")
        deadline = time.monotonic() + SECONDS
        while not any(isinstance(one, LogLine) for one in told):
            follower.step()
            assert time.monotonic() < deadline
        assert clusters[-2:] == [["p"], []]
        fragile.apply(manifests_folder())
        admin.create(path, romana_policy("q", {"podSelector": {}}))
        while clusters[-1] != ["q"]:
            follower.step()
            assert time.monotonic() < deadline


def test_down_at_the_start_and_killed_later(fragile: ControlPlane) -> None:
    fragile.stop_api_server()
    with source(fragile.kubeconfig) as followed:
        trouble = followed.process.until(lambda one: isinstance(one, Health))
        assert trouble.error.endswith(f"{fragile.url}: Connection refused")
        assert followed.loaded == []
        fragile.start_api_server()
        followed.until(lambda loaded: True)
        with Client.of_kubeconfig(fragile.kubeconfig) as admin:
            admin.create("/api/v1/namespaces/default/pods", bound_pod("one", "n1"))
            admin.create("/api/v1/namespaces/default/pods", bound_pod("two", "n1"))
        before = followed.until(lambda loaded: len(loaded.cluster.pods) == 2)
        followed.process.said.clear()
        fragile.kill_api_server()
        followed.process.until(lambda one: isinstance(one, Health) and one.error != "")
        assert followed.loaded[-1] is before
        fragile.start_api_server()
        with Client.of_kubeconfig(fragile.kubeconfig) as admin:
            admin.delete("/api/v1/namespaces/default/pods/one")
            admin.create("/api/v1/namespaces/default/pods", bound_pod("three", "n1"))
        now = followed.until(lambda loaded: PodKey("default/three") in loaded.cluster.pods)
        now = followed.until(lambda loaded: PodKey("default/one") not in loaded.cluster.pods)
        assert set(now.cluster.pods) == {"default/two", "default/three"}
        assert now.cluster.pods[PodKey("default/two")] is before.cluster.pods[PodKey("default/two")]
        assert now.cluster.nodes is before.cluster.nodes
        followed.process.until(lambda one: one == Health("pods"))


def test_a_server_that_stands_still_is_noticed(fragile: ControlPlane) -> None:
    """The connection is open, the kernel answers for it, and nothing ever comes."""
    told: list[object] = []
    api = Api(ApiSource(str(fragile.kubeconfig)))
    follower = ListWatcher(api, NAMESPACES, Settings(), told.append, silent=1.0)
    assert follower.step() == 0 and told[-1] == ListCompleted("namespaces")
    fragile.daemon("kube-apiserver").signal(signal.SIGSTOP)
    try:
        begin = time.monotonic()
        assert follower.step() > 0
        assert follower.step() > 0
        assert time.monotonic() - begin < SECONDS
        [trouble] = [one for one in told if isinstance(one, Health)]
        assert "in time" in trouble.error
    finally:
        fragile.daemon("kube-apiserver").signal(signal.SIGCONT)
    follower.step()
    assert Health("namespaces") in told


def test_silence_is_no_fault_but_standing_still_is(fragile: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every watch goes on for as long as the server has a pulse, and none of them when it has none any more."""
    monkeypatch.setattr("romana_ovs.kube.api.client.ANSWER_SECONDS", 2.0)
    api = Api(ApiSource(str(fragile.kubeconfig)), quiet=1.0)
    lives, pulses = api._liveness._is_alive, threading.Semaphore(0)

    def counted() -> bool:
        alive = lives()
        pulses.release()
        return alive

    monkeypatch.setattr(api._liveness, "_is_alive", counted)
    told: list[object] = []
    followers = [ListWatcher(api, resource, Settings(), told.append) for resource in CLUSTER]
    assert [follower.step() for follower in followers] == [0.0] * len(CLUSTER)
    with ThreadPoolExecutor(len(CLUSTER)) as pool:
        watches = [pool.submit(follower.step) for follower in followers]
        # Bookmarks come once a minute.
        for _ in range(4):
            assert pulses.acquire(timeout=SECONDS)
        assert not any(watch.done() for watch in watches) and not any(isinstance(one, Health) for one in told)
        fragile.daemon("kube-apiserver").signal(signal.SIGSTOP)
        try:
            assert all(watch.result(SECONDS) > 0 for watch in watches)
        finally:
            fragile.daemon("kube-apiserver").signal(signal.SIGCONT)


def test_tokens_that_change(control_plane: ControlPlane, admin: Client, namespace: str, tmp_path: Path) -> None:
    """Nobody, then somebody who may not, then somebody who may: each by the token file alone. docs/hazards.md C11."""
    admin.create(f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": "one"}})
    token = tmp_path / "token"
    token.write_text("no token")
    cluster = {"server": control_plane.url, "certificate-authority": str(control_plane.authority)}
    config = {
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {"tokenFile": "token"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    api = Api(ApiSource(str(tmp_path / "config")))
    with pytest.raises(DeniedError) as caught:
        api.request("GET", NAMESPACES.path)
    assert caught.value.status == 401
    (tmp_path / "new").write_text(control_plane.kubectl("create", "token", "one", f"--namespace={namespace}"))
    os.replace(tmp_path / "new", token)
    with pytest.raises(DeniedError, match=f"system:serviceaccount:{namespace}:one") as caught:
        api.request("GET", NAMESPACES.path)
    assert caught.value.status == 403
    role = {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}}
    subject = {"kind": "ServiceAccount", "name": "one", "namespace": namespace}
    admin.create(
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        {"metadata": {"name": namespace}, "subjects": [subject], **role},
    )
    try:
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                names = [item["metadata"]["name"] for item in api.request("GET", NAMESPACES.path).json()["items"]]
                break
            except DeniedError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        assert namespace in names
    finally:
        admin.delete(f"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{namespace}")


def test_keys_that_stand_in_a_kubeconfig_do_not_stay_in_files(
    control_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert "client-key-data" in control_plane.kubeconfig.read_text()
    assert Api(ApiSource(str(control_plane.kubeconfig))).request("GET", "/version").json()["major"]
    assert list(tmp_path.iterdir()) == []


def test_another_authority_is_not_talked_to(control_plane: ControlPlane, fragile: ControlPlane, tmp_path: Path) -> None:
    text = control_plane.kubeconfig.read_text().replace(control_plane.url, fragile.url)
    (tmp_path / "config").write_text(text)
    with pytest.raises(UnreachableError, match="certificate verify failed"):
        Api(ApiSource(str(tmp_path / "config"))).request("GET", "/version")


def test_a_resource_of_ours_is_watched_like_any_other(
    control_plane: ControlPlane, admin: Client, namespace: str
) -> None:
    with source(control_plane.kubeconfig, (ROMANA_POLICIES,)) as followed:
        followed.until(lambda loaded: True)
        admin.create(policies_path(namespace, "romana.io"), romana_policy("p", {"podSelector": {}}))
        followed.until(lambda loaded: PolicyKey("RomanaNetworkPolicy", namespace, "p") in loaded.cluster.policies)
