"""Provides a registry with agents of a small cluster, and the steps that its tests share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from romana_ovs.model.objects import Pod, Policy, PolicyPeer
from romana_ovs.model.settings import Settings
from romana_ovs.policy.view import LabelRequirement
from romana_ovs.registry_types.published import Stage
from tests.support.builders import DEFAULTS, NODES, cluster, pods, policy, rule, where
from tests.support.known import known
from tests.support.reordered_messages import RegistryAndAgents

APP = LabelRequirement("app", frozenset({"web"}))
WEB = policy("web-only", ingress=[rule(pods(app="web"))])
NOT_WEB = policy("not-web", ingress=[rule(PolicyPeer(pods=where("app", "NotIn", "web")))])


def settled(*objects: Pod | Policy, settings: Settings = DEFAULTS, nodes: Iterable[str] = NODES) -> RegistryAndAgents:
    """Registry and agents of a cluster of these objects, with nothing on its way."""
    simulation = RegistryAndAgents(cluster(*objects, settings=settings, nodes=nodes))
    simulation.settle()
    return simulation


def newest(simulation: RegistryAndAgents) -> int:
    """The number of the last cluster."""
    return len(simulation.history) - 1


def update_agent(simulation: RegistryAndAgents, name: str, *, numbers: bool = True, may_wait: bool = True) -> None:
    """A node sees the last cluster, and the last numbers unless `numbers` is False."""
    simulation.node_looks(
        name, newest(simulation), len(simulation.messages) - 1 if numbers else None, may_wait=may_wait
    )


def update_numbers(simulation: RegistryAndAgents, name: str) -> None:
    """The newest numbers reach a node that has not seen the last change of the cluster."""
    simulation.node_looks(name, 0, len(simulation.messages) - 1)


def confirm(simulation: RegistryAndAgents, *names: str) -> None:
    """The switches of these nodes confirm, and their reports arrive."""
    for name in names:
        simulation.node_programs(name)
        simulation.report_arrives(name)


def rounds(simulation: RegistryAndAgents, count: int) -> Iterator[int]:
    """Rounds in which the registry, then every node sees everything, and in the end every switch confirms."""
    for number in range(count):
        simulation.registry_looks(newest(simulation))
        for name in simulation.nodes:
            update_agent(simulation, name)
        yield number
        confirm(simulation, *simulation.nodes)


def stages(simulation: RegistryAndAgents, namespace: str = "ns") -> dict[LabelRequirement, Stage]:
    """The stages of a namespace's requirements, as last published."""
    return dict(simulation.messages[-1].class_sets[namespace].requirements)


def in_force(simulation: RegistryAndAgents, name: str) -> list[str]:
    """The names of the policies in a node's view."""
    return [each.key.name for each in known(simulation.view(name)).policies]
