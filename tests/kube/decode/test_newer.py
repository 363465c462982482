"""Objects of an API that is newer than we are: what we do not know never makes a policy wider (docs/hazards.md C13).

An API server keeps such a field where it knows it; where it drops it, the schema refuses what would become wider
(tests/apiserver/test_policy_schema.py).
"""

from __future__ import annotations

from typing import Any

import pytest

from romana_ovs.kube.decode.decoder import decode_served
from romana_ovs.model.objects import KubernetesPolicy, RomanaPolicy
from romana_ovs.model.settings import Settings
from tests.kube.decode.valid_manifests import MANIFESTS, put, spots

POLICIES: dict[str, Any] = {
    str(each["apiVersion"]): each
    for each in MANIFESTS
    if each["kind"] == "NetworkPolicy" and "allowIncoming" not in each
}
FREE = "matchLabels"
"""Where every key is somebody's own."""
NEW: dict[str, object] = {
    "protocol": "QUIC",
    "operator": "Matches",
    "policyTypes": ["Ingress", "Mirror"],
    "port": {"name": "http"},
    "cidr": "@internal",
    "except": ["@internal"],
    "endPort": "last",
    "values": [{"text": "v"}],
}
"""Values of fields that there are today, as a later version may have them."""


def places(version: str) -> list[tuple[object, ...]]:
    """Every object in the spec of a policy that has fields."""
    whole = POLICIES[version]
    found = []
    for path in spots(whole):
        value: Any = whole
        for key in path:
            value = value[key]
        if path[:1] == ("spec",) and isinstance(value, dict) and FREE not in path:
            found.append(path)
    return found


def read(version: str, value: object) -> None:
    """Decode what is newer; fails the test unless it isolates, allows nothing and says why."""
    item = decode_served(value, "NetworkPolicy", version, Settings())
    assert item.value is None and item.problems
    found = item.fallback
    if isinstance(found, RomanaPolicy):
        assert found.rules == ()
    else:
        assert isinstance(found, KubernetesPolicy)
        assert found.ingress == found.egress == () and found.directions


@pytest.mark.parametrize("version", POLICIES)
def test_a_field_that_we_do_not_know_closes_wherever_it_stands(version: str) -> None:
    assert len(POLICIES) == 2 and len(places(version)) > 5
    for place in places(version):
        read(version, put(POLICIES[version], (*place, "onlyOnSundays"), True))


@pytest.mark.parametrize("version", POLICIES)
def test_a_value_that_we_do_not_know_closes_too(version: str) -> None:
    tried = set()
    for place in spots(POLICIES[version]):
        if place[:1] == ("spec",) and place[-1] in NEW and FREE not in place:
            tried.add(place[-1])
            read(version, put(POLICIES[version], place, NEW[str(place[-1])]))
    assert len(tried) >= 2
