"""The hazards of policy semantics, one test for each (A1 and on of the hazards list)."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from romana_ovs.model.labels import EVERYTHING, Labels, Operator, Requirement, Selector
from romana_ovs.model.objects import PolicyPeer, PolicyPort, PolicyRule
from tests.support.builders import (
    ANY,
    EGRESS,
    INGRESS,
    SCTP,
    TCP,
    block,
    namespace,
    passes,
    plain_cluster,
    pod,
    pods,
    policy,
    reached,
    rule,
    verdict,
    where,
)

WEB, DB = pod("a/web", app="web"), pod("a/db", app="db")


def test_a1_finished_pods_are_neither_subject_nor_peer() -> None:
    """A new pod has the address of a finished Job's: no policy about the Job concerns it."""
    job = pod("a/job", address="10.9.9.9", app="job", finished=True)
    heir = pod("a/heir", address="10.9.9.9", app="heir")
    found = plain_cluster(
        job,
        heir,
        WEB,
        DB,
        policy("a/job-is-closed", Selector.of({"app": "job"})),
        policy("a/db", Selector.of({"app": "db"}), ingress=[rule(pods(app="job"))]),
    )
    assert passes(found, "a/web", "a/heir")
    assert passes(found, "a/web", "10.9.9.9")
    assert not passes(found, "a/heir", "a/db")
    assert not passes(found, "a/job", "a/heir")
    assert not passes(found, "a/web", "a/job")
    without_address = found.with_object(replace(job, address=None))
    assert not passes(without_address, "a/job", "a/db")


def test_a1_finished_host_network_pods_take_part_in_nothing() -> None:
    found = plain_cluster(pod("a/job", address="172.16.0.1", host_network=True, finished=True), DB)
    assert not passes(found, "a/db", "a/job")
    assert "has finished" in verdict(found, "a/db", "a/job").reason


def test_a3_pods_without_an_address_take_part_in_nothing() -> None:
    found = plain_cluster(pod("a/new", has_status=True), WEB)
    assert not passes(found, "a/web", "a/new")
    assert not passes(found, "a/new", "a/web")


@pytest.mark.parametrize(
    ("peer", "expected"),
    [(pods(app="api"), False), (PolicyPeer(namespaces=ANY), False), (block("172.16.0.2/32"), True)],
)
def test_a4_host_network_pods_are_their_nodes_address(peer: PolicyPeer, expected: bool) -> None:
    """No selector ever means one; an ipBlock of the node's address does."""
    api = pod("a/api", address="172.16.0.2", app="api", host_network=True, node="node2")
    found = plain_cluster(api, WEB, policy("a/web", Selector.of({"app": "web"}), ingress=[rule(peer)]))
    assert passes(found, "a/api", "a/web") is expected
    assert passes(found, "node2", "a/web") is expected


def test_a4_host_network_pods_are_never_subjects() -> None:
    api = pod("a/api", address="172.16.0.2", app="api", host_network=True, node="node2", ports="http=80/tcp")
    found = plain_cluster(api, WEB, policy("a/deny", directions=[INGRESS, EGRESS]))
    assert passes(found, "203.0.113.1", "a/api")
    assert not passes(found, "203.0.113.1", "a/web")
    named = plain_cluster(api, WEB, policy("a/out", Selector.of({"app": "web"}), egress=[rule(ports="http/tcp")]))
    assert not passes(named, "a/web", "a/api")


def test_a6_named_ports_resolve_on_the_destination() -> None:
    """A serves http on 8080, B on 9090, the client declares http too; udp of that name is something else."""
    found = plain_cluster(
        pod("a/a", ports="http=8080/tcp"),
        pod("a/b", ports="http=9090/tcp http=53/udp"),
        pod("a/client", ports="http=666/tcp"),
        pod("a/other"),
        policy("a/http", ingress=[rule(ports="http/tcp")]),
    )
    ports = ("666/tcp", "8080/tcp", "9090/tcp", "53/tcp", "53/udp", "9090/udp")
    assert reached(found, "a/client", "a/a", *ports) == "8080/tcp"
    assert reached(found, "a/client", "a/b", *ports) == "9090/tcp"
    assert reached(found, "a/client", "a/other", *ports) == ""
    assert reached(found, "a/b", "a/client", *ports) == "666/tcp"


def test_a6_named_ports_of_egress_match_only_pods() -> None:
    server = pod("a/server", ports="http=8080/tcp")
    found = plain_cluster(server, WEB, policy("a/out", Selector.of({"app": "web"}), egress=[rule(ports="http/tcp")]))
    assert passes(found, "a/web", "a/server", "8080/tcp")
    assert not passes(found, "a/web", "a/server", "80/tcp")
    assert not passes(found, "a/web", "203.0.113.1", "8080/tcp")
    assert not passes(found, "a/web", "node2", "8080/tcp")


@given(st.data(), st.sampled_from(["tcp", "udp", "sctp"]))
def test_a7_end_port_is_inclusive(data: st.DataObject, protocol: str) -> None:
    low = data.draw(st.integers(1, 65535))
    high = data.draw(st.integers(low, 65535))
    found = plain_cluster(WEB, DB, policy("a/db", ingress=[rule(ports=f"{low}-{high}/{protocol}")]))
    near = {low - 1, low, (low + high) // 2, high, high + 1} & set(range(1, 65536))
    assert {port for port in near if passes(found, "a/web", "a/db", f"{port}/{protocol}")} == {
        port for port in near if low <= port <= high
    }


def test_a8_sctp_stays_sctp() -> None:
    found = plain_cluster(WEB, DB, policy("a/db", Selector.of({"app": "db"}), ingress=[rule(ports="81/sctp")]))
    assert reached(found, "a/web", "a/db", "81/sctp", "81/tcp", "81/udp", "80/sctp", "icmp") == "81/sctp"


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (PolicyPort(port=80), "80/tcp"),
        (PolicyPort(TCP), "80/tcp 81/tcp"),
        (PolicyPort(SCTP), "80/sctp"),
        (PolicyPort(port="nobody"), ""),
    ],
)
def test_a10_protocol_defaults_to_tcp_and_port_to_all(entry: PolicyPort, expected: str) -> None:
    found = plain_cluster(WEB, DB, policy("a/db", ingress=[replace(rule(), ports=(entry,))]))
    assert reached(found, "a/web", "a/db", "80/tcp", "81/tcp", "80/udp", "80/sctp", "icmp", "proto 47") == expected


def test_a10_no_ports_at_all_is_every_protocol() -> None:
    found = plain_cluster(WEB, DB, policy("a/db", ingress=[rule(pods(app="web"))]))
    assert reached(found, "a/web", "a/db", "80/tcp", "80/sctp", "icmp", "proto 47") == "80/tcp 80/sctp icmp proto 47"


SELF, OTHER, OUTSIDE = "a/web", "b/web", "203.0.113.1"


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], []),
        ([rule()], [SELF, OTHER, OUTSIDE]),
        ([rule(PolicyPeer())], []),
        ([rule(PolicyPeer(pods=EVERYTHING))], [SELF]),
        ([rule(PolicyPeer(namespaces=EVERYTHING))], [SELF, OTHER]),
        ([rule(PolicyPeer(pods=EVERYTHING, namespaces=EVERYTHING))], [SELF, OTHER]),
        ([rule(PolicyPeer(), pods(app="web"))], [SELF]),
    ],
)
def test_a11_nil_is_not_empty(rules: list[Any], expected: list[str]) -> None:
    """podSelector {} is all pods of its own namespace, ingress [] none, [{}] everyone, from [{}] nobody."""
    found = plain_cluster(WEB, DB, pod("b/web", app="web"), policy("a/db", Selector.of({"app": "db"}), ingress=rules))
    assert [source for source in (SELF, OTHER, OUTSIDE) if passes(found, source, "a/db")] == expected


def test_a12_no_matching_peer_denies() -> None:
    only_web = policy("a/db", Selector.of({"app": "db"}), ingress=[rule(pods(app="web"))])
    found = plain_cluster(WEB, DB, pod("a/other"), only_web)
    assert passes(found, "a/web", "a/db")
    after = found.without(WEB)
    assert not passes(after, "a/other", "a/db")
    assert not passes(after, OUTSIDE, "a/db")


AND = rule(PolicyPeer(pods=Selector.of({"yes": "1"}), namespaces=Selector.of({"team": "x"})))
OR = rule(PolicyPeer(pods=Selector.of({"yes": "1"})), PolicyPeer(namespaces=Selector.of({"team": "x"})))


@pytest.mark.parametrize(("shape", "expected"), [(AND, ["b/yes"]), (OR, ["a/yes", "b/yes", "b/no"])])
def test_a13_one_item_is_and_two_items_are_or(shape: PolicyRule, expected: list[str]) -> None:
    found = plain_cluster(
        namespace("b", team="x"), DB, pod("a/yes", yes=1), pod("a/no"), pod("b/yes", yes=1), pod("b/no"),
        policy("a/db", Selector.of({"app": "db"}), ingress=[shape]),
    )  # fmt: skip
    assert [source for source in ("a/yes", "a/no", "b/yes", "b/no") if passes(found, source, "a/db")] == expected


def test_a14_except_subtracts_from_its_own_peer_only() -> None:
    one = policy("a/one", ingress=[rule(block("203.0.113.0/24", "203.0.113.1/32"))])
    two = policy("a/two", ingress=[rule(block("203.0.113.1/32"))])
    found = plain_cluster(DB, one, two)
    assert passes(found, "203.0.113.1", "a/db")
    assert not passes(found.without(two), "203.0.113.1", "a/db")
    assert passes(found.without(two), "203.0.113.2", "a/db")
    one_rule = rule(block("203.0.113.0/24", "203.0.113.1/32"), block("203.0.113.1/32"))
    assert passes(plain_cluster(DB, policy("a/one", ingress=[one_rule])), "203.0.113.1", "a/db")


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        (block("192.168.7.0/24"), True),
        (block("192.168.7.9/24"), True),
        (block("192.168.7.0/24", "192.168.7.9/32"), False),
        (block("192.168.8.0/24"), False),
    ],
)
def test_a15_ip_block_matches_pod_addresses(peer: PolicyPeer, expected: bool) -> None:
    client = pod("a/client", address="192.168.7.9")
    incoming = plain_cluster(client, DB, policy("a/db", Selector.of({"app": "db"}), ingress=[rule(peer)]))
    assert passes(incoming, "a/client", "a/db") is expected
    outgoing = plain_cluster(
        client, DB, policy("a/db", Selector.of({"app": "db"}), egress=[rule(peer)], directions=[EGRESS])
    )
    assert passes(outgoing, "a/db", "a/client") is expected


@pytest.mark.parametrize(
    ("directions", "incoming", "outgoing"),
    [
        ([INGRESS], "80/tcp", "80/tcp 81/tcp"),
        ([EGRESS], "80/tcp 81/tcp", "81/tcp"),
        ([INGRESS, EGRESS], "80/tcp", "81/tcp"),
    ],
)
def test_a16_policy_types_decide_over_rules(directions: list[Any], incoming: str, outgoing: str) -> None:
    """Listed directions isolate, with or without rules; rules of a direction that is not listed count for nothing."""
    rules = {"ingress": [rule(ports="80/tcp")], "egress": [rule(ports="81/tcp")]}
    found = plain_cluster(WEB, DB, policy("a/db", Selector.of({"app": "db"}), directions=directions, **rules))
    assert reached(found, "a/web", "a/db", "80/tcp", "81/tcp") == incoming
    assert reached(found, "a/db", "a/web", "80/tcp", "81/tcp") == outgoing
    empty = plain_cluster(WEB, DB, policy("a/db", Selector.of({"app": "db"}), directions=directions))
    assert passes(empty, "a/web", "a/db") is (INGRESS not in directions)
    assert passes(empty, "a/db", "a/web") is (EGRESS not in directions)


def test_a17_policies_unite_in_any_order() -> None:
    policies = [
        policy("a/one", ingress=[rule(pods(app="web"), ports="80/tcp")]),
        policy("a/two", ingress=[rule(ports="81/tcp")]),
        policy("a/three", Selector.of({"app": "db"})),
    ]
    seen = set()
    for order in itertools.permutations(policies):
        found = plain_cluster(WEB, DB, *order)
        inside, outside = (reached(found, each, "a/db", "80/tcp", "81/tcp", "82/tcp") for each in ("a/web", OUTSIDE))
        seen.add((inside, outside))
    assert seen == {("80/tcp 81/tcp", "81/tcp")}
    out = [policy(f"a/out{port}", egress=[rule(ports=f"{port}/tcp")], directions=[EGRESS]) for port in (80, 81)]
    assert reached(plain_cluster(WEB, DB, *out), "a/web", OUTSIDE, "80/tcp", "81/tcp", "82/tcp") == "80/tcp 81/tcp"
    without = plain_cluster(WEB, DB, *policies[1:])
    assert reached(without, "a/web", "a/db", "80/tcp", "81/tcp", "82/tcp") == "81/tcp"


@pytest.mark.parametrize("node", ["node1", "node2"])
@pytest.mark.parametrize(("out", "into"), list(itertools.product([True, False], repeat=2)))
def test_a18_both_sides_must_agree(out: bool, into: bool, node: str) -> None:
    found = plain_cluster(
        WEB,
        replace(DB, node=node),
        policy("a/out", Selector.of({"app": "web"}), egress=[rule()] if out else [], directions=[EGRESS]),
        policy("a/in", Selector.of({"app": "db"}), ingress=[rule()] if into else []),
    )
    assert passes(found, "a/web", "a/db") is (out and into)


def test_a24_changed_labels_decide_at_once() -> None:
    found = plain_cluster(
        namespace("b", team="x"),
        DB,
        pod("b/web", app="web"),
        policy(
            "a/db",
            Selector.of({"app": "db"}),
            ingress=[rule(PolicyPeer(pods=Selector.of({"app": "web"}), namespaces=Selector.of({"team": "x"})))],
        ),
    )
    assert passes(found, "b/web", "a/db")
    assert not passes(found.with_object(pod("b/web")), "b/web", "a/db")
    assert not passes(found.with_object(namespace("b")), "b/web", "a/db")
    unselected = found.with_object(pod("a/db"))
    assert passes(unselected.with_object(pod("b/web")), "b/web", "a/db")


KEYS, VALUES = ("k", "l"), ("1", "2", "")


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (where("k", "NotIn", "1"), ["a/two", "a/without"]),
        (where("k", "DoesNotExist"), ["a/without"]),
        (where("k", "In", "1", "2"), ["a/one", "a/two"]),
        (where("k", "Exists"), ["a/one", "a/two"]),
    ],
)
def test_a25_not_in_and_does_not_exist_match_absent_keys(selector: Selector, expected: list[str]) -> None:
    found = plain_cluster(
        pod("a/one", k=1), pod("a/two", k=2), pod("a/without"), pod("a/client", k=1), policy("a/deny", selector)
    )
    closed = [name for name in ("a/one", "a/two", "a/without") if not passes(found, OUTSIDE, name)]
    assert closed == expected


@given(
    st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES)),
    st.sampled_from(KEYS),
    st.frozensets(st.sampled_from(VALUES), min_size=1),
)
def test_a25_operators_are_complements(labels: dict[str, str], key: str, values: frozenset[str]) -> None:
    """As apimachinery has it: NotIn is exactly what In is not, DoesNotExist what Exists is not."""

    def met(operator: Operator) -> bool:
        asked = values if operator in (Operator.IN, Operator.NOT_IN) else frozenset()
        return Requirement(key, operator, asked).matches(Labels(labels))

    assert met(Operator.NOT_IN) is not met(Operator.IN)
    assert met(Operator.DOES_NOT_EXIST) is not met(Operator.EXISTS)
    assert met(Operator.EXISTS) is (key in labels)
    assert met(Operator.IN) is (labels.get(key) in values)


def test_a28_a_pod_reaches_itself_whatever_policies_say() -> None:
    found = plain_cluster(WEB, DB, policy("a/deny", directions=[INGRESS, EGRESS]))
    assert passes(found, "a/db", "a/db")
    assert not passes(found, "a/db", "a/web")
