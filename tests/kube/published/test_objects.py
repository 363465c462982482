"""Published numbers and reports as objects: there and back, damaged, foreign, and large."""

from __future__ import annotations

import copy
import json
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from romana_ovs.addressing.blocks import Block
from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.kube.published import (
    COMPLETE_MARKER,
    PublishedObjects,
    PublishedReader,
    TermBase,
    allocation_object,
    class_set_object,
    decode_report,
    marker_object,
    published_from_json,
    published_to_json,
    report_object,
)
from romana_ovs.model.cluster import SegmentKey
from romana_ovs.model.errors import InputError, Problem
from romana_ovs.model.identity import identity
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import PodKey
from romana_ovs.model.settings import Settings
from romana_ovs.policy.view import LabelRequirement
from romana_ovs.registry_types.published import Claim, ClassSet, Published, Stage
from romana_ovs.registry_types.report import Report
from tests.kube.published.published_objects import ALPHA, ETCD_LIMIT, ONE, PUBLISHED, REPORT, WEB
from tests.support.hypothesis_profiles import examples


def plain(value: object) -> Any:
    return json.loads(json.dumps(value))


def objects(published: Published = PUBLISHED) -> PublishedObjects:
    sets = {name: class_set_object(each) for name, each in published.class_sets.items()}
    return PublishedObjects(
        plain(allocation_object(published)), plain({**sets, COMPLETE_MARKER: marker_object(published)})
    )


def read(found: PublishedObjects, reader: PublishedReader | None = None) -> tuple[Published, tuple[Problem, ...]]:
    published, problems = (reader or PublishedReader()).read(found)
    assert published is not None
    return published, problems


def test_there_and_back() -> None:
    assert PublishedReader().read(objects()) == (PUBLISHED, ())
    assert published_from_json(plain(published_to_json(PUBLISHED))) == PUBLISHED
    for tracked in (True, False, None):
        report = replace(REPORT, observed=replace(REPORT.observed, sctp_ports=tracked))
        assert decode_report(plain(report_object(report))) == report
    assert PublishedReader().read(PublishedObjects()) == (None, ())
    assert decode_report({"kind": "NodeReport", "metadata": {"name": "n"}}) == Report("n")


def test_what_is_published_is_as_of_the_marker() -> None:
    before = objects(replace(PUBLISHED, revision=5))
    both = PublishedObjects(
        objects().allocation, {**objects().class_sets, COMPLETE_MARKER: before.class_sets[COMPLETE_MARKER]}
    )
    assert read(both)[0].revision == 5
    unmarked = {name: raw for name, raw in both.class_sets.items() if name != COMPLETE_MARKER}
    assert read(PublishedObjects(both.allocation, unmarked))[0].revision == 0
    base = TermBase.of(both)
    assert base is not None and base.published.revision == 8 and base.versions == {"alpha": (3, 7)}
    assert TermBase.of(PublishedObjects()) is None


def allocation_with(**change: Any) -> dict[str, Any]:
    raw: dict[str, Any] = plain(objects().allocation)
    raw["spec"].update(change)
    return raw


TENANTS = allocation_with()["spec"]["tenants"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"epoch": "3"}, "spec.epoch"),
        ({"revision": -1}, "spec.revision"),
        ({"revision": True}, "spec.revision"),
        ({"plan": {"network": "10.0.0.0/8"}}, "spec.plan.segmentBits"),
        ({"plan": {"network": "ten", "segmentBits": 12, "hostBits": 6, "endpointBits": 6}}, "spec.plan"),
        ({"plan": {"network": "10.0.0.0/8", "segmentBits": 12, "hostBits": 6, "endpointBits": 7}}, "spec.plan"),
        ({"hosts": {"a": 1, "b": 1}}, "spec.hosts"),
        ({"hosts": {"a": 64}}, "spec.hosts.a"),
        ({"hosts": []}, "spec.hosts"),
        ({"freeHosts": []}, "spec.freeHosts"),
        ({"freeHosts": [4, 2]}, "spec.freeHosts"),
        ({"freeHosts": [2]}, "spec.freeHosts"),
        ({"tenants": [*TENANTS, TENANTS[0]]}, "spec.tenants[3].name"),
        ({"tenants": [{"name": "t", "segmentRanges": [[4, 4]]}, *TENANTS]}, "spec.tenants[2].segmentRanges"),
        ({"tenants": [{"name": "t", "segmentRanges": [[3, 2]]}]}, "spec.tenants[0].segmentRanges"),
        ({"tenants": [{"name": "t", "segmentRanges": [[0, 1]]}]}, "spec.tenants[0].segmentRanges"),
        ({"tenants": [{"name": "t", "segmentRanges": [[1]]}]}, "spec.tenants[0].segmentRanges[0]"),
        (
            {"tenants": [{"name": "t", "segmentRanges": [[1, 1]], "tiers": [{"name": "x", "indexes": [2]}]}]},
            "spec.tenants[0].tiers[0].indexes",
        ),
        (
            {"tenants": [{"name": "t", "segmentRanges": [[1, 1]], "tiers": [{"name": "x", "indexes": [1, 1]}]}]},
            "spec.tenants[0].tiers[0].indexes",
        ),
        (
            {
                "tenants": [
                    {
                        "name": "t",
                        "segmentRanges": [[2, 2]],
                        "tiers": [{"name": "x", "indexes": [2]}, {"name": "y", "indexes": [2]}],
                    }
                ]
            },
            "spec.tenants[0].tiers[1].indexes",
        ),
        (
            {
                "tenants": [
                    {"name": "t", "segmentRanges": [[1, 1]], "tiers": [{"name": "x", "indexes": [1], "nextClass": 0}]}
                ]
            },
            "spec.tenants[0].tiers[0].nextClass",
        ),
        ({"foreignAddresses": [{"node": "n", "granted": ["1.2.3"]}]}, "spec.foreignAddresses[0].granted[0]"),
        (
            {"foreignAddresses": [{"node": "n", "granted": ["1.2.3.4"]}, {"node": "m", "claimed": ["1.2.3.4"]}]},
            "spec.foreignAddresses[1].claimed",
        ),
    ],
)
def test_a_damaged_allocation_is_refused_and_starts_no_term(change: dict[str, Any], field: str) -> None:
    damaged = PublishedObjects(allocation_with(**change), objects().class_sets)
    for read in (PublishedReader().read, TermBase.of):
        with pytest.raises(InputError) as refused:
            read(damaged)
        (problem,) = refused.value.problems
        assert (problem.kind, problem.name, problem.field) == ("Allocation", "cluster", field)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"requirements": [{"key": "a", "stage": "Old"}]}, "spec.requirements[0].stage"),
        (
            {"requirements": [{"key": "a", "stage": "Introduced"}] * 2, "classes": [], "overrides": {}},
            "spec.requirements",
        ),
        ({"requirements": [{"key": "a", "values": "b", "stage": "Introduced"}]}, "spec.requirements[0].values"),
        ({"classes": [{"id": ONE, "matches": "0"}] * 2}, "spec.classes[1].id"),
        ({"classes": [{"id": 1, "matches": "0"}]}, "spec.classes[0].id"),
        ({"classes": [{"id": 0x10000, "matches": "0"}]}, "spec.classes[0].id"),
        ({"classes": [{"id": 0xFFFF0001, "matches": "0"}]}, "spec.classes[0].id"),
        ({"classes": [{"id": ONE, "matches": "4"}]}, "spec.classes[0].matches"),
        ({"classes": [{"id": ONE, "matches": "-1"}]}, "spec.classes[0].matches"),
        ({"classes": [{"id": ONE, "matches": "web"}]}, "spec.classes[0].matches"),
        ({"overrides": {"a": ONE + 7}}, "spec.overrides"),
        ({"retired": [ONE]}, "spec.retired"),
        ({"tombstones": [{"segment": 0, "labels": {}}]}, "spec.tombstones[0].segment"),
        ({"tombstones": [{"segment": 1, "labels": {"a": 1}}]}, "spec.tombstones[0].labels.a"),
        ({"revision": None}, "spec.revision"),
    ],
)
def test_a_damaged_class_set_is_left_out_or_stays_what_it_was(change: dict[str, Any], field: str) -> None:
    whole, reader = objects(), PublishedReader()
    damaged = copy.deepcopy(whole.class_sets)
    damaged["alpha"]["spec"].update(change)
    published, problems = PublishedReader().read(replace(whole, class_sets=damaged))
    assert [(each.kind, each.name, each.field) for each in problems] == [("ClassSet", "alpha", field)]
    assert published == replace(PUBLISHED, class_sets={})
    reader.read(whole)
    assert reader.read(replace(whole, class_sets=damaged)) == (PUBLISHED, problems)


def test_objects_of_another_kind_name_or_form_are_refused() -> None:
    whole = objects()
    broken: tuple[Any, ...] = (
        {},
        {"kind": "ClassSet", "metadata": {"name": "alpha"}},
        {"kind": "Pod", "spec": {}},
        "text",
        {**whole.class_sets["alpha"], "metadata": {"name": "beta"}},
    )
    for raw in broken:
        found, problems = read(replace(whole, class_sets={**whole.class_sets, "alpha": raw}))
        assert found.class_sets == {} and len(problems) == 1
    for raw in ({"kind": "Pod", "spec": {}}, {"kind": "Allocation"}, {"kind": "Allocation", "spec": []}):
        with pytest.raises(InputError):
            PublishedReader().read(PublishedObjects(raw))


def test_a_duplicate_class_counts_in_the_newest_class_set() -> None:
    late = replace(ALPHA, namespace="beta", overrides={}, tombstones=(), retired=frozenset(), epoch=4, revision=2)
    both = objects(replace(PUBLISHED, class_sets={"alpha": ALPHA, "beta": late}))
    found, problems = read(both)
    assert found.class_sets == {"beta": late}
    (problem,) = problems
    assert str(problem) == "ClassSet alpha: spec.classes: class 0x10001 belongs to namespace beta"


def test_a_class_of_a_segment_that_was_not_given_is_left_out() -> None:
    strange = replace(ALPHA, classes={identity(7, 1): frozenset()}, pending=frozenset(), overrides={})
    found, problems = read(objects(replace(PUBLISHED, class_sets={"alpha": strange})))
    assert found.class_sets == {} and "does not have" in problems[0].reason


def test_a_class_set_ahead_of_its_allocation_is_not_used_yet() -> None:
    later = replace(ALPHA, classes={**ALPHA.classes, identity(7, 1): frozenset()}, revision=ALPHA.revision + 1)
    new = objects(replace(PUBLISHED, class_sets={"alpha": later}))
    reader = PublishedReader()
    reader.read(objects())
    for _ in range(2):
        found, problems = read(PublishedObjects(objects().allocation, plain(new.class_sets)), reader)
        assert found.class_sets == {"alpha": ALPHA} and "does not have" in problems[0].reason
    indexes = {**PUBLISHED.indexes, SegmentKey("alpha", "new"): (7,), SegmentKey("alpha", "default"): (4,)}
    published = replace(PUBLISHED, indexes=indexes, class_sets={"alpha": later})
    assert reader.read(objects(published)) == (published, ())


@pytest.mark.parametrize(
    "change",
    [
        {"acknowledgedRevision": "8"},
        {"exhaustedSegments": [{}]},
        {"foreignAddresses": ["x"]},
        {"conflictingAddresses": {}},
        {"sctpTracking": "both"},
        {"sctpTracking": False},
        {"tenantsAtConnectionLimit": [1]},
    ],
)
def test_a_damaged_report_is_refused(change: dict[str, Any]) -> None:
    raw = plain(report_object(REPORT))
    raw["status"].update(change)
    with pytest.raises(InputError, match="NodeReport node1: status"):
        decode_report(raw)


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-2, 2**33), st.text(max_size=3), st.sampled_from(["1.2.3.4", "a"])),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=4,
)


@settings(max_examples=examples(400), deadline=None)
@given(st.data())
def test_nothing_that_stands_in_an_object_crashes_a_reader(data: st.DataObject) -> None:
    """Some field is anything at all: it is read, or refused in our own words."""
    raw = plain({"allocation": objects().allocation, "sets": objects().class_sets, "report": report_object(REPORT)})
    places = [(raw, "allocation"), (raw, "report"), *((raw["sets"], name) for name in raw["sets"])]
    at, key = data.draw(st.sampled_from(places))
    while isinstance(at[key], (dict, list)) and at[key] and data.draw(st.integers(0, 4)):
        at = at[key]
        key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
    at[key] = data.draw(VALUES)
    for read in (
        lambda: decode_report(raw["report"]),
        lambda: PublishedReader().read(PublishedObjects(raw["allocation"], raw["sets"])),
        lambda: TermBase.of(PublishedObjects(raw["allocation"], raw["sets"])),
        lambda: published_from_json({"allocation": raw["allocation"], "classSets": list(raw["sets"].values())}),
    ):
        with suppress(InputError):
            read()


def large() -> Published:
    """250 tenants of 4 tiers, 1,000 nodes, 10,000 namespaces with two classes each."""
    plan = AddressPlan.of(Settings(segment_bits=12, host_bits=10, endpoint_bits=2))
    runs = {f"tenant-{number:03}": (Block(4 + 4 * number, 4),) for number in range(250)}
    indexes = {SegmentKey(name, f"tier{at}"): (run.base + at,) for name, (run,) in runs.items() for at in range(4)}
    sets = {}
    for number in range(10_000):
        name, segment = f"namespace-{number:05}", 4 + number % 1000
        classes = {identity(segment, 1 + number // 1000 * 2 + at): frozenset([WEB] * at) for at in (0, 1)}
        sets[name] = ClassSet(name, {WEB: Stage.ACTIVE}, classes, epoch=1, revision=number)
    hosts = {f"node-{number:04}.example.org": number for number in range(1000)}
    next_class = {found[0]: 21 for found in indexes.values()}
    return Published(plan, 1, "registry-1", 9, runs, indexes, next_class, hosts, (1000,), class_sets=sets)


def test_large_clusters_fit() -> None:
    published = large()
    assert len(json.dumps(allocation_object(published))) < ETCD_LIMIT / 5
    assert all(len(json.dumps(class_set_object(each))) < 1000 for each in published.class_sets.values())
    asked = [LabelRequirement("key", frozenset({f"value-{at:03}"})) for at in range(200)]
    crowded = replace(
        ALPHA,
        requirements=dict.fromkeys(asked, Stage.ACTIVE),
        classes={identity(1, 1 + at): frozenset({asked[at % 200]}) for at in range(5000)},
        pending=frozenset(),
        overrides={PodKey(f"alpha/pod-{at:05}"): ONE for at in range(20_000)},
    )
    raw = class_set_object(crowded)
    assert len(json.dumps(raw)) < ETCD_LIMIT and len(raw["spec"]["overrides"]) == 2000


def test_long_names_and_labels_leave_the_classes_their_room() -> None:
    tombstones = tuple((1, Labels({"app": f"{at:04}" + "x" * 59, "tier": "y" * 63})) for at in range(1024))
    raw = class_set_object(
        replace(
            ALPHA,
            tombstones=tombstones,
            overrides={PodKey(f"alpha/{at:04}{'p' * 249}"): ONE for at in range(3000)},
        )
    )
    assert len(json.dumps(raw)) < 400_000 and 500 < len(raw["spec"]["overrides"]) < 2000
    kept = [one["labels"]["app"][:4] for one in raw["spec"]["tombstones"]]
    assert len(kept) > 400 and kept == [f"{at:04}" for at in range(1024 - len(kept), 1024)]


def test_an_object_that_is_too_large_is_never_sent() -> None:
    most = {IPv4Address(10 * 2**24 + at): Claim("node1", granted=True) for at in range(100_000)}
    with pytest.raises(InputError, match="Allocation cluster: it would have .* bytes"):
        allocation_object(replace(PUBLISHED, foreign=most))


@pytest.mark.parametrize("name", ["allocations", "classsets", "nodereports"])
def test_the_schema_names_every_field_that_is_written(name: str) -> None:
    crd = yaml.safe_load((Path(__file__).parents[3] / "etc" / "kubernetes" / f"crd-{name}.yaml").read_text())
    (version,) = crd["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    written = {
        "allocations": [allocation_object(PUBLISHED)],
        "classsets": [class_set_object(ALPHA), marker_object(PUBLISHED)],
        "nodereports": [report_object(REPORT)],
    }[name]
    for raw in written:
        assert raw["kind"] == crd["spec"]["names"]["kind"] and raw["apiVersion"] == "romana.io/v1"
        for part in ("spec", "status"):
            _known(raw.get(part, {}), schema["properties"].get(part, {}), part)


def _known(value: object, schema: Any, place: str) -> None:
    """Structural schemas drop what they do not name."""
    if isinstance(value, dict):
        for key, inner in value.items():
            found = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
            assert found is not None, f"{place}.{key}"
            _known(inner, found, f"{place}.{key}")
    elif isinstance(value, list):
        for inner in value:
            _known(inner, schema["items"], place)
