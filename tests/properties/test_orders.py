"""Changes of different kinds have no order among each other: whichever comes first, the tables in the end are the same.

That each kind comes in pieces, twice, late or again from the start: tests/kube/cache/test_cluster_cache_properties.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import permutations

from romana_ovs.engine import offline_facts
from romana_ovs.kube.api.messages import ListCompleted, ListStarted, ObjectsObserved, Update
from romana_ovs.kube.api.object_decoder import decoder, object_meta
from romana_ovs.kube.api.resources import CLUSTER, NAMESPACES, NODES, PODS, POLICIES, ROMANA_POLICIES, TENANTS, Resource
from romana_ovs.kube.cache.cluster_cache import ClusterCache
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.settings import Settings
from romana_ovs.pipeline.compile import compile_node
from romana_ovs.pipeline.flow import Flow
from romana_ovs.policy.resolve import resolve
from tests.support.confirming_world import World

SETTINGS = Settings()
Told = tuple[Resource, Update]


def told(resource: Resource, name: str, version: int = 1, *, there: bool = True, **parts: object) -> Told:
    """An object as it is told of; `labels` belong to its metadata, and all that have a namespace are in `shop`."""
    metadata = {"name": name, "uid": name, "resourceVersion": str(version), "labels": parts.pop("labels", {})}
    if resource in (PODS, POLICIES, ROMANA_POLICIES):
        metadata["namespace"] = "shop"
    value = {"metadata": metadata, **parts}
    head = object_meta(value, resource)
    assert head is not None
    update = (
        decoder(resource, SETTINGS)(value, head) if there else Update(head.id, head.uid, head.version, exists=False)
    )
    return resource, update


def pod(name: str, version: int = 1, **labels: str) -> Told:
    spec = {"nodeName": "n1" if name < "c" else "n2", "containers": [{"name": "c"}]}
    return told(PODS, name, version, labels=labels, spec=spec, status={"phase": "Pending"})


def policy(name: str, version: int = 1, *, there: bool = True, peer: object) -> Told:
    spec = {"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"from": [peer]}]}
    return told(POLICIES, name, version, there=there, spec=spec)


BLUE = {"namespaceSelector": {"matchLabels": {"team": "blue"}}, "podSelector": {"matchLabels": {"app": "web"}}}
WEB = {"podSelector": {"matchLabels": {"app": "web"}}}
BEFORE = (
    told(NODES, "n1"),
    told(NODES, "n2"),
    told(NAMESPACES, "shop"),
    pod("a", app="web"),
    pod("b", app="db"),
    pod("c", app="other"),
    pod("d", app="db"),
    policy("goes", peer=WEB),
    told(ROMANA_POLICIES, "stays", spec={"podSelector": {}, "allowIncoming": [{"toPorts": [{"port": 80}]}]}),
)
CHANGES = (
    told(NAMESPACES, "shop", 2, labels={"team": "blue"}),
    pod("c", 2, app="web"),
    policy("comes", peer=BLUE),
    policy("goes", 2, there=False, peer=WEB),
    told(TENANTS, "shop", spec={"tenant": "shop"}),
)


def tables(cluster: Cluster, world: World) -> dict[str, frozenset[Flow]]:
    facts = offline_facts(cluster, cluster.nodes)
    views = {node: world.view(facts[node], facts) for node in facts}
    return {node: frozenset(compile_node(view, resolve(view)).flows.values()) for node, view in views.items()}


def followed(changes: Iterable[Told]) -> tuple[Cluster, dict[str, frozenset[Flow]]]:
    """The cluster, and the tables of a world that has followed `changes` one by one."""
    store, world = ClusterCache(SETTINGS), World(SETTINGS)
    listings = [
        message
        for resource in CLUSTER
        for message in (
            ListStarted(str(resource)),
            ObjectsObserved(str(resource), tuple(update for each, update in BEFORE if each is resource)),
            ListCompleted(str(resource)),
        )
    ]
    loaded = store.apply(*listings)
    assert loaded is not None
    for messages in ((), *((ObjectsObserved(str(resource), (update,)),) for resource, update in changes)):
        loaded = store.apply(*messages) or loaded
        world.update(loaded.cluster)
        while world.pending:
            world.advance()
    return loaded.cluster, tables(loaded.cluster, world)


def test_every_order_of_changes_comes_to_the_same_tables() -> None:
    """docs/hazards.md C7: a namespace, a pod, policies and a tenant, in every order of arrival."""
    before = followed(())
    first, *others = map(followed, permutations(CHANGES))
    assert len(others) == 119 and first != before
    for other in others:
        assert other == first
