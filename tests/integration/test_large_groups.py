"""Groups of thousands of rules in Open vSwitch itself: taken, the same as printed, and meaning what they say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from romana_ovs.model.identity import ALL_BITS, IdentityMatch
from romana_ovs.pipeline.listing import loadable
from romana_ovs.policy.view import ServerGroup
from romana_ovs.simulator.packet import tcp
from tests.integration.dummy_interfaces import LOCAL, wanted
from tests.integration.packet_bridge import packet_ovs
from tests.integration.wire import frame
from tests.pipeline.crossed_rules import MANY, crossed
from tests.support.simulated_network import SimNetwork, SimPod

pytestmark = [pytest.mark.root, pytest.mark.skipif(not wanted(), reason="needs root and Open vSwitch")]


def test_a_switch_accepts_thousands_of_rules_with_one_peer() -> None:
    """Some of the shared rows are written out: by them, and by the conjunctions, exactly what is allowed arrives."""
    client = SimPod("c", 1, 2)
    rules = list(crossed(MANY))
    for at in (0, MANY - 1):
        mine = frozenset({*(rules[at].identities or ()), IdentityMatch(client.identity, ALL_BITS)})
        rules[at] = replace(rules[at], identities=mine)
    lab = SimNetwork.of(client, SimPod("s", 1, 1, server=ServerGroup(6, tuple(rules), ())))
    text = loadable(lab.flows(1), lab.program(1).meters)
    with packet_ovs((1, 2, LOCAL)) as ovs:
        ovs.program(text)
        assert ovs.difference(text) == (set(), set())
        passed = {
            port
            for port in (80, 81, 1000, 1001, 1002, 1000 + 2 * (MANY - 1))
            if ovs.send(2, frame(tcp(lab.ends("c", "s"), 4000, port)))
        }
    assert passed == {80, 1000, 1000 + 2 * (MANY - 1)}
