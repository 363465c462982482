"""A small cluster of parts for examples, and what their tests do with it time and again."""

from __future__ import annotations

# mypy: ignore-errors
from romana_ovs.model.labels import Operator, Requirement, Selector
from romana_ovs.model.objects import PolicyPeer
from romana_ovs.policy.view import LabelRequirement
from tests.support.cluster_objects import cluster, policy
from tests.support.reordered_messages import RegistryAndAgents

APP = LabelRequirement("app", frozenset({"web"}))
WEB = policy("web-only", PolicyPeer(pods=Selector.of({"app": "web"})))
NOT_WEB = policy("not-web", PolicyPeer(pods=Selector((Requirement("app", Operator.NOT_IN, frozenset({"web"})),))))


def settled(*pods, **other):
    parts = RegistryAndAgents(cluster(*pods, **other))
    parts.settle()
    return parts


def newest(parts):
    return len(parts.history) - 1


def look(parts, name, *, numbers=True, **other):
    parts.node_looks(name, newest(parts), len(parts.messages) - 1 if numbers else None, **other)


def hear(parts, name):
    """The newest numbers reach a node that has not seen the last change of the cluster."""
    parts.node_looks(name, 0, len(parts.messages) - 1)


def confirm(parts, *names):
    for name in names:
        parts.node_programs(name)
        parts.report_arrives(name)


def stages(parts, namespace="ns"):
    return dict(parts.messages[-1].namespaces[namespace].requirements)


def in_force(parts, name):
    return [each.key.name for each in parts.view(name).policies]
