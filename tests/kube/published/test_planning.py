"""Two registries over one store: whatever is lost, late or stale, no number is given twice."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from romana_ovs.engine.registry import Registry
from romana_ovs.kube.published import (
    COMPLETE_MARKER,
    PublishedJson,
    PublishedObjects,
    PublishedReader,
    TermBase,
    TermOver,
    Verb,
    Write,
    WriteCache,
    plan_writes,
    published_to_json,
)
from romana_ovs.model.cluster import Cluster, SegmentKey
from romana_ovs.registry_types.published import Published
from tests.support.hypothesis_profiles import examples
from tests.support.in_memory_server import conflicts
from tests.support.strategies import clusters


class Store:
    """An API server: optimistic concurrency by resourceVersion, and every state that it ever had."""

    def __init__(self) -> None:
        self._versions = count(1)
        self.states: list[PublishedObjects] = [PublishedObjects()]
        self.given = Given()

    @property
    def objects(self) -> PublishedObjects:
        return self.states[-1]

    def apply(self, write: Write) -> bool:
        """Whether the write was accepted."""
        kinds = {"Allocation": self._allocations(), "ClassSet": dict(self.objects.class_sets)}
        if conflicts(write, kinds[write.kind].get(write.name)):
            return False
        if write.verb is Verb.DELETE:
            del kinds[write.kind][write.name]
        else:
            body = json.loads(json.dumps(write.body))
            body["metadata"]["resourceVersion"] = str(next(self._versions))
            kinds[write.kind][write.name] = body
        allocation = kinds["Allocation"].get("cluster")
        self.states.append(PublishedObjects(allocation, kinds["ClassSet"]))
        self.given.look(self.objects)
        return True

    def _allocations(self) -> dict[str, Any]:
        return {"cluster": self.objects.allocation} if self.objects.allocation is not None else {}


@dataclass
class Given:
    """Everything that was ever given, to find what is given twice."""

    indexes: dict[int, SegmentKey] = field(default_factory=dict)
    classes: dict[int, str] = field(default_factory=dict)

    def look(self, objects: PublishedObjects) -> None:
        published, problems = PublishedReader().read(objects)
        assert published is not None and not problems, problems
        for key, indexes in published.indexes.items():
            for index in indexes:
                assert self.indexes.setdefault(index, key) == key
        for name, raw in objects.class_sets.items():
            if name == COMPLETE_MARKER:
                continue
            for entry in raw["spec"]["classes"]:
                assert self.classes.setdefault(entry["id"], name) == name, hex(entry["id"])
        hosts = published.hosts
        assert len(set(hosts.values())) == len(hosts)


class Process:
    """A registry process: it may believe for long that it is the one, and reads what is old."""

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name, self.terms = store, name, count(1)
        self.registry: Registry | None = None
        self.read = 0
        self.late: list[Write] = []
        self.checked = WriteCache()

    def look(self, at: int) -> PublishedObjects:
        """Reads a state of the store, not older than the last."""
        self.read = max(self.read, min(at, len(self.store.states) - 1))
        return self.store.states[self.read]

    def begin(self, cluster: Cluster, at: int) -> None:
        base = TermBase.of(self.look(at))
        self.registry = Registry(cluster.settings, base, writer=f"{self.name}-{next(self.terms)}")

    def work(self, cluster: Cluster, at: int, *, lose: int | None = None) -> None:
        """One look, and writes until one is not accepted, or until the answer to number `lose` of them does not come.

        That one arrives later, or never.
        """
        if self.registry is None:
            self.begin(cluster, at)
        assert self.registry is not None
        desired = self.registry.update(cluster)
        try:
            seen = self.look(at)
            writes = plan_writes(desired, self.registry.base, seen, self.checked)
            assert writes == plan_writes(desired, self.registry.base, seen)
        except TermOver:
            self.registry = None
            return
        for number, write in enumerate(writes):
            if number == lose:
                self.late.append(write)
                return
            if not self.store.apply(write):
                return

    def arrive(self) -> None:
        """A write that was sent long ago arrives."""
        if self.late:
            self.store.apply(self.late.pop(0))

    def finish(self, cluster: Cluster) -> Published:
        """Works until nothing is left to write."""
        for _ in range(60):
            newest = len(self.store.states) - 1
            self.work(cluster, newest)
            if self.registry is None or self.registry.pending or len(self.store.states) - 1 != newest:
                continue
            return self.registry.published
        raise AssertionError("it is never done")


@settings(max_examples=examples(60), deadline=None)
@given(data=st.data(), history=st.lists(clusters(), min_size=1, max_size=3))
def test_two_registries_never_give_one_number_twice(data: st.DataObject, history: list[Cluster]) -> None:
    store = Store()
    processes = [Process(store, "a"), Process(store, "b")]
    for cluster in (replace(each, settings=history[0].settings) for each in history):
        for _ in range(data.draw(st.integers(0, 25))):
            process = data.draw(st.sampled_from(processes))
            what = data.draw(st.sampled_from(("work", "work", "work", "lose", "arrive", "crash")))
            at = len(store.states) - 1 - data.draw(st.integers(0, 4))
            if what == "crash":
                process.registry = None
            elif what == "arrive":
                process.arrive()
            else:
                process.work(cluster, at, lose=data.draw(st.integers(0, 6)) if what == "lose" else None)
    last = data.draw(st.sampled_from(processes))
    published = last.finish(cluster)
    found, problems = PublishedReader().read(store.objects)
    assert found == published and not problems


@settings(max_examples=examples(40), deadline=None)
@given(data=st.data(), history=st.lists(clusters(), min_size=2, max_size=4))
def test_class_sets_may_arrive_before_or_after_the_allocation(data: st.DataObject, history: list[Cluster]) -> None:
    """The two kinds are watched each by itself: either may be ahead, but none goes back."""
    store = Store()
    process = Process(store, "a")
    for cluster in (replace(each, settings=history[0].settings) for each in history):
        process.finish(cluster)
    reader, newest, ahead = PublishedReader(), len(store.states) - 1, [0, 0]
    found: set[str] = set()
    while ahead != [newest, newest]:
        kind = data.draw(st.sampled_from([kind for kind in (0, 1) if ahead[kind] < newest]))
        ahead[kind] = data.draw(st.integers(ahead[kind] + 1, newest))
        sets = store.states[ahead[1]].class_sets
        published, _ = reader.read(PublishedObjects(store.states[ahead[0]].allocation, sets))
        if published is not None:
            assert published.class_sets.keys() >= found & sets.keys()
            found = set(published.class_sets)
    assert process.registry is not None and reader.read(store.objects) == (process.registry.published, ())


@settings(max_examples=examples(40), deadline=None)
@given(clusters())
def test_a_restart_changes_nothing(cluster: Cluster) -> None:
    store = Store()
    first = Process(store, "a").finish(cluster)
    second = Process(store, "b").finish(cluster)
    for name in ("blocks", "indexes", "hosts", "free_hosts", "next_class", "foreign", "class_sets"):
        assert getattr(first, name) == getattr(second, name), name


@settings(max_examples=examples(30), deadline=None)
@given(clusters())
def test_the_allocation_is_written_first_and_the_marker_last(cluster: Cluster) -> None:
    registry = Registry(cluster.settings, None, writer="a")
    store, desired = Store(), registry.update(cluster)
    writes = plan_writes(desired, None, store.objects)
    assert all(store.apply(write) for write in writes)
    assert not plan_writes(desired, None, store.objects)
    kinds = [(write.kind, write.name == COMPLETE_MARKER) for write in writes]
    assert kinds[0] == ("Allocation", False) and kinds[-1] == ("ClassSet", True)
    assert set(kinds[1:-1]) <= {("ClassSet", False)}


@settings(max_examples=examples(30), deadline=None)
@given(st.lists(clusters(), min_size=1, max_size=4))
def test_the_reader_cache_does_not_change_results(history: list[Cluster]) -> None:
    history = [replace(each, settings=history[0].settings) for each in history]
    registry = Registry(history[0].settings, None, writer="a")
    text = PublishedJson(json.dumps)
    for cluster in history:
        published = registry.update(cluster)
        assert json.loads(text.of(published)) == published_to_json(published)
        assert text.of(published) is text.of(published)
