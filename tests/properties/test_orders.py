"""Changes of different kinds have no order among each other: whichever comes first, the tables in the end are the same.

That each kind comes in pieces, twice, late or again from the start: tests/kube/cache/test_cluster_cache_properties.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import permutations
from typing import Any

from romana_ovs.engine import offline_facts
from romana_ovs.kube.api.messages import Update
from romana_ovs.kube.api.resources import CLUSTER, NAMESPACES, NODES, PODS, POLICIES, ROMANA_POLICIES, TENANTS, Resource
from romana_ovs.kube.cache.cluster_cache import ClusterCache
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.settings import Settings
from romana_ovs.pipeline.compile import compile_node
from romana_ovs.pipeline.flow import Flow
from romana_ovs.policy.resolve import resolve
from tests.support.confirming_engine import ConfirmingEngine
from tests.support.observed_objects import deleted, listing, observe, observed, observed_pod

SETTINGS = Settings()
Change = tuple[Resource, Update]


def change(resource: Resource, name: str, version: int = 1, **parts: Any) -> Change:
    return resource, observed(resource, name, version, uid=name, **parts)


def pod_change(name: str, version: int = 1, **labels: str) -> Change:
    node = "n1" if name < "c" else "n2"
    return PODS, observed_pod(name, version, uid=name, node=node, phase="Pending", labels=labels)


def policy_change(name: str, peer: object) -> Change:
    spec = {"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"from": [peer]}]}
    return change(POLICIES, name, spec=spec)


BLUE = {"namespaceSelector": {"matchLabels": {"team": "blue"}}, "podSelector": {"matchLabels": {"app": "web"}}}
WEB = {"podSelector": {"matchLabels": {"app": "web"}}}
BEFORE = (
    change(NODES, "n1"),
    change(NODES, "n2"),
    change(NAMESPACES, "shop"),
    pod_change("a", app="web"),
    pod_change("b", app="db"),
    pod_change("c", app="other"),
    pod_change("d", app="db"),
    policy_change("goes", WEB),
    change(ROMANA_POLICIES, "stays", spec={"podSelector": {}, "allowIncoming": [{"toPorts": [{"port": 80}]}]}),
)
CHANGES = (
    change(NAMESPACES, "shop", 2, labels={"team": "blue"}),
    pod_change("c", 2, app="web"),
    policy_change("comes", BLUE),
    (POLICIES, deleted(policy_change("goes", WEB)[1], 2)),
    change(TENANTS, "shop", spec={"tenant": "shop"}),
)


def tables(cluster: Cluster, engine: ConfirmingEngine) -> dict[str, frozenset[Flow]]:
    facts = offline_facts(cluster, cluster.nodes)
    views = {node: engine.view(facts[node], facts) for node in facts}
    return {node: frozenset(compile_node(view, resolve(view)).flows.values()) for node, view in views.items()}


def followed(changes: Iterable[Change]) -> tuple[Cluster, dict[str, frozenset[Flow]]]:
    """The cluster, and the tables of a engine that has followed `changes` one by one."""
    store, engine = ClusterCache(SETTINGS), ConfirmingEngine(SETTINGS)
    listings = [
        message
        for resource in CLUSTER
        for message in listing(resource, *(update for each, update in BEFORE if each is resource))
    ]
    loaded = store.apply(*listings)
    assert loaded is not None
    for messages in ((), *((observe(resource, update),) for resource, update in changes)):
        loaded = store.apply(*messages) or loaded
        engine.update(loaded.cluster)
        while engine.pending:
            engine.advance()
    return loaded.cluster, tables(loaded.cluster, engine)


def test_every_order_of_changes_comes_to_the_same_tables() -> None:
    """docs/hazards.md C7: a namespace, a pod, policies and a tenant, in every order of arrival."""
    before = followed(())
    first, *others = map(followed, permutations(CHANGES))
    assert len(others) == 119 and first != before
    for other in others:
        assert other == first
