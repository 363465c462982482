"""An emulated cluster whose source is a real API server, for the runner of the table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, cast

from romana_ovs.model.cluster import Cluster
from romana_ovs.model.connection import PortRef
from romana_ovs.model.objects import PodKey
from romana_ovs_emulate.api_cluster import ApiCluster
from romana_ovs_emulate.cli.api_session import EmulateRequest, prepare
from romana_ovs_emulate.cli.session import Session
from romana_ovs_emulate.controlplane import ControlPlane
from romana_ovs_emulate.emulation import Emulation
from tests.conformance.folder import settings_of
from tests.conformance.offline import NODES
from tests.conformance.runners import LANES, objects_of
from tests.conformance.states import ObjectKey, endpoints, key_of
from tests.conformance.words import ALL_PORTS, BASE_NODES, NAME_LABEL, Manifest, namespace
from tests.support.datapath import datapath_type
from tests.support.raw_client import Client
from tests.support.waiting import eventually

PATIENCE = 10.0
"""Every kind of object comes by a watch of its own: that all have come cannot be known from outside."""
SPACES = "/api/v1/namespaces"
POLICIES = "/apis/networking.k8s.io/v1/namespaces"


class ApiServerCluster:
    """Objects of an API server: `show` creates, changes and deletes what differs, as a client of it does."""

    patience = PATIENCE

    def __init__(self, admin: Client, cluster: ApiCluster, session: Session) -> None:
        self._admin = admin
        self._cluster = cluster
        self._session = session
        self._there = {key_of(space): space for space in _spaces(admin)}
        self._uids: dict[PodKey, str] = {}
        self._shown = count(1)

    @property
    def emulation(self) -> Emulation:
        """Its nodes and pods."""
        return self._session.emulation

    def show(self, manifests: Sequence[Manifest]) -> None:
        """Make them all that there is. A namespace that is gone stays, without labels: there is nobody to empty it."""
        told = namespace("shown", times=str(next(self._shown)))
        wanted = {key_of(manifest): manifest for manifest in (*manifests, told)}
        before = self.emulation.state.generation
        for key in sorted(self._there.keys() - wanted.keys()):
            self._remove(key)
        for key, manifest in sorted(wanted.items(), key=lambda item: _order(item[0])):
            self._put(key, manifest)
        self._cluster.await_cluster(lambda cluster: _told(cluster, wanted.values()))
        self.emulation.programmed_after(before)
        # The controller may be later than this client. A pod that it has yet to replace would end while it is probed.
        eventually(self._every_pod_is_the_new_one, "the controller knows every pod by its UID")
        self.emulation.settle(pods=len(endpoints(wanted)))

    def _every_pod_is_the_new_one(self) -> bool:
        pods = self.emulation.state.pods
        return all(self._uids.get(key) == pod.uid for key, pod in pods.items())

    def clear(self) -> None:
        """Delete every pod and every policy."""
        for key in [key for key in self._there if key.kind != "Namespace"]:
            self._remove(key)

    def _put(self, key: ObjectKey, manifest: Manifest) -> None:
        old = self._there.get(key)
        if old == manifest:
            return
        if key.kind == "NetworkPolicy" and old is not None:
            self._admin.put(_path(key), dict(manifest))
        elif old is None or (key.kind == "Pod" and old["spec"] != manifest["spec"]):
            if old is not None:
                self._remove(key)
            created = self._admin.create(_path(key).rpartition("/")[0], dict(manifest))
            if key.kind == "Pod":
                self._uids[PodKey(f"{key.namespace}/{key.name}")] = created["metadata"]["uid"]
        else:
            self._admin.patch(_path(key), {"metadata": {"labels": _changed(_labels(old), _labels(manifest))}})
        if "status" in manifest:
            self._admin.patch(f"{_path(key)}/status", {"status": _status(manifest)})
        self._there[key] = manifest

    def _remove(self, key: ObjectKey) -> None:
        if key.kind == "Namespace":
            self._put(key, namespace(key.name))
            return
        self._admin.delete(f"{_path(key)}?gracePeriodSeconds=0")
        del self._there[key]


def _spaces(admin: Client) -> Iterator[Manifest]:
    """The namespaces that an earlier pass has left."""
    for item in admin.get(SPACES)["items"]:
        name, found = item["metadata"]["name"], item["metadata"].get("labels", {})
        if name == "shown" or name[-1].isdigit():
            yield namespace(name, **{key: value for key, value in found.items() if key != NAME_LABEL})


def _order(key: ObjectKey) -> tuple[bool, ObjectKey]:
    """Namespaces before what is in them."""
    return key.kind != "Namespace", key


def _path(key: ObjectKey) -> str:
    if key.kind == "Namespace":
        return f"{SPACES}/{key.name}"
    if key.kind == "Pod":
        return f"{SPACES}/{key.namespace}/pods/{key.name}"
    return f"{POLICIES}/{key.namespace}/networkpolicies/{key.name}"


def _labels(manifest: Manifest) -> Mapping[str, str]:
    return cast(Any, manifest)["metadata"].get("labels", {})  # type: ignore[no-any-return]


def _changed(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str | None]:
    """The merge patch from one to the other."""
    return {**dict.fromkeys(old.keys() - new.keys()), **new}


def _status(manifest: Manifest) -> dict[str, object]:
    """What a kubelet would say, addresses that it does not name taken back."""
    return {"podIP": None, "podIPs": None, **manifest["status"]}


def _told(cluster: Cluster, wanted: Iterable[Manifest]) -> bool:
    """Whether exactly these pods and policies are known, and their labels and those of namespaces."""
    pods: dict[str, Mapping[str, str]] = {}
    policies = set()
    for manifest in wanted:
        key = key_of(manifest)
        if key.kind == "Pod":
            pods[f"{key.namespace}/{key.name}"] = dict(_labels(manifest))
        elif key.kind == "NetworkPolicy":
            policies.add((key.namespace, key.name))
        elif not _labels(manifest).items() <= getattr(cluster.namespaces.get(key.name), "labels", {}).items():
            return False
    return pods == {key: dict(pod.labels) for key, pod in cluster.pods.items()} and policies == {
        (policy.namespace, policy.name) for policy in cluster.policies.values()
    }


@contextmanager
def api_cluster(plane: ControlPlane, folder: Path, mode: str) -> Iterator[ApiServerCluster]:
    """Emulated nodes in the cluster of a control plane, with the base in every lane; nothing runs there afterwards."""
    settings = folder / "romana.conf"
    settings.write_text(settings_of(mode))
    ports = tuple(PortRef.parse(port) for port in ALL_PORTS.split())
    cluster, session = prepare(
        EmulateRequest(
            plane.kubeconfig, nodes=NODES, settings=settings, ports=ports, as_json=True, datapath=datapath_type()
        )
    )
    with Client.of_kubeconfig(plane.kubeconfig) as admin:
        made = ApiServerCluster(admin, cluster, session)
        try:
            with session.emulation as emulation:
                made.show(objects_of(None, [None] * LANES))
                emulation.settle(pods=LANES * len(BASE_NODES))
                yield made
        finally:
            made.clear()
            cluster.stop()  # The control plane ends next: its followers would ask for it in vain, for ever.
