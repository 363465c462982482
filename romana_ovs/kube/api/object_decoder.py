"""Decodes one object of the API server into an `Update` for the controller."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from romana_ovs.kube.api.messages import Update
from romana_ovs.kube.api.resources import Resource
from romana_ovs.kube.decode.decoder import POLICY, ROMANA_POLICY, decode_served
from romana_ovs.kube.decode.objects import ObjectId
from romana_ovs.model.errors import Problem
from romana_ovs.model.labels import EVERYTHING
from romana_ovs.model.objects import Direction, KubernetesPolicy
from romana_ovs.model.settings import Settings

LOG = logging.getLogger("romana_ovs.reflector")


@dataclass(frozen=True, slots=True)
class ObjectMeta:
    """Which object, and which version of it."""

    id: ObjectId
    uid: str
    version: str
    generation: int


Decode = Callable[[Any, ObjectMeta], Update]
"""Makes an Update from an object and its metadata."""


def object_meta(value: object, resource: Resource) -> ObjectMeta | None:
    """The metadata of an object of `resource`; None when it is unusable."""
    metadata = value.get("metadata") if isinstance(value, dict) else None
    if not isinstance(metadata, dict):
        return None
    get = metadata.get
    name, namespace, uid, version = get("name"), get("namespace", ""), get("uid", ""), get("resourceVersion", "")
    if not (isinstance(name, str) and isinstance(namespace, str) and isinstance(uid, str) and isinstance(version, str)):
        return None
    generation = get("generation", 0)
    key = ObjectId(resource.kind, namespace, name)
    return ObjectMeta(key, uid, version, generation if isinstance(generation, int) else 0)


def decoder(resource: Resource, settings: Settings) -> Decode:
    """The function that decodes objects of `resource`. Its Updates do not keep the undecoded objects alive."""
    if not resource.decoded:
        return _without_managed_fields
    kind, version = resource.served or resource.kind, resource.version

    def decode(value: Any, meta: ObjectMeta) -> Update:
        try:
            item = decode_served(value, kind, version, settings)
        except Exception:  # Must not affect other objects, nor open anything.
            LOG.exception("internal error while decoding %s, please report", meta.id)
            return _internal_error(meta)
        return Update(
            meta.id,
            meta.uid,
            meta.version,
            meta.generation,
            value=item.value,
            fallback=item.fallback,
            problems=item.problems,
        )

    return decode


def _internal_error(meta: ObjectMeta) -> Update:
    """The Update for an object that cannot be decoded because of an internal error; a policy isolates its namespace."""
    kind, namespace, name = meta.id
    whole = f"{namespace}/{name}" if namespace else name
    problem = Problem("internal error while decoding", kind=kind, name=whole)
    isolates = kind in (POLICY, ROMANA_POLICY)
    # No other object can have such a name.
    policy = KubernetesPolicy(namespace, f"{kind}#{name}", selector=EVERYTHING, directions=frozenset(Direction))
    return Update(
        meta.id,
        meta.uid,
        meta.version,
        meta.generation,
        fallback=policy if isolates else None,
        problems=(problem,),
    )


def _without_managed_fields(value: Any, meta: ObjectMeta) -> Update:
    # managedFields are for people only, and are half of many objects.
    metadata = {key: part for key, part in value["metadata"].items() if key != "managedFields"}
    return Update(meta.id, meta.uid, meta.version, meta.generation, raw={**value, "metadata": metadata})
