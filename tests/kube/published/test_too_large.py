"""A namespace whose classes no object holds is alone in that: everybody else's numbers go on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from romana_ovs.kube.published import PublishedObjects, TermBase, Write, WriteCache, plan_writes
from romana_ovs.model.identity import identity
from romana_ovs.policy.view import LabelRequirement
from romana_ovs.registry_types.published import ClassSet, Stage
from tests.kube.published.published_objects import ALPHA, ETCD_LIMIT, PUBLISHED

REQUIREMENTS = [LabelRequirement(f"key-{number:04}") for number in range(2000)]


def crowded(many: int) -> ClassSet:
    """As many classes as this, no two of which answer alike, and numbers that are not to be given again yet."""
    classes = {identity(1, number): frozenset(REQUIREMENTS[number % 2000 :: 7]) for number in range(1, many + 1)}
    return replace(
        ALPHA,
        namespace="crowded",
        requirements=dict.fromkeys(REQUIREMENTS, Stage.ACTIVE),
        classes=classes,
        overrides={},
        tombstones=(),
        pending=frozenset({identity(1, 1)}),
        retired=frozenset({identity(1, 9000)}),
    )


def written(writes: Iterable[Write]) -> dict[str, Any]:
    return {write.name: json.loads(json.dumps(write.body)) for write in writes}


def test_a_too_large_class_set_is_replaced_and_keeps_its_numbers() -> None:
    """docs/hazards.md E10."""
    checked, large = WriteCache(), crowded(3000)
    desired = replace(PUBLISHED, class_sets={"alpha": ALPHA, "crowded": large})
    found = written(plan_writes(desired, None, PublishedObjects(), checked))
    assert all(len(json.dumps(body)) < ETCD_LIMIT for body in found.values())
    assert found["alpha"]["spec"]["classes"] and found["crowded"]["spec"]["classes"] == []
    assert set(found["crowded"]["spec"]["retired"]) == large.retired | large.classes.keys()
    (problem,) = checked.problems.values()
    assert str(problem).startswith("Namespace crowded: of its ClassSet, it would have ")
    assert str(problem).endswith("only segment-wide rules apply to its pods")

    for number, body in enumerate(found.values()):
        body["metadata"]["resourceVersion"] = str(number)
    objects = PublishedObjects(found.pop("cluster"), found)
    assert plan_writes(desired, None, objects, checked) == () and checked.problems, "it is as it is to be"
    begun = TermBase.of(objects)
    assert begun is not None
    (again,) = (each for each in begun.published.class_sets.values() if each.namespace == "crowded")
    assert again.retired == large.retired | large.classes.keys(), "also the next registry gives none of them"

    fewer = replace(desired, class_sets={"alpha": ALPHA, "crowded": crowded(100)})
    assert len(written(plan_writes(fewer, None, objects, checked))["crowded"]["spec"]["classes"]) == 100
    assert checked.problems == {}
    plan_writes(desired, None, objects, checked)
    plan_writes(replace(desired, class_sets={"alpha": ALPHA}), None, objects, checked)
    assert checked.problems == {}, "a namespace that is gone has none"
