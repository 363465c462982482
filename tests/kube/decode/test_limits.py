"""What one policy may ask for (docs/hazards.md E10)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from romana_ovs.engine import offline_facts
from romana_ovs.kube.decode.decoder import POLICY, POLICY_VERSION, decode_served
from romana_ovs.kube.decode.limits import MAX_TERMS
from romana_ovs.kube.decode.objects import DecodedObject
from romana_ovs.kube.decode.romanapolicy import CURRENT_VERSION
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.labels import Selector
from romana_ovs.model.objects import Direction, IpBlock, KubernetesPolicy, Pod, RomanaPolicy
from romana_ovs.model.settings import Settings
from romana_ovs.pipeline.compile import compile_node
from romana_ovs.pipeline.flow import Flow, FlowKey
from romana_ovs.policy.normalise import remaining
from romana_ovs.policy.resolve import resolve
from tests.support.builders import cluster, pod
from tests.support.confirming_engine import ConfirmingEngine

SELECTOR: dict[str, Any] = {"matchLabels": {"app": "web"}}


def decoded(version: str = POLICY_VERSION, **spec: Any) -> DecodedObject:
    value = {"metadata": {"name": "p", "namespace": "n"}, "spec": {"podSelector": SELECTOR, **spec}}
    return decode_served(value, POLICY, version, Settings())


def blocks(count: int) -> list[dict[str, Any]]:
    return [{"ipBlock": {"cidr": f"203.{number >> 8}.{number & 255}.0/24"}} for number in range(count)]


def test_a_policy_may_use_all_of_its_budget_in_each_direction() -> None:
    egress = [{"to": blocks(MAX_TERMS - 1), "ports": [{"port": 1}]}]
    assert decoded(ingress=[{"from": blocks(MAX_TERMS)}], egress=egress).problems == ()


@pytest.mark.parametrize(
    "rules",
    [
        [{"from": blocks(MAX_TERMS + 1)}],
        [{"from": blocks(MAX_TERMS // 2)}, {"from": blocks(MAX_TERMS // 2), "ports": [{"port": 1}]}],
        [{"from": [{"podSelector": {}}] * (MAX_TERMS + 1)}],
        [{"ports": [{"port": 1 + 3 * number, "endPort": 2 + 3 * number} for number in range(1000)]}],
        [{"ports": [{"port": f"name-{number}"} for number in range(1000)]}],
        [{"from": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": [f"10.{n}.0.1/32" for n in range(200)]}}]}],
    ],
)
def test_a_policy_that_is_too_large_isolates_with_a_reason(rules: list[Any]) -> None:
    item = decoded(ingress=rules)
    [problem] = item.problems
    assert str(problem).startswith("NetworkPolicy n/p: spec.ingress: its peers and ports take about ")
    assert "split it" in problem.reason and item.value is None
    found = item.fallback
    assert isinstance(found, KubernetesPolicy)
    assert (found.selector, found.directions, found.ingress) == (
        Selector.of({"app": "web"}),
        frozenset({Direction.INGRESS}),
        (),
    )


def test_a_policy_of_romana_has_a_budget_too() -> None:
    sources = [{"pods": {"matchLabels": {"a": str(number)}}} for number in range(MAX_TERMS + 1)]
    item = decoded(CURRENT_VERSION, allowIncoming=[{"from": sources}])
    [problem] = item.problems
    assert problem.field == "spec.allowIncoming" and isinstance(item.fallback, RomanaPolicy)


def networks(low: int) -> st.SearchStrategy[IPv4Network]:
    return st.builds(
        lambda bits, width: IPv4Network((0x0A000000 | bits, width), strict=False),
        st.integers(0, 255),
        st.integers(low, 32),
    )


@given(networks(24), st.lists(networks(25), max_size=6))
def test_a_block_matches_all_addresses_without_exceptions(cidr: IPv4Network, holes: list[IPv4Network]) -> None:
    found = remaining(IpBlock(cidr, tuple(holes)))
    expected = set(cidr) - {address for hole in holes for address in hole}
    assert {address for network in found for address in network} == expected
    assert list(found) == sorted(found)
    assert sum(network.num_addresses for network in found) == len(expected)


def test_many_exceptions_take_no_longer_than_as_many_blocks() -> None:
    holes = tuple(IPv4Network((number << 8, 32)) for number in range(10_000))
    begin = time.thread_time()
    found = remaining(IpBlock(IPv4Network("0.0.0.0/0"), holes))
    assert time.thread_time() - begin < 10
    assert sum(network.num_addresses for network in found) == (1 << 32) - len(holes)


HALF = MAX_TERMS // 2
PORTS = [{"port": 1 + 2 * number} for number in range(HALF)]
HOSTILE: dict[str, list[Any]] = {
    "addresses by ports": [{"from": blocks(HALF), "ports": PORTS}],
    "labels by ports": [
        {"from": [{"podSelector": {"matchLabels": {"x": str(number)}}} for number in range(HALF)], "ports": PORTS}
    ],
    "as many questions": [
        {"from": [{"podSelector": {"matchExpressions": [{"key": f"k{number}", "operator": "DoesNotExist"}]}}]}
        for number in range(MAX_TERMS)
    ],
    "as many rules": [
        {"from": [{"podSelector": {"matchLabels": {"x": str(number)}}}], "ports": [{"port": 1 + number}]}
        for number in range(HALF)
    ],
}
"""The rules of policies that use up all that one may ask for."""


@pytest.mark.parametrize("shape", HOSTILE)
def test_tables_of_any_policy_within_the_limit_are_quick(shape: str) -> None:
    """docs/hazards.md E10 and B19: peers and ports add up and never multiply; no policy keeps others waiting."""
    item = decoded(ingress=HOSTILE[shape])
    assert isinstance(item.value, KubernetesPolicy), item.problems
    policy = replace(item.value, namespace="ns")
    pods = [pod(f"p{number}", app="web", x=str(number)) for number in range(20)]
    bare = compiled(cluster(*pods))
    begin = time.thread_time()
    flows = compiled(cluster(*pods, policy))
    assert time.thread_time() - begin < 3, "half a second, on a machine that has nothing else to do"
    assert len(flows) < len(bare) + 2 * MAX_TERMS + 100


def compiled(at: Cluster) -> Mapping[FlowKey, Flow]:
    """The tables of the node of all pods."""
    engine = ConfirmingEngine(at.settings)
    engine.update(at)
    while engine.pending:
        engine.advance()
    facts = offline_facts(at, at.nodes)
    view = engine.view(facts["node1"], facts)
    return compile_node(view, resolve(view)).flows


def test_a_port_name_with_thousands_of_ports_is_limited() -> None:
    """A pod of an API server may have twenty thousand containers, and a rule for each of its peers."""
    containers = [{"name": f"c{at}", "ports": [{"name": "x", "containerPort": 1 + at}]} for at in range(20_000)]
    value = {"metadata": {"name": "a", "namespace": "n"}, "spec": {"nodeName": "node1", "containers": containers}}
    item = decode_served(value, "Pod", "v1", Settings())
    assert isinstance(item.value, Pod)
    assert [port.number for port in item.value.ports] == list(range(1, 17))
    assert [str(problem) for problem in item.problems] == [
        'Pod n/a: spec.containers: port name "x" stands for more than 16 ports: the first ones count'
    ]


def test_ports_without_a_name_or_under_their_own_are_all_there() -> None:
    ports = (
        [{"containerPort": 1 + at} for at in range(100)]
        + [{"containerPort": 1000 + at, "name": f"p{at}"} for at in range(100)]
        + [{"containerPort": 53, "name": "dns", "protocol": protocol} for protocol in ("TCP", "UDP")]
    )
    value = {
        "metadata": {"name": "a"},
        "spec": {
            "containers": [
                {"name": "c", "ports": ports[:-2]},
                {"name": "d", "ports": ports[-2:-1]},
                {"name": "e", "ports": ports[-1:]},
            ]
        },
    }
    item = decode_served(value, "Pod", "v1", Settings())
    assert isinstance(item.value, Pod) and len(item.value.ports) == 202 and item.problems == ()
