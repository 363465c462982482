"""Nodes of DaemonSets: node name, labels, affinity, taints and tolerations."""

from __future__ import annotations

import json

import pytest

from romana_ovs.kube.decode.node_selection import Taint, Toleration
from tests.support.manifests import item, loaded, workload

NODES: list[dict[str, object]] = [
    {"metadata": {"name": "big", "labels": {"size": "12", "disk": "ssd"}}},
    {
        "metadata": {"name": "control", "labels": {"size": "4"}},
        "spec": {"taints": [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]},
    },
    {
        "metadata": {"name": "cordoned"},
        "spec": {
            "unschedulable": True,
            "taints": [
                {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"},
                {"key": "x", "value": "y", "effect": "PreferNoSchedule"},
            ],
        },
    },
]
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def affinity(*terms: dict[str, object]) -> dict[str, object]:
    return {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": list(terms)}}}}


def expression(key: str, operator: str, *values: str, field: str = "matchExpressions") -> dict[str, object]:
    return {field: [{"key": key, "operator": operator, "values": list(values)}]}


def selected(spec: dict[str, object]) -> list[str]:
    """The nodes on which a DaemonSet of this pod spec has pods."""
    daemon: dict[str, object] = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "d"},
        "spec": {
            "selector": {"matchLabels": {"app": "d"}},
            "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c"}], **spec}},
        },
    }
    nodes: list[dict[str, object]] = [{"apiVersion": "v1", "kind": "Node", **node} for node in NODES]
    found = loaded(a="\n".join(json.dumps(one) for one in (*nodes, daemon)))
    assert found.problems == ()
    return [pod.node for pod in found.cluster.pods.values()]


@pytest.mark.parametrize(
    ("spec", "nodes"),
    [
        ({}, ["big", "cordoned"]),
        ({"tolerations": [{"operator": "Exists"}]}, ["big", "control", "cordoned"]),
        ({"tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}]},
         ["big", "control", "cordoned"]),
        ({"nodeName": "big"}, ["big"]),
        ({"nodeSelector": {"disk": "ssd"}}, ["big"]),
        ({"nodeSelector": {"kubernetes.io/os": "linux"}}, ["big", "cordoned"]),
        ({"nodeSelector": {"kubernetes.io/os": "windows"}}, []),
        ({"nodeSelector": {"kubernetes.io/hostname": "cordoned"}}, ["cordoned"]),
        (affinity(expression("disk", "In", "ssd", "nvme")), ["big"]),
        (affinity(expression("disk", "NotIn", "ssd")), ["cordoned"]),
        (affinity(expression("disk", "Exists")), ["big"]),
        (affinity(expression("disk", "DoesNotExist")), ["cordoned"]),
        (affinity(expression("size", "Gt", "5")), ["big"]),
        (affinity(expression("size", "Lt", "5")), []),
        (affinity(expression("metadata.name", "In", "big", field="matchFields")), ["big"]),
        (affinity(expression("metadata.name", "NotIn", "big", field="matchFields")), ["cordoned"]),
        (affinity(expression("disk", "Exists"), expression("metadata.name", "In", "cordoned", field="matchFields")),
         ["big", "cordoned"]),
        (affinity({}), []),
        (affinity(), []),
    ],
)  # fmt: skip
def test_selection(spec: dict[str, object], nodes: list[str]) -> None:
    assert selected(spec) == nodes


def test_a_daemon_set_without_nodes_is_left_out() -> None:
    node = "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n---\n"
    text = workload("DaemonSet", "d").replace("containers:", "nodeSelector: {disk: ssd}, containers:")
    found = loaded(a=node + text)
    assert [(one.kind, one.name) for one in found.left_out] == [("DaemonSet", "default/d")]
    assert "selects none of the nodes" in found.left_out[0].reason


def test_labels_of_nodes_that_are_not_declared_count() -> None:
    text = workload("DaemonSet", "d").replace("containers:", "nodeSelector: {disk: ssd}, containers:")
    found = loaded(a=text)
    assert list(found.cluster.pods) == ["default/d-node1", "default/d-node2"]
    (note,) = found.notes
    assert note.field == "spec.template.spec"
    assert "not known without Node objects" in note.reason


@pytest.mark.parametrize(
    ("toleration", "tolerates"),
    [
        (Toleration("k", "Exists"), True),
        (Toleration("k", value="v"), True),
        (Toleration("k", value="other"), False),
        (Toleration("k", value="v", effect="NoSchedule"), False),
        (Toleration("k", "Exists", effect="NoExecute"), True),
        (Toleration("", "Exists"), True),
        (Toleration("", "Equal", "v"), False),
        (Toleration("j", "Exists"), False),
    ],
)
def test_tolerations(toleration: Toleration, tolerates: bool) -> None:
    assert toleration.tolerates(Taint("k", "v", "NoExecute")) is tolerates


@pytest.mark.parametrize(
    ("term", "field", "reason"),
    [
        ("matchExpressions: [{key: a, operator: Within}]", "matchExpressions[0].operator", "is none of In, NotIn"),
        ("matchFields: [{key: spec.x, operator: In}]", "matchFields[0].key", "is no field of nodes"),
    ],
)
def test_mistakes(term: str, field: str, reason: str) -> None:
    spec = f"affinity: {{nodeAffinity: {{{REQUIRED}: {{nodeSelectorTerms: [{{{term}}}]}}}}}}, containers:"
    (problem,) = item(workload("DaemonSet", "d").replace("containers:", spec)).problems
    assert problem.field == f"spec.template.spec.affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms[0].{field}"
    assert reason in problem.reason
