"""The steps of the first public demonstration, by the reference evaluation."""

from __future__ import annotations

from romana_ovs.model.connection import PortRef
from romana_ovs.model.labels import Selector
from romana_ovs.model.objects import RomanaRule
from romana_ovs.policy.matrix import PodPath, difference, reachability
from tests.support.builders import addresses, cluster, pod, pod_label, policy_ports, romana

PODS = (
    pod("default/nginx-frontend", app="nginx", owner="t1", tier="frontend", node="node1"),
    pod("default/nginx-backend", app="nginx", owner="t1", tier="backend", node="node2"),
    *(pod(f"default/nginx-default-{each}", app="guestbook", owner="t2", tier="default") for each in range(3)),
)
POLICY = romana(
    "default/policy1",
    Selector.of({"tier": "backend"}),
    RomanaRule((Selector.of({"tier": "frontend"}),), policy_ports("80/tcp")),
    owner="t1",
)
PORTS = [PortRef.parse(text) for text in ("80/tcp", "81/tcp", "80/udp", "icmp")]


def test_the_demonstration() -> None:
    """t2's replicas see each other and nothing else; the policy opens frontend to backend on TCP 80 and no more."""
    start = cluster(*PODS, settings=pod_label())
    before = reachability(start, addresses(start), PORTS)
    replicas = [f"default/nginx-default-{each}" for each in range(3)]
    among_replicas = {each: tuple(other for other in replicas if other != each) for each in replicas}
    assert before.reach == {str(port): among_replicas for port in PORTS}

    applied = start.with_object(POLICY)
    during = reachability(applied, addresses(applied), PORTS)
    path = PodPath(PODS[0].key, PODS[1].key, "80/tcp")
    assert difference(before, during) == ([path], [])

    removed = applied.without(POLICY)
    after = reachability(removed, addresses(removed), PORTS)
    assert difference(during, after) == ([], [path])
    assert after == before
