"""Conntrack zones: whose they are, and that no two bridges of one ovs-vswitchd have the same."""

from __future__ import annotations

from romana_ovs.pipeline.zones import COMMON, SLOTS, colliding, common_zone, zone, zones
from tests.pipeline.lab import Lab, LabPod


def test_zones_are_neither_the_hosts_nor_the_probes_and_those_of_near_hosts_are_apart() -> None:
    found = [zone(host, index) for host in range(SLOTS) for index in (0, 1, 0xFFF)]
    assert len(set(found)) == len(found)
    assert min(found) > 0 and max(found) < 0xFFFF


def test_each_local_tenant_has_a_zone_and_the_rest_a_common_one() -> None:
    lab = Lab.of(LabPod("a", 1, 1), LabPod("b", 1, 2, segment=2), LabPod("far", 2, 3, segment=3))
    assert zones(lab.view(1)) == {zone(1, 1): "1", zone(1, 2): "2", common_zone(1): COMMON}


def test_a_bridge_that_would_share_zones_is_named_with_the_one_that_has_them() -> None:
    assert colliding({"a": 1, "b": 2, "c": 1 + SLOTS}) == {"c": "a"}
    assert colliding({"a": 1, "b": 2}) == {}
