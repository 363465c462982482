"""The objects of a case after each of its steps, as a manifest folder or an API server would hold them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import IPv4Address, ip_network
from typing import Any, NamedTuple

from tests.conformance.words import BASE, NAME_LABEL, Change, Gone, Manifest, Step

_PLACE = re.compile(r"\{([a-z0-9/-]+)(?::(\d+))?\}")


class ObjectKey(NamedTuple):
    """Which object a manifest is of."""

    kind: str
    namespace: str
    name: str


State = Mapping[ObjectKey, Manifest]


def key_of(manifest: Manifest) -> ObjectKey:
    """The object that a manifest is of."""
    metadata = manifest["metadata"]
    return ObjectKey(str(manifest["kind"]), metadata.get("namespace", ""), metadata["name"])


def apply(state: State, changes: Iterable[Change]) -> State:
    """The state after these changes. Raises KeyError for the end of what is not there."""
    found = dict(state)
    for change in changes:
        if isinstance(change, Gone):
            del found[ObjectKey(change.kind, change.namespace, change.name)]
        else:
            found[key_of(change)] = change
    return found


BASE_STATE = apply({}, BASE)


def states(steps: Iterable[Step]) -> Iterator[tuple[Step, State]]:
    """Every step with what there is after it."""
    state = BASE_STATE
    for step in steps:
        state = apply(state, step.changes)
        yield step, state


def endpoints(state: State) -> list[str]:
    """The pods of a state that can talk at all: not finished, not their node's, and with an address or one to come."""
    found = []
    for key, manifest in state.items():
        status = manifest.get("status", {"podIP": "to come"})
        finished = status.get("phase") in ("Succeeded", "Failed")
        if key.kind == "Pod" and not finished and "podIP" in status and not manifest["spec"].get("hostNetwork"):
            found.append(f"{key.namespace}/{key.name}")
    return sorted(found)


def resolved(state: State, address: Callable[[str], IPv4Address], lane: int = 0) -> list[Manifest]:
    """The manifests of a state with addresses put in; `address` knows pods (`x/b`) and nodes (`node1`)."""

    def put_in(found: re.Match[str]) -> str:
        name, width = found.groups()
        if name == "lane":
            return str(lane)
        known = address(name)
        return str(ip_network(f"{known}/{width}", strict=False)) if width else str(known)

    return [_mapped(manifest, lambda text: _PLACE.sub(put_in, text)) for manifest in state.values()]


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _mapped(inner, change) for key, inner in value.items()}
    return [_mapped(inner, change) for inner in value] if isinstance(value, (list, tuple)) else value


def text_of(manifests: Iterable[Manifest]) -> str:
    """A file of these manifests."""
    return "".join(f"---\n{json.dumps(manifest)}\n" for manifest in manifests)


def in_lane(manifest: Manifest, lane: int) -> Manifest:
    """The same with other names of namespaces, also where a selector asks for them: cases then run side by side."""
    metadata = dict(manifest["metadata"])
    if manifest["kind"] == "Namespace":
        metadata["name"] = lane_name(metadata["name"], lane)
    else:
        metadata["namespace"] = lane_name(metadata["namespace"], lane)
    return {**_asking(manifest, lane), "metadata": metadata}


def lane_name(name: str, lane: int) -> str:
    """The name of a namespace, or a pod (`x/a`), in a lane; nodes and addresses are the same in all of them."""
    space, slash, pod = name.partition("/")
    return name if not slash and not space.isalpha() else f"{space}-{lane}{slash}{pod}"


def _asking(value: Any, lane: int) -> Any:
    if isinstance(value, Mapping):
        found = {key: _asking(inner, lane) for key, inner in value.items()}
        if NAME_LABEL in found:
            found[NAME_LABEL] = lane_name(found[NAME_LABEL], lane)
        if found.get("key") == NAME_LABEL:
            found["values"] = [lane_name(name, lane) for name in found["values"]]
        return found
    return [_asking(inner, lane) for inner in value] if isinstance(value, (list, tuple)) else value
