"""The matrix of a whole cluster: judged by groups, it says what judging every pair says."""

from __future__ import annotations

import json
import time
from ipaddress import IPv4Address

from hypothesis import given, settings
from hypothesis import strategies as st

from romana_ovs.model.cluster import Cluster
from romana_ovs.model.connection import Connection, ConnectionEnd, PortRef
from romana_ovs.model.labels import Selector
from romana_ovs.model.objects import Pod, PodKey, RomanaRule
from romana_ovs.model.settings import Isolation, Settings
from romana_ovs.policy.evaluate import decide
from romana_ovs.policy.matrix import Matrix, PodPath, container_ports, depends_on_addresses, difference, reachability
from tests.support.builders import addresses, block, cluster, plain_cluster, pod, pods, policy, romana, rule
from tests.support.hypothesis_profiles import examples
from tests.support.strategies import addresses_of, clusters, port_refs

WEB = PortRef.parse("80/tcp")


@settings(max_examples=examples(150), deadline=None)
@given(clusters(), st.lists(port_refs(), min_size=1, max_size=3))
def test_profiles_give_the_same_as_pairs(found: Cluster, ports: list[PortRef]) -> None:
    known = addresses_of(found)
    matrix = reachability(found, known, ports)
    networked = sorted(key for key, each in found.pods.items() if each.networked)
    by_pair = [
        PodPath(source, destination, str(port))
        for port in ports
        for source in networked
        for destination in networked
        if source != destination
        and decide(found, known, Connection(ConnectionEnd(pod=source), ConnectionEnd(pod=destination), port)).allowed
    ]
    assert matrix == Matrix.of(networked, map(str, ports), by_pair)
    assert sorted(set(matrix.open_paths())) == sorted(set(by_pair))


def test_json_is_exactly_the_documented_form() -> None:
    found = cluster(
        pod("b/y"), pod("a/x"), pod("a/z", app="db"), pod("a/gone", finished=True),
        pod("a/host", address="172.16.0.1", host_network=True), pod("a/new", has_status=True),
        policy("a/db", Selector.of({"app": "db"})), settings=Settings(),
    )  # fmt: skip
    matrix = reachability(found, addresses(found), [WEB, PortRef.parse("53/udp"), WEB])
    assert matrix.to_json() == {
        "pods": ["a/x", "a/z", "b/y"],
        "ports": ["80/tcp", "53/udp"],
        "allowed": {"80/tcp": [["a/z", "a/x"]], "53/udp": [["a/z", "a/x"]]},
    }


def test_an_ip_block_distinguishes_pods() -> None:
    near, far = pod("a/near", address="192.168.7.127"), pod("a/far", address="192.168.7.128")
    half = policy("a/p", Selector.of({"app": "x"}), ingress=[rule(block("192.168.7.0/25"))])
    found = plain_cluster(near, far, pod("a/x", app="x"), half)
    assert depends_on_addresses(found)
    matrix = reachability(found, addresses(found), [WEB])
    assert matrix.allows(PodKey("a/near"), PodKey("a/x"), "80/tcp")
    assert not matrix.allows(PodKey("a/far"), PodKey("a/x"), "80/tcp")
    assert not depends_on_addresses(plain_cluster(near, policy("a/p", ingress=[rule(pods())])))


def test_an_exception_distinguishes_pods() -> None:
    near, far = pod("a/near", address="192.168.7.3"), pod("a/far", address="192.168.7.4")
    out = policy("a/p", egress=[rule(block("192.168.7.0/24", "192.168.7.4/32"))])
    matrix = reachability(plain_cluster(near, far, out), {}, [WEB])
    assert not matrix.allows(PodKey("a/near"), PodKey("a/far"), "80/tcp")
    with_ingress = plain_cluster(near, far, policy("a/q", ingress=[rule(block("192.168.7.0/24", "192.168.7.4/32"))]))
    assert list(reachability(with_ingress, {}, [WEB]).open_paths()) == [("a/near", "a/far", "80/tcp")]


def test_tiers_distinguish_pods() -> None:
    found = cluster(pod("a/x", tier="1"), pod("a/y", tier="1"), pod("a/z", tier="2"), settings=Settings(Isolation.TIER))
    found_pairs = [each[:2] for each in reachability(found, {}, [WEB]).open_paths()]
    assert found_pairs == [("a/x", "a/y"), ("a/y", "a/x")]


def test_a_romana_rule_distinguishes_pods() -> None:
    source = RomanaRule((Selector.of({"role": "web"}),))
    closed = romana("a/p", Selector.of({"app": "db"}), source)
    found = cluster(pod("a/db", app="db"), pod("a/web", role="web"), pod("a/x", role="x"), closed, settings=Settings())
    matrix = reachability(found, {}, [WEB])
    assert [each.source for each in matrix.open_paths() if each.destination == "a/db"] == ["a/web"]


def test_a_named_port_distinguishes_pods() -> None:
    named = policy("a/p", ingress=[rule(ports="http/tcp")])
    found = plain_cluster(pod("a/x", ports="http=80/tcp"), pod("a/y", ports="http=81/tcp"), named)
    matrix = reachability(found, {}, [WEB])
    assert list(matrix.open_paths()) == [("a/y", "a/x", "80/tcp")]


def test_allows_knows_only_what_is_in_the_matrix() -> None:
    matrix = Matrix.of([PodKey("a"), PodKey("b")], ["80/tcp"], [PodPath(PodKey("a"), PodKey("b"), "80/tcp")])
    assert matrix.allows(PodKey("a"), PodKey("b"), "80/tcp")
    assert not matrix.allows(PodKey("b"), PodKey("a"), "80/tcp")
    assert not matrix.allows(PodKey("a"), PodKey("b"), "81/tcp")
    assert not matrix.allows(PodKey("a"), PodKey("c"), "80/tcp")


def test_difference_names_what_opened_and_closed() -> None:
    pods_ = [PodKey(each) for each in ("a", "b", "c")]
    one = [PodPath(pods_[0], pods_[1], "80/tcp"), PodPath(pods_[1], pods_[2], "80/tcp")]
    two = [PodPath(pods_[0], pods_[1], "80/tcp"), PodPath(pods_[2], pods_[0], "80/tcp")]
    before, after = Matrix.of(pods_, ["80/tcp"], one), Matrix.of(pods_, ["80/tcp"], two)
    assert difference(before, after) == ([two[1]], [one[1]])
    assert difference(before, before) == ([], [])
    assert [each.to_json() for each in difference(before, after)[0]] == [{"from": "c", "to": "a", "port": "80/tcp"}]
    pod_gone = Matrix.of(pods_[:2], ["80/tcp"], one[:1])
    assert difference(before, pod_gone) == ([], [one[1]])


@settings(max_examples=examples(50), deadline=None)
@given(clusters(), clusters(), port_refs())
def test_difference_leads_from_one_to_the_other(one: Cluster, two: Cluster, port: PortRef) -> None:
    before, after = (reachability(each, addresses_of(each), [port]) for each in (one, two))
    opened, closed = difference(before, after)
    assert set(before.open_paths()) - set(closed) | set(opened) == set(after.open_paths())
    assert set(opened) <= set(after.open_paths())
    assert set(closed) <= set(before.open_paths())


def test_container_ports_are_those_of_pods_on_the_network() -> None:
    found = plain_cluster(
        pod("a/x", ports="80/tcp dns=53/udp"),
        pod("a/y", ports="80/tcp 53/tcp"),
        pod("a/z", ports="99/tcp", finished=True),
    )
    assert [str(port) for port in container_ports(found)] == ["53/tcp", "53/udp", "80/tcp"]


def test_ten_thousand_pods_of_250_tenants_take_seconds() -> None:
    """The aim is about ten seconds with the JSON; the bound here leaves room for a busy machine."""
    found: dict[PodKey, Pod] = {}
    policies = {}
    for tenant in range(250):
        for number in range(40):
            each = pod(f"t{tenant}/p{number}", tier=f"tier{number % 4}", serial=number)
            found[each.key] = each
        for tier in range(1, 4):
            one = policy(
                f"t{tenant}/from{tier}",
                Selector.of({"tier": f"tier{tier}"}),
                ingress=[rule(pods(tier=f"tier{tier - 1}"), block(f"10.{tenant}.0.0/24"), ports="80/tcp")],
            )
            policies[one.key] = one
    large = Cluster(Settings(isolation=Isolation.TENANT), pods=found, policies=policies)
    known = {key: IPv4Address("10.0.0.0") + number for number, key in enumerate(found)}
    start = time.process_time()
    text = json.dumps(reachability(large, known, [WEB]).to_json())
    assert time.process_time() - start < 10
    assert len(json.loads(text)["allowed"]["80/tcp"]) > 250 * (10 * 39 + 3 * 100)
