"""However an API server tells it (in pieces, twice, late, or again from the start), it is what the manifests say."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from romana_ovs.backoff import Backoff
from romana_ovs.kube.api.object_decoder import decoder
from romana_ovs.kube.api.reflector import Reflector, Watch
from romana_ovs.kube.api.resources import CLUSTER, NAMESPACES, NODES, PODS, POLICIES, ROMANA_POLICIES, Resource
from romana_ovs.kube.cache.cluster_cache import ClusterCache
from romana_ovs.kube.manifests.folder import FolderContent, read_bytes
from romana_ovs.kube.manifests.store import ManifestStore
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.errors import ExpiredError, TornError
from romana_ovs.model.settings import Settings

SETTINGS = Settings()
NAMES = ("a", "b", "c")
Object = dict[str, Any]
LABELS = st.fixed_dictionaries({}, optional={"app": st.sampled_from(("web", "db")), "tier": st.just("front")})


@dataclass(frozen=True)
class Step:
    """What happens to one object; `value` None: it is deleted."""

    resource: Resource
    name: tuple[str, str]
    value: Object | None


@st.composite
def pods(draw: st.DrawFn) -> Object:
    """A pod as its kubelet has it; those that we would give an address are another thing in a folder."""
    phase = draw(st.sampled_from(("Running", "Running", "Succeeded", "Failed")))
    http, dns = {"containerPort": 80, "name": "http"}, {"containerPort": 53, "protocol": "UDP"}
    ports = draw(st.sampled_from(([], [http], [http, dns])))
    address = f"10.0.0.{draw(st.integers(1, 9))}"
    return {
        "metadata": {"labels": draw(LABELS)},
        "spec": {
            "nodeName": draw(st.sampled_from(("n1", "n2", "far"))),
            "containers": [{"name": "c", "ports": ports}],
            **draw(st.sampled_from(({}, {}, {"hostNetwork": True}))),
        },
        "status": {"phase": phase, "podIP": address, "podIPs": [{"ip": address}, {"ip": "fd00::1"}]},
    }


def policies(sound: bool) -> st.SearchStrategy[Object]:
    cidr = "10.0.0.0/8" if sound else "10.0.0.0/33"
    peers = st.sampled_from(
        (
            {"podSelector": {"matchLabels": {"app": "web"}}},
            {"namespaceSelector": {}},
            {"ipBlock": {"cidr": cidr}},
        )
    )
    known = {"podSelector": {"matchLabels": {"tier": "front"}}}
    rules = st.lists(st.builds(lambda peer: {"from": [peer]}, peers), max_size=2)
    sure = [{"from": [{"ipBlock": {"cidr": cidr}}]}]
    return st.builds(
        lambda more, labels: {"metadata": {"labels": labels}, "spec": {**known, "ingress": more + sure}}, rules, LABELS
    )


def romana(sound: bool) -> st.SearchStrategy[Object]:
    ports = [{"port": 80 if sound else 0}]
    return st.builds(
        lambda labels: {
            "metadata": {"labels": {}},
            "spec": {"podSelector": {"matchLabels": labels}, "allowIncoming": [{"toPorts": ports}]},
        },
        LABELS,
    )


@st.composite
def steps(draw: st.DrawFn) -> Step:
    """One change. An object is either valid in all of its versions or in none, so that no version is kept."""
    resource = draw(st.sampled_from((PODS, PODS, PODS, POLICIES, POLICIES, ROMANA_POLICIES, NAMESPACES, NODES)))
    name = draw(st.sampled_from(NAMES))
    namespace = draw(st.sampled_from(("x", "y")))
    if draw(st.integers(0, 3)) == 0:
        value = None
    elif resource is PODS:
        value = draw(pods())
    elif resource is POLICIES:
        value = draw(policies(sound=name != "c"))
    elif resource is ROMANA_POLICIES:
        value = draw(romana(sound=name != "c"))
    else:
        value = {"metadata": {"labels": draw(LABELS)}}
    if resource is NODES:
        return Step(resource, ("", draw(st.sampled_from(("n1", "n2")))), value)
    return Step(resource, ("", namespace) if resource is NAMESPACES else (namespace, name), value)


def numbered(at: int) -> str:
    """The version after `at` changes, as API servers write it."""
    return str(at * 5)


def opaque(at: int) -> str:
    """A version that nobody can put in order: as another kind of server may write it, and is free to."""
    return "v-" + hashlib.sha256(str(at).encode()).hexdigest()[:8]


@dataclass
class Server:
    """What an API server would have stored: a version for every change, and the uid of every object."""

    versions: Callable[[int], str] = numbered
    events: list[tuple[Resource, str, Object]] = field(default_factory=list)
    states: list[dict[tuple[Resource, str, str], Object]] = field(default_factory=lambda: [{}])

    def take(self, step: Step) -> None:
        """Store one change."""
        version = self.versions(len(self.states))
        state = dict(self.states[-1])
        key = (step.resource, *step.name)
        before = state.pop(key, None)
        if step.value is not None:
            kind, value = "ADDED" if before is None else "MODIFIED", step.value
            state[key] = self._stored(step, value, version, before)
            self.events.append((step.resource, kind, state[key]))
        elif before is not None:
            gone = {**before, "metadata": {**before["metadata"], "resourceVersion": version}}
            self.events.append((step.resource, "DELETED", gone))
        else:
            return
        self.states.append(state)

    def _stored(self, step: Step, value: Object, version: str, before: Object | None) -> Object:
        namespace, name = step.name
        uid = before["metadata"]["uid"] if before is not None else f"u{version}"
        metadata = {**value["metadata"], "name": name, "uid": uid, "resourceVersion": version}
        return {**value, "metadata": {**metadata, **({"namespace": namespace} if namespace else {})}}

    def items(self, resource: Resource, at: int) -> list[Object]:
        """What there was of `resource` after `at` changes."""
        return [value for key, value in self.states[at].items() if key[0] == resource]


def told(data: st.DataObject, server: Server, resource: Resource) -> Iterator[object]:
    """What one reflector makes of it: lists at some time, watches, is told things again, is cut off, lists anew."""
    reflector = Reflector(resource, decoder(resource, SETTINGS), Backoff(lambda: 0.5), jitter=0.5)
    end = len(server.events)
    at = data.draw(st.integers(0, end))
    while True:
        if not isinstance(reflector.next_request(), Watch):
            at = data.draw(st.integers(at, end))
            yield from _listing(data, server, reflector, at)
        action = data.draw(st.sampled_from(("on", "on", "on", "again", "expired", "torn", "restart")))
        if action == "again" and server.versions is opaque:
            continue  # By such versions nobody can tell that it was before; and servers tell nothing twice.
        if action == "on":
            if at == end:
                return
            if server.events[at][0] == resource:
                yield from reflector.on_event(_line(server, at), 0)
            at += 1
        elif action == "again" and at:
            earlier = data.draw(st.integers(0, at - 1))
            if server.events[earlier][0] == resource:
                yield from reflector.on_event(_line(server, earlier), 0)
        elif action == "expired":
            yield from reflector.on_failed(ExpiredError("410", status=410), 0)[0]
        elif action == "torn":
            yield from reflector.on_failed(TornError("torn"), 0)[0]
        elif action == "restart":
            reflector = Reflector(resource, decoder(resource, SETTINGS), Backoff(lambda: 0.5), jitter=0.5)


def _listing(data: st.DataObject, server: Server, reflector: Reflector, at: int) -> Iterator[object]:
    items = server.items(reflector.resource, at)
    cut = data.draw(st.integers(0, len(items)))
    if data.draw(st.booleans()):
        yield from reflector.on_page(
            {"metadata": {"resourceVersion": "1", "continue": "more"}, "items": items[:cut]}, 0
        )
        items = items[cut:]
    yield from reflector.on_page({"metadata": {"resourceVersion": server.versions(at)}, "items": items}, 0)


def _line(server: Server, at: int) -> bytes:
    _, kind, value = server.events[at]
    return json.dumps({"type": kind, "object": value}).encode()


def merged(data: st.DataObject, streams: list[list[object]]) -> Iterator[object]:
    """The streams in any order that keeps each one's own."""
    rest = [list(reversed(stream)) for stream in streams if stream]
    while rest:
        chosen = data.draw(st.integers(0, len(rest) - 1))
        yield rest[chosen].pop()
        rest = [stream for stream in rest if stream]


def from_folder(server: Server) -> ClusterSnapshot:
    """What a folder with the objects of the end says."""
    documents = []
    for (resource, _, _), value in server.states[-1].items():
        documents.append({"apiVersion": resource.version, "kind": resource.served or resource.kind, **value})
    text = "\n".join(json.dumps(document) for document in documents)
    return ManifestStore(SETTINGS).apply(FolderContent("folder", (read_bytes("a.json", text.encode(), SETTINGS),)))


@pytest.mark.parametrize("versions", [numbered, opaque])
@given(data=st.data(), changes=st.lists(steps(), max_size=14))
def test_the_cache_equals_a_folder_of_the_same_objects(
    versions: Callable[[int], str], data: st.DataObject, changes: list[Step]
) -> None:
    """docs/hazards.md C5 and C7: whatever versions look like, and in whatever order kinds, pieces and listings come."""
    server = Server(versions)
    # A folder without a Node has two; an API server without one has none.
    for change in [*changes, Step(NODES, ("", "n1"), {"metadata": {"labels": {}}})]:
        server.take(change)
    store, last = ClusterCache(SETTINGS), None
    streams = [list(told(data, server, resource)) for resource in CLUSTER]
    waiting: list[object] = []
    for message in merged(data, streams):
        waiting.append(message)
        if data.draw(st.booleans()):
            loaded, waiting = store.apply(*waiting), []
            if loaded is not None and last is not None:
                same_stay_the_same(last, loaded)
            last = loaded or last
    last = store.apply(*waiting) or last
    assert last is not None
    expected = from_folder(server)
    assert last.cluster == expected.cluster
    assert {(one.field, one.reason) for one in last.problems} == {(one.field, one.reason) for one in expected.problems}
    assert last.kept == ()


def same_stay_the_same(before: ClusterSnapshot, now: ClusterSnapshot) -> None:
    """What is equal in two clusters is one object."""
    for name in ("pods", "policies", "namespaces", "nodes"):
        old, new = getattr(before.cluster, name), getattr(now.cluster, name)
        assert old is new or old != new
        assert all(old[key] is value or old[key] != value for key, value in new.items() if key in old)


VALID = st.lists(st.sampled_from(("good", "other", "bad", "gone")), min_size=1, max_size=8)


@given(VALID)
def test_the_last_valid_version_counts_as_it_does_in_a_folder(versions: list[str]) -> None:
    """An edit at a time, all of them seen: the same object is in force, or its fallback, and the same is kept."""
    specs = {
        "good": {"podSelector": {}, "ingress": [{}]},
        "other": {"podSelector": {"matchLabels": {"app": "web"}}},
        "bad": {"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"ports": [{"port": 0}]}]},
    }
    server, live, folder = Server(), ClusterCache(SETTINGS), ManifestStore(SETTINGS)
    node = Step(NODES, ("", "n1"), {"metadata": {"labels": {}}})
    server.take(node)
    made: dict[Resource, Reflector] = defaultdict()
    for resource in CLUSTER:
        made[resource] = Reflector(resource, decoder(resource, SETTINGS), Backoff(lambda: 0.5), jitter=0.5)
        live.apply(
            *made[resource].on_page({"metadata": {"resourceVersion": "5"}, "items": server.items(resource, 1)}, 0)
        )
    loaded: ClusterSnapshot | None = None
    for version in versions:
        value = {"metadata": {}, "spec": specs[version]} if version != "gone" else None
        before = len(server.events)
        server.take(Step(POLICIES, ("x", "p"), value))
        for at in range(before, len(server.events)):
            loaded = live.apply(*made[POLICIES].on_event(_line(server, at), 0)) or loaded
        documents = [
            {"apiVersion": one.version, "kind": one.kind, **stored} for (one, _, _), stored in server.states[-1].items()
        ]
        text = "\n".join(map(json.dumps, documents)).encode()
        expected = folder.apply(FolderContent("folder", (read_bytes("a.json", text, SETTINGS),)))
        if loaded is not None:
            assert loaded.cluster == expected.cluster
            assert (loaded.kept, len(loaded.problems)) == (expected.kept, len(expected.problems))
        else:
            assert not expected.cluster.policies and not expected.problems
