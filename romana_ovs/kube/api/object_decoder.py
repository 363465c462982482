"""One object as the API server serves it -> what is told of it."""

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

LOG = logging.getLogger("romana_ovs.follow")


@dataclass(frozen=True, slots=True)
class Head:
    """Which object it is, and which version of it."""

    id: ObjectId
    uid: str
    version: str
    generation: int


Decode = Callable[[Any, Head], Update]
"""Makes an Update of an object and its head."""


def head_of(value: object, resource: Resource) -> Head | None:
    """The head of an object of `resource`, None when it has none that can be used."""
    metadata = value.get("metadata") if isinstance(value, dict) else None
    if not isinstance(metadata, dict):
        return None
    get = metadata.get
    name, namespace, uid, version = get("name"), get("namespace", ""), get("uid", ""), get("resourceVersion", "")
    if not (isinstance(name, str) and isinstance(namespace, str) and isinstance(uid, str) and isinstance(version, str)):
        return None
    generation = get("generation", 0)
    key = ObjectId(resource.kind, namespace, name)
    return Head(key, uid, version, generation if isinstance(generation, int) else 0)


def decoder(resource: Resource, settings: Settings) -> Decode:
    """How objects of `resource` are decoded. What is in the Update keeps no part of a decoded object alive."""
    if not resource.decoded:
        return _whole
    kind, version = resource.served or resource.kind, resource.version

    def decode(value: Any, head: Head) -> Update:
        try:
            item = decode_served(value, kind, version, settings)
        except Exception:  # A mistake of ours about one object must not cost all the others, nor open anything.
            LOG.exception("%s: a mistake of ours", head.id)
            return _undecodable(head)
        return Update(
            head.id,
            head.uid,
            head.version,
            head.generation,
            value=item.value,
            fallback=item.fallback,
            problems=item.problems,
        )

    return decode


def _undecodable(head: Head) -> Update:
    """An object that we cannot read at all; a policy isolates its namespace."""
    kind, namespace, name = head.id
    whole = f"{namespace}/{name}" if namespace else name
    problem = Problem("internal error while it was read", kind=kind, name=whole)
    isolates = kind in (POLICY, ROMANA_POLICY)
    # No object has a name like this one, so it stands in for nothing else.
    policy = KubernetesPolicy(namespace, f"{kind}#{name}", selector=EVERYTHING, directions=frozenset(Direction))
    return Update(
        head.id,
        head.uid,
        head.version,
        head.generation,
        fallback=policy if isolates else None,
        problems=(problem,),
    )


def _whole(value: Any, head: Head) -> Update:
    # Only people read managedFields, and they are half of many objects.
    metadata = {key: part for key, part in value["metadata"].items() if key != "managedFields"}
    return Update(head.id, head.uid, head.version, head.generation, raw={**value, "metadata": metadata})
