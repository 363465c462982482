"""What the policies of a namespace may ask for together: the oldest count, the others isolate and are named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from romana_ovs.kube.admission.policy_quota import PolicyQuota, apply_quota
from romana_ovs.kube.decode.decoder import POLICY, POLICY_VERSION, decode_served
from romana_ovs.kube.decode.limits import MAX_TERMS, policy_terms
from romana_ovs.kube.manifests.load import load
from romana_ovs.model.labels import EVERYTHING
from romana_ovs.model.objects import Direction, KubernetesPolicy, Policy, PolicyKey, PolicyPeer, PolicyRule
from romana_ovs.model.settings import Settings
from tests.support.builders import policy

BOTH = frozenset(Direction)


def policy_of(terms: int, name: str, created: str = "", namespace: str = "red") -> KubernetesPolicy:
    peers = tuple(PolicyPeer(pods=EVERYTHING) for _ in range(terms))
    rules = (PolicyRule(peers=peers),) if terms else ()
    return replace(policy(f"{namespace}/{name}", ingress=rules, directions=BOTH), creation_timestamp=created)


def counting(policies: list[KubernetesPolicy], most: int) -> set[str]:
    counted, over = apply_quota(policies, most)
    assert [each.key for each in counted] == [each.key for each in policies]
    for given_, now in zip(policies, counted, strict=True):
        assert isinstance(now, KubernetesPolicy)
        assert now == given_ if given_.key not in over else (now.directions, policy_terms(now)) == (BOTH, 0)
    return {each.name for each in policies if each.key not in over}


def test_the_oldest_count_and_what_is_beyond_isolates() -> None:
    old, new = policy_of(6, "z", "2026-01-01T00:00:00Z"), policy_of(6, "a", "2026-02-01T00:00:00Z")
    assert counting([new, old], 10) == {"z"}
    assert counting([new, old], 12) == {"a", "z"}
    assert counting([new, old], 0) == {"a", "z"}


def test_without_timestamps_the_quota_goes_by_name() -> None:
    assert counting([policy_of(3, "c"), policy_of(8, "b"), policy_of(4, "a")], 10) == {"a", "c"}


def test_each_namespace_has_its_own() -> None:
    assert counting([policy_of(6, "a"), policy_of(6, "b"), policy_of(6, "c", namespace="blue")], 10) == {"a", "c"}


def test_a_rule_without_peers_or_ports_counts_as_one_term() -> None:
    assert policy_terms(policy("n/p", egress=(PolicyRule(),) * 7, directions=BOTH)) == 7
    assert policy_terms(policy_of(0, "p")) == 0


_edits = st.lists(
    st.tuples(st.sampled_from("abcde"), st.sampled_from(("red", "blue")), st.none() | st.integers(0, 9)), max_size=30
)


@given(_edits, st.integers(1, 4))
def test_edits_one_by_one_come_to_what_a_listing_comes_to(edits: list[Any], step: int) -> None:
    allowance = PolicyQuota(12)
    given_: dict[PolicyKey, KubernetesPolicy] = {}
    counted: dict[PolicyKey, Policy | None] = {}
    for at, (name, namespace, terms) in enumerate(edits):
        one = policy_of(terms or 0, name, created=str(at % 3), namespace=namespace)
        if terms is None:
            given_.pop(one.key, None)
        else:
            given_[one.key] = one
        allowance.set(one.key, given_.get(one.key))
        if at % step == 0 or at == len(edits) - 1:
            for key, value in allowance.changes():
                counted[key] = value
    expected, over = apply_quota(given_.values(), 12)
    assert {key: value for key, value in counted.items() if value is not None} == {each.key: each for each in expected}
    assert {(key.namespace, key.name) for key in over} == {(each.namespace, each.name) for each in allowance.over}
    assert len(allowance.problems) == len(over)


MANIFEST = """
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {name}, namespace: red, creationTimestamp: {created}}}
spec: {{podSelector: {{}}, ingress: [{{from: [{peers}]}}]}}
"""


def test_a_folder_names_what_has_no_room(tmp_path: Path) -> None:
    peers = ", ".join(f"{{ipBlock: {{cidr: 10.{at >> 8}.{at & 255}.0/24}}}}" for at in range(MAX_TERMS - 1))
    text = "".join(
        MANIFEST.format(name=name, created=created, peers=peers)
        for name, created in (("a", '"2026-03-01T00:00:00Z"'), ("b", '"2026-01-01T00:00:00Z"'), ("c", "2026-02-01"))
    )
    (tmp_path / "p.yaml").write_text(text)
    loaded = load(tmp_path, Settings())
    assert [problem.name for problem in loaded.problems] == ["a"]
    assert "namespace_terms" in loaded.problems[0].reason and loaded.problems[0].document
    policies = [each for each in loaded.cluster.policies.values() if isinstance(each, KubernetesPolicy)]
    assert {each.name: bool(each.ingress) for each in policies} == {
        "a": False,
        "b": True,
        "c": True,
    }


def test_what_a_real_user_has_stays_far_below() -> None:
    blocks = [{"ipBlock": {"cidr": f"198.{at >> 8}.{at & 255}.0/24"}} for at in range(250)]
    ordinary = {
        "ingress": [
            {
                "from": [{"podSelector": {"matchLabels": {"app": "a"}}}, {"namespaceSelector": {}}],
                "ports": [{"port": 80}, {"port": 443}, {"port": "metrics"}],
            }
        ],
        "egress": [{"to": [{"namespaceSelector": {}}], "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53}]}],
    }
    specs = [ordinary] * 300 + [{"egress": [{"to": blocks, "ports": [{"port": 443}]}]}] * 5
    read = [
        decode_served(
            {"metadata": {"name": f"p{at}", "namespace": "red"}, "spec": {"podSelector": {}, **spec}},
            POLICY,
            POLICY_VERSION,
            Settings(),
        ).value
        for at, spec in enumerate(specs)
    ]
    policies = [each for each in read if isinstance(each, KubernetesPolicy)]
    assert len(policies) == len(specs)
    assert apply_quota(policies, Settings().namespace_terms)[1] == frozenset()
