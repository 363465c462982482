"""Pods by node: the same as sorted anew, and the identical mapping where no pod changed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from romana_ovs.engine.pods_by_node import PodsByNode
from romana_ovs.model.objects import Pod, PodKey
from tests.support.builders import pod

NODES = ("node1", "node2", "node3")
PLACED = st.dictionaries(st.sampled_from("abcd"), st.tuples(st.sampled_from(NODES), st.booleans()))


def pods_of(placed: dict[str, tuple[str, bool]]) -> dict[PodKey, Pod]:
    made = [pod(name, node, uid="new" if renewed else "old") for name, (node, renewed) in placed.items()]
    return {each.key: each for each in made}


@given(st.lists(st.tuples(PLACED, st.sets(st.sampled_from(NODES))), max_size=6))
def test_it_is_as_sorted_anew(steps: list[tuple[dict[str, tuple[str, bool]], set[str]]]) -> None:
    by_node = PodsByNode()
    for placed, nodes in steps:
        pods = pods_of(placed)
        before = {node: by_node.of(node) for node in NODES}
        replaced = by_node.update(pods, nodes)
        for node in NODES:
            expected = {key: each for key, each in pods.items() if each.node == node and node in nodes}
            assert by_node.of(node) == expected
            if node in nodes:
                assert (by_node.of(node) is not before[node]) <= (node in replaced)
        assert all(by_node.get(key) is each for key, each in pods.items())


def test_nodes_without_a_changed_pod_keep_their_mapping() -> None:
    by_node = PodsByNode()
    pods = {each.key: each for each in (pod("a", "node1"), pod("b", "node2"), pod("c", "node3"))}
    assert set(by_node.update(pods, NODES)) == set(NODES)
    assert not by_node.update(pods, NODES)
    kept = by_node.of("node3")
    moved = pod("a", "node2")
    assert set(by_node.update({**pods, moved.key: moved}, NODES, (moved.key,))) == {"node1", "node2"}
    assert by_node.of("node3") is kept and not by_node.of("node1")
