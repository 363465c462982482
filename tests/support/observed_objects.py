"""Builds what reflectors pass on of an API server's objects, and a cluster cache that has listed them."""

from __future__ import annotations

from typing import Any

from romana_ovs.kube.api.messages import ListCompleted, ListStarted, ObjectsObserved, Update
from romana_ovs.kube.api.object_decoder import decoder, object_meta
from romana_ovs.kube.api.resources import (
    ENDPOINT_SLICES,
    NAMESPACES,
    NODES,
    PODS,
    POLICIES,
    ROMANA_POLICIES,
    SERVICE_CIDRS,
    SERVICES,
    Resource,
)
from romana_ovs.kube.cache.cluster_cache import ClusterCache
from romana_ovs.kube.decode.objects import ObjectId
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.settings import Settings

DEFAULTS = Settings()


def observed(
    resource: Resource, name: str, version: int = 1, *, uid: str = "u", settings: Settings = DEFAULTS, **parts: Any
) -> Update:
    """An object as its decoder has it; `labels` and `namespace` (`shop`) belong to its metadata."""
    metadata = {"name": name, "uid": uid, "resourceVersion": str(version), "labels": parts.pop("labels", {})}
    if resource in (PODS, POLICIES, ROMANA_POLICIES):
        metadata["namespace"] = parts.pop("namespace", "shop")
    return decoded({"metadata": metadata, **parts}, resource, settings)


def decoded(value: dict[str, Any], resource: Resource, settings: Settings = DEFAULTS) -> Update:
    """The update about an object."""
    head = object_meta(value, resource)
    assert head is not None
    return decoder(resource, settings)(value, head)


def observed_pod(
    name: str,
    version: int = 1,
    *,
    node: str = "n",
    ip: str = "",
    phase: str = "Running",
    host: bool = False,
    **more: Any,
) -> Update:
    """A pod with this status; `host`: it has its node's network."""
    spec: dict[str, Any] = {"nodeName": node, "containers": [{"name": "c"}], "hostNetwork": host}
    status = {"phase": phase, **({"podIP": ip, "podIPs": [{"ip": ip}]} if ip else {})}
    return observed(PODS, name, version, spec=spec, status=status, **more)


def deleted(one: Update, version: int) -> Update:
    """The update that ends an object."""
    return Update(one.id, one.uid, str(version), exists=False)


def observe(resource: Resource, *updates: Update) -> ObjectsObserved:
    """The message with these updates."""
    return ObjectsObserved(str(resource), updates)


def listing(resource: Resource, *updates: Update, kept: tuple[ObjectId, ...] = ()) -> list[object]:
    """The messages of one listing."""
    return [ListStarted(str(resource)), ObjectsObserved(str(resource), updates, kept), ListCompleted(str(resource))]


def full_listing(**objects: list[Update]) -> list[object]:
    """A listing of every resource; those that are not given are empty, but for a node."""
    objects.setdefault("nodes", [observed(NODES, "n")])
    names = {"pods": PODS, "namespaces": NAMESPACES, "nodes": NODES, "policies": POLICIES, "romana": ROMANA_POLICIES}
    names |= {"service_cidrs": SERVICE_CIDRS, "services": SERVICES, "slices": ENDPOINT_SLICES}
    return [message for name, one in names.items() for message in listing(one, *objects.get(name, []))]


def listed_cache(settings: Settings = DEFAULTS, **objects: list[Update]) -> tuple[ClusterCache, ClusterSnapshot]:
    """A cache that has this full listing, and what it made of it."""
    cache = ClusterCache(settings)
    return cache, applied(cache, *full_listing(**objects))


def applied(cache: ClusterCache, *messages: object) -> ClusterSnapshot:
    """The cluster after these messages, which change it."""
    snapshot = cache.apply(*messages)
    assert snapshot is not None
    return snapshot
