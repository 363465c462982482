"""What the API server takes we take, with the same meaning; what it refuses we refuse, but for what is said here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from romana_ovs.model.cluster import Cluster
from romana_ovs.model.connection import Connection, ConnectionEnd, PortRef
from romana_ovs.model.objects import KubernetesPolicy, RomanaPolicy
from romana_ovs.policy.matrix import reachability
from tests.conformance.made_up_addresses import address
from tests.conformance.server import asked, decoded, difference, meaning
from tests.conformance.specs import CIDRS, FITTING, OTHERS, PORTS, TEXTS, encoded, manifest, slightly_broken
from tests.conformance.states import apply, resolved
from tests.conformance.table import CASES
from tests.conformance.words import Case, Gone, Manifest
from tests.properties.agreement import profile
from tests.support.raw_client import Client
from tests.support.simulated_cluster import SimCluster
from tests.support.strategies import clusters, kubernetes_policies

PLACE = "default"


def _into(**rule: object) -> dict[str, object]:
    return {"podSelector": {}, "ingress": [rule]}


def _with_cidr(text: str, *excepts: str) -> dict[str, object]:
    return _into(**{"from": [{"ipBlock": {"cidr": text, "except": list(excepts)}}]})


SHAPES: dict[str, tuple[object, bool]] = {
    "no spec": (None, True),
    "nothing in it": ({}, True),
    "no podSelector": ({"policyTypes": ["Ingress"]}, True),
    "types that there are none of": ({"podSelector": {}, "policyTypes": ["ingress"]}, False),
    "three types": ({"podSelector": {}, "policyTypes": ["Ingress", "Egress", "Ingress"]}, False),
    "the same type twice": ({"podSelector": {}, "policyTypes": ["Ingress", "Ingress"]}, True),
    "a field that there is none of": ({"podSelector": {}, "allow": []}, False),
    "endPort without port": (_into(ports=[{"endPort": 20000}]), False),
    "endPort with a name": (_into(ports=[{"port": "serve-80", "endPort": 20000}]), False),
    "endPort below port": (_into(ports=[{"port": 30000, "endPort": 20000}]), False),
    "endPort at port": (_into(ports=[{"port": 20000, "endPort": 20000}]), True),
    "endPort above port": (_into(ports=[{"port": 10000, "endPort": 20000}]), True),
    "endPort beyond all ports": (_into(ports=[{"port": 10000, "endPort": 65536}]), False),
    "a block beside a selector": (_into(**{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]}), False),
    "a block without a cidr": (_into(**{"from": [{"ipBlock": {}}]}), False),
    "an exception that is the whole": (_with_cidr("10.0.0.0/8", "10.0.0.0/8"), False),
    "an exception outside": (_with_cidr("10.0.0.0/8", "11.0.0.0/16"), False),
    "an exception of the other family": (_with_cidr("fd00::/8", "10.0.0.0/16"), False),
    "In without values": ({"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}, False),
    "Exists with values": (
        {"podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}},
        False,
    ),
}
"""Specs, and whether both take them."""

DIFFERENT: dict[str, tuple[object, str]] = {
    "a peer that names nothing": (_into(**{"from": [{}]}), "nobody"),
    "a peer of nothing but null": (_into(**{"from": [{"podSelector": None}]}), "nobody"),
    "host bits": (_with_cidr("10.0.0.1/8"), "unclean"),
    "host bits of an exception": (_with_cidr("10.0.0.0/8", "10.1.0.1/16"), "unclean"),
    "a zero before the width": (_with_cidr("10.0.0.0/08"), "unclean"),
    "IPv4 in IPv6": (_with_cidr("::ffff:10.0.0.0/104"), "unclean"),
    "a rule that is null": ({"podSelector": {}, "ingress": [None]}, "null"),
    "a port that is null": (_into(ports=[None]), "null"),
}
"""Specs on which the two disagree, and how."""


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_that_both_take_or_refuse(admin: Client, name: str) -> None:
    spec, taken = SHAPES[name]
    verdict, item = asked(admin, spec), decoded(manifest(spec))
    assert (verdict.answer is not None, item.value is not None) == (taken, taken), (verdict.reason, item.problems)
    assert taken or item.fallback is not None


@pytest.mark.parametrize("name", DIFFERENT)
def test_the_known_differences(admin: Client, name: str) -> None:
    """Where we refuse what the server takes, the policy isolates and allows nothing: never wider than it is there."""
    spec, how = DIFFERENT[name]
    item = decoded(manifest(spec))
    assert difference(asked(admin, spec), item) == how
    if item.value is None:
        assert isinstance(item.fallback, KubernetesPolicy) and not item.fallback.ingress


@pytest.mark.parametrize("whole", ["", "0.0.0.0/0", "::/0"], ids=["cidr", "except-of-ipv4", "except-of-ipv6"])
def test_every_way_to_write_a_range(admin: Client, whole: str) -> None:
    """docs/hazards.md C13."""
    for text in CIDRS:
        _agree(admin, _with_cidr(whole, text) if whole else _with_cidr(text))


@pytest.mark.parametrize("field", ["port", "endPort", "protocol", "key", "operator", "values", "policyTypes"])
def test_every_value_in_its_place(admin: Client, field: str) -> None:
    """docs/hazards.md C13: port, endPort and the others."""
    for value in (*FITTING.get(field, TEXTS), *PORTS, *OTHERS):
        expression: dict[str, Any] = {"key": "a", "operator": "In", "values": ["b"]}
        spec: dict[str, Any] = {
            "podSelector": {"matchExpressions": [expression]},
            "ingress": [{"ports": [{"port": 80}]}],
        }
        place: dict[str, Any] = {"policyTypes": spec}.get(
            field, expression if field in expression else spec["ingress"][0]["ports"][0]
        )
        place[field] = value
        _agree(admin, spec)


def _agree(admin: Client, spec: object) -> KubernetesPolicy | None:
    """The policy of a spec that the server takes, the same by what was sent and by what is stored; None if refused."""
    verdict, item = asked(admin, spec), decoded(manifest(spec))
    how = difference(verdict, item)
    assert how != "unknown", (spec, verdict.reason, item.problems)
    if verdict.answer is None:
        assert item.value is not None or item.fallback is not None
        return None
    stored = meaning(decoded(verdict.answer))
    assert how == "null" or meaning(item) == stored
    return stored


@profile(100)
@given(data=st.data(), policy=kubernetes_policies(PLACE, "tried"))
def test_random_policies_are_taken_alike(admin: Client, data: st.DataObject, policy: KubernetesPolicy) -> None:
    """As it is, where a peer may name nothing, and a little broken."""
    spec = encoded(policy)
    stored = _agree(admin, spec)
    assert stored in (policy, None)
    assert stored is not None or any(peer in ({}, None) for peer in _peers(spec))
    for _ in range(3):
        _agree(admin, data.draw(slightly_broken(spec)))


def _peers(spec: dict[str, Any]) -> list[object]:
    return [peer for side, key in (("ingress", "from"), ("egress", "to")) for rule in spec[side] for peer in rule[key]]


@profile(30)
@given(data=st.data(), cluster=clusters())
def test_what_the_server_takes_means_the_same_in_the_tables(
    admin: Client, data: st.DataObject, cluster: Cluster
) -> None:
    """A cluster with the policies that the server took, some of them broken before: evaluated, and by packets."""
    policies = {}
    for key, policy in cluster.policies.items():
        stored: KubernetesPolicy | RomanaPolicy | None = policy
        if isinstance(policy, KubernetesPolicy):
            spec = encoded(policy)
            found = _agree(admin, data.draw(st.one_of(st.just(spec), slightly_broken(spec))))
            stored = found and replace(found, namespace=policy.namespace, name=policy.name)
        if stored is not None:
            policies[key] = stored
    cluster = replace(cluster, policies=policies)
    rig = SimCluster(cluster)
    ports = [PortRef.parse(port) for port in ("80/tcp", "81/udp")]
    expected = set(reachability(cluster, rig.addresses, ports).open_paths())
    for port in ports:
        for source in rig.addresses:
            for target in rig.addresses:
                connection = Connection(ConnectionEnd(pod=source), ConnectionEnd(pod=target), port)
                if source != target:
                    for switch in rig.switches.values():
                        switch.conntrack.flush()
                    arrives = bool(rig.send(connection, rig.opening(connection)))
                    assert arrives == ((source, target, str(port)) in expected), connection


def _policies_of(case: Case) -> list[tuple[Manifest, bool]]:
    """The policies that a case applies, with addresses put in, and whether the server is said to refuse them."""
    found = []
    for step in case.steps:
        kept = [change for change in step.changes if not isinstance(change, Gone) and change["kind"] == "NetworkPolicy"]
        found += [(each, step.refused) for each in resolved(apply({}, kept), address)]
    return found


def test_the_server_takes_the_policies_of_the_table(admin: Client) -> None:
    """All but those of which the table says that it does not."""
    tried = [(case.name, *found) for case in CASES for found in _policies_of(case)]
    wrong = [name for name, policy, refused in tried if (asked(admin, policy["spec"]).answer is None) != refused]
    assert wrong == [] and len(tried) > 200
