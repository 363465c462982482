"""Each row of the conntrack table of docs/dataplane.md, with packets, on a real Open vSwitch.

The bridge is node 1 with pods A and B; R is a pod of node 2 behind a plain link; O is outside, behind the node.
B admits R and O on TCP 80, UDP 53 and SCTP 80; A admits nobody, unless a test says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest

from romana_ovs.model.identity import IdentityMatch, identity
from romana_ovs.model.objects import Protocol
from romana_ovs.pipeline.registers import DEFERRED, MIDSTREAM, ORIGINAL, REPLY, UNSELECTED
from romana_ovs.pipeline.tables import TABLE_IDS
from romana_ovs.policy.rules import PortRange
from tests.integration.conntrack_bridge import (
    ADDRESS,
    GATEWAY_MAC,
    IDENTITY,
    PLAN,
    PORT,
    REVALIDATED,
    REVALIDATION,
    Net,
    admits,
    tables,
    wire_mac,
)
from tests.integration.dummy_switch import DummySwitch
from tests.integration.packet_bridge import packet_switch
from tests.support import frames
from tests.support.frames import ACK, PSH, SYN

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def switch() -> Iterator[DummySwitch]:
    """One switch for the module."""
    with packet_switch({"pa": 1, "pb": 2, "uplink": 9}) as running:
        yield running


@pytest.fixture
def net(switch: DummySwitch) -> Net:
    """The switch with fresh tables and no connections."""
    switch.load(tables())
    switch.flush()
    return Net(switch)


def test_a_new_connection_is_decided_and_committed(net: Net) -> None:
    assert net.tcp("R", "B", (40000, 80), SYN) == "B"
    (entry,) = net.entries()
    assert f"mark={IDENTITY['R']}" in entry
    assert net.tcp("R", "B", (40000, 81), SYN) == ""
    assert net.tcp("R", "A", (40000, 80), SYN) == ""
    assert len(net.entries()) == 1


def test_original_of_a_tracked_connection_is_decided_again(net: Net) -> None:
    net.handshake("R", "B", (40000, 80))
    net.switch.load(tables(b_admits=()))
    assert net.tcp("R", "B", (40000, 80), ACK | PSH, seq=1001, ack=5001, data=b"more") == ""
    assert all("mark=" not in entry for entry in net.entries()), "a refused original clears the mark"


def test_removing_a_permission_cuts_the_server_at_once_too(net: Net) -> None:
    net.handshake("R", "B", (40000, 80))
    assert net.tcp("B", "R", (80, 40000), ACK | PSH, seq=5001, ack=1001, data=b"push") == "R"
    net.switch.load(tables(b_admits=()))
    assert net.tcp("B", "R", (80, 40000), ACK | PSH, seq=5005, ack=1001, data=b"push") == ""
    assert net.asked, "R's node knows whether R is still who it was"


def test_a_udp_server_cannot_go_on_pushing(net: Net) -> None:
    assert net.udp("R", "B", (40000, 53)) == "B"
    assert net.udp("B", "R", (53, 40000), mark=REPLY) == "R"
    net.switch.load(tables(b_admits=()))
    # What B sends is now no reply but a connection of its own: R's node will decide about that.
    assert net.udp("R", "B", (40000, 53)) == ""
    out = net.switch.send("pb", frames.udp(ADDRESS["B"], ADDRESS["R"], (53, 40000), eth_src=PLAN.mac(ADDRESS["B"])))
    assert all(frame[7] & 3 == ORIGINAL for frame in out.get("uplink", []))


def test_a_reply_of_a_tracked_connection_passes(net: Net) -> None:
    assert net.tcp("A", "R", (40000, 80), SYN) == "R"
    assert net.tcp("R", "A", (80, 40000), SYN | ACK, mark=REPLY, seq=5000, ack=1001) == "A"


def asked(net: Net) -> bool:
    """Whether the last packet was revalidated at R's node. A function: mypy takes an attribute for unchanged."""
    return net.asked


def test_unknown_replies_drop_and_midstream_tcp_is_revalidated(net: Net) -> None:
    reply: dict[str, Any] = {"seq": 5000, "ack": 1001}
    assert net.tcp("R", "A", (80, 40000), ACK, mark=REPLY, **reply) == ""
    assert net.udp("R", "A", (53, 40000), mark=REPLY) == ""
    assert not asked(net)
    net.switch.load(tables(pre_restart=True))
    assert net.tcp("R", "A", (80, 40000), ACK, mark=REPLY, **reply) == ""
    assert asked(net), "R's node judges it as a packet of A's"
    assert net.tcp("R", "A", (80, 40000), ACK, mark=REPLY | REVALIDATED, **reply) == "A"
    assert net.entries() == []
    assert net.udp("R", "A", (53, 40000), mark=REPLY) == ""
    assert not asked(net), "a datagram waits for its client"


def test_a_revalidated_segment_returns_unchanged(net: Net) -> None:
    """R's node holds a segment of B's that is no reply there: as from R to B, it asks."""

    def answer(ports: tuple[int, int]) -> bytes | None:
        packet = frames.tcp(
            ADDRESS["R"],
            ADDRESS["B"],
            ports,
            ACK | PSH,
            eth_src=wire_mac("R", REVALIDATION | ORIGINAL),
            seq=5001,
            ack=1001,
        )
        return next(iter(net.switch.send("uplink", packet).get("uplink", [])), None)

    found = answer((40000, 80))
    assert found is not None
    assert found[7] & (REVALIDATION | REVALIDATED | 3) == REVALIDATED | REPLY
    assert int.from_bytes(found[8:12], "big") == IDENTITY["B"]
    assert found[26:34] == ADDRESS["B"].packed + ADDRESS["R"].packed
    assert found[34:38] == (80).to_bytes(2, "big") + (40000).to_bytes(2, "big")
    assert answer((40000, 81)) is None
    assert net.entries() == [], "it fits no window of the connection"


@pytest.mark.parametrize("client", ["A", "O"])
def test_lost_connections_continue_as_policies_allow(net: Net, client: str) -> None:
    ports, back = (40000, 80), (80, 40000)
    segment: dict[str, Any] = {"data": b"x"}
    assert net.tcp(client, "B", ports, ACK | PSH, seq=1001, ack=5002, **segment) == "", "no pre-restart pods, no loss"
    net.switch.load(tables(pre_restart=True))
    if client == "A":
        # As a client of A's the server is refused; what it sends may be a reply.
        assert net.tcp("B", "A", back, ACK | PSH, seq=5001, ack=1001, **segment) == "A"
        assert net.entries() == []
    assert net.tcp(client, "B", ports, ACK | PSH, seq=1001, ack=5002, **segment) == "B"
    (entry,) = net.entries()
    assert f"mark={IDENTITY[client]}" in entry
    assert net.tcp("B", client, back, ACK | PSH, seq=5002, ack=1002, **segment) == client
    net.switch.load(tables(pre_restart=True, b_admits=()))
    assert net.tcp(client, "B", ports, ACK | PSH, seq=1002, ack=5003, **segment) == ""
    net.switch.flush()
    assert net.tcp("A", "B", ports, ACK | PSH, seq=1002, ack=5003, **segment) == "", "never by age alone"


def test_survivors_hear_no_errors_and_no_datagrams_of_strangers(net: Net) -> None:
    net.switch.load(tables(pre_restart=True, b_admits=()))
    refused = frames.udp(ADDRESS["B"], ADDRESS["R"], (7, 8), eth_src=PLAN.mac(ADDRESS["B"]))
    error = frames.icmp_error(ADDRESS["R"], refused, eth_src=wire_mac("R", REPLY))
    assert net.deliver("R", error) == ""
    assert net.tcp("R", "B", (40000, 80), ACK, mark=MIDSTREAM) == ""
    assert net.asked, "it might be a reply: R's node is asked"
    assert net.tcp("R", "B", (40000, 80), ACK, mark=MIDSTREAM | REVALIDATION) == ""
    assert net.asked


def test_invalid_originals_are_dropped_before_any_policy(net: Net) -> None:
    assert net.tcp("R", "B", (40000, 80), SYN, broken=True) == ""
    assert net.tcp("A", "B", (40000, 80), SYN, broken=True) == ""


def test_a_reply_tracked_as_original_is_decided_as_original(net: Net) -> None:
    net.handshake("R", "B", (40000, 80))
    assert net.tcp("R", "B", (40000, 80), ACK, mark=REPLY, seq=1001, ack=5001) == "B"
    net.switch.load(tables(b_admits=()))
    assert net.tcp("R", "B", (40000, 80), ACK, mark=REPLY, seq=1001, ack=5001) == ""


def test_a_reversed_segment_without_syn_is_dropped(net: Net) -> None:
    assert net.tcp("A", "R", (40000, 80), SYN) == "R"
    assert net.tcp("R", "A", (80, 40000), SYN | ACK, mark=REPLY, seq=5000, ack=1001) == "A"
    assert net.tcp("R", "A", (80, 40000), ACK, mark=ORIGINAL, seq=5001, ack=1001) == ""


def test_a_reversed_datagram_is_decided_and_reverses_the_entry(net: Net) -> None:
    assert net.udp("A", "R", (53, 53)) == "R"
    assert net.udp("R", "A", (53, 53), mark=ORIGINAL) == "", "A admits nobody"
    net.switch.load(tables(a_admits=(admits("R"),)))
    assert net.udp("R", "A", (53, 53), mark=ORIGINAL) == "A"
    (entry,) = net.entries()
    assert f"orig=(src={ADDRESS['R']}" in entry and f"mark={IDENTITY['R']}" in entry


def test_two_pods_with_fixed_ports_gain_nothing_from_probes(net: Net) -> None:
    net.switch.load(tables(b_admits=()))
    for _ in range(3):
        assert net.udp("R", "B", (53, 53)) == ""
        assert net.udp("A", "B", (53, 53)) == ""
        assert net.udp("B", "A", (53, 53)) == ""
    assert all("mark=" not in entry for entry in net.entries())


def test_orphans(net: Net) -> None:
    assert net.tcp("R", "B", (40000, 80), ACK, mark=MIDSTREAM) == "", "tracked as nothing"
    net.handshake("R", "B", (40000, 80))
    assert net.tcp("R", "B", (40000, 80), ACK, mark=MIDSTREAM, seq=1001, ack=5001) == "B", "tracked as original"
    assert net.tcp("A", "R", (40001, 80), SYN) == "R"
    assert net.tcp("R", "A", (80, 40001), SYN | ACK, mark=MIDSTREAM, seq=5000, ack=1001) == "", "tracked as reply"


def test_a_local_midstream_segment_leaves_uncommitted(net: Net) -> None:
    packet = frames.tcp(ADDRESS["A"], ADDRESS["R"], (40000, 80), ACK, eth_src=PLAN.mac(ADDRESS["A"]))
    (frame,) = net.switch.send("pa", packet)["uplink"]
    assert frame[6] == 0x0A and frame[7] & 3 == MIDSTREAM
    assert int.from_bytes(frame[8:12], "big") == IDENTITY["A"]
    assert net.entries() == []
    assert net.tcp("A", "B", (40000, 80), ACK) == "", "nor does it reach a neighbour"
    assert net.tcp("A", "O", (40000, 80), ACK) == "", "nor the outside"


def test_marks_of_what_leaves(net: Net) -> None:
    def mark(packet: bytes, port: str) -> tuple[int, int]:
        (frame,) = net.switch.send(port, packet)["uplink"]
        return frame[7] & 3, frame[7] >> 2 & 3

    opening = frames.tcp(ADDRESS["A"], ADDRESS["R"], (40000, 80), SYN, eth_src=PLAN.mac(ADDRESS["A"]))
    assert mark(opening, "pa") == (ORIGINAL, UNSELECTED)
    assert net.tcp("R", "B", (40000, 80), SYN) == "B"
    answer = frames.tcp(
        ADDRESS["B"], ADDRESS["R"], (80, 40000), SYN | ACK, eth_src=PLAN.mac(ADDRESS["B"]), seq=5000, ack=1001
    )
    assert mark(answer, "pb")[0] == REPLY


def test_open_egress_is_looked_up_where_the_server_is(net: Net) -> None:
    def answered() -> int:
        answer = frames.udp(ADDRESS["B"], ADDRESS["R"], (53, 40000), eth_src=PLAN.mac(ADDRESS["B"]))
        (frame,) = net.switch.send("pb", answer)["uplink"]
        return frame[7] >> 2 & 3

    assert net.udp("R", "B", (40000, 53), egress=DEFERRED) == "B"
    assert answered() == DEFERRED, "the client's node learns that a deferred rule admits it"
    net.switch.load(
        [line for line in tables() if f"table={TABLE_IDS['DeferredEgress']}, " not in line or "reg10" not in line]
    )
    assert answered() == UNSELECTED, "whether the client is open now, its own node knows"
    net.switch.flush()
    assert net.udp("R", "B", (40001, 53), egress=DEFERRED) == ""
    assert net.udp("R", "B", (40001, 53), egress=UNSELECTED) == "B"


def test_replies_are_accepted_from_the_opposite_side_only(net: Net) -> None:
    assert net.udp("A", "R", (40000, 53)) == "R"
    forged = frames.udp(ADDRESS["R"], ADDRESS["A"], (53, 40000), eth_src=GATEWAY_MAC)
    assert net.switch.send("br0", forged) == {}, "a pod's address from the gateway"
    assert net.udp("A", "O", (40000, 53)) == "O"
    stray = frames.udp(ADDRESS["O"], ADDRESS["A"], (53, 40000), eth_src=wire_mac("O", REPLY))
    assert net.switch.send("uplink", stray) == {}
    assert net.udp("O", "A", (53, 40000)) == "A"


def test_related_errors_pass_while_the_connection_is_allowed(net: Net) -> None:
    opening = frames.udp(ADDRESS["A"], ADDRESS["O"], (40000, 53), eth_src=PLAN.mac(ADDRESS["A"]))
    assert net.deliver("A", opening) == "O"
    error = frames.icmp_error(IPv4Address("192.0.2.1"), opening, eth_src=GATEWAY_MAC)
    assert net.deliver("O", error) == "A"
    request = frames.udp(ADDRESS["R"], ADDRESS["B"], (40000, 53), eth_src=wire_mac("R", ORIGINAL))
    assert net.deliver("R", request) == "B"
    refused = frames.icmp_error(ADDRESS["B"], request, eth_src=PLAN.mac(ADDRESS["B"]), code=3)
    assert net.deliver("B", refused) == "R"
    net.switch.load(tables(b_admits=()))
    assert net.deliver("B", refused) == "", "judged as a reply, now"
    net.switch.load(tables())
    assert net.deliver("B", refused) == "R"


def test_an_error_is_valid_in_one_direction_only(net: Net) -> None:
    """A colluding pair: R's node refused what A sent, and R sends errors about it, which its node takes for its own."""
    sent = frames.udp(ADDRESS["A"], ADDRESS["R"], (7100, 7200), eth_src=PLAN.mac(ADDRESS["A"]))
    assert net.deliver("A", sent) == "R"
    for mark, heard in ((ORIGINAL, ""), (MIDSTREAM, ""), (REPLY, "A")):
        about = frames.icmp_error(ADDRESS["R"], sent, eth_src=wire_mac("R", mark))
        assert net.deliver("R", about) == heard


def test_an_error_is_judged_by_the_port_of_its_connection(net: Net) -> None:
    request = frames.udp(ADDRESS["R"], ADDRESS["B"], (40000, 53), eth_src=wire_mac("R", ORIGINAL))
    assert net.deliver("R", request) == "B"
    refused = frames.icmp_error(ADDRESS["B"], request, eth_src=PLAN.mac(ADDRESS["B"]), code=3)
    only = PortRange(Protocol.UDP, 54, 54)
    net.switch.load(tables(b_admits=(replace(admits("R"), ports=(only,)),)))
    assert net.deliver("B", refused) == ""
    net.switch.load(tables(b_admits=(replace(admits("R"), ports=(only, PortRange(Protocol.UDP, 52, 53))),)))
    assert net.deliver("B", refused) == "R"


def test_a_pod_cannot_send_errors_of_others_connections(net: Net) -> None:
    net.switch.load(tables(b_admits=(admits("R"),)))
    request = frames.udp(ADDRESS["R"], ADDRESS["B"], (40000, 53), eth_src=wire_mac("R", ORIGINAL))
    assert net.deliver("R", request) == "B"
    for about in (request, frames.udp(ADDRESS["B"], ADDRESS["R"], (53, 40000), eth_src=PLAN.mac(ADDRESS["B"]))):
        meddling = frames.icmp_error(ADDRESS["A"], about, eth_src=PLAN.mac(ADDRESS["A"]))
        assert net.deliver("A", meddling) == ""
    own = frames.icmp_error(ADDRESS["B"], request, eth_src=PLAN.mac(ADDRESS["B"]), code=3)
    assert net.deliver("B", own) == "R"


def test_an_error_about_nothing_is_dropped(net: Net) -> None:
    never = frames.udp(ADDRESS["A"], ADDRESS["O"], (40000, 53), eth_src=PLAN.mac(ADDRESS["A"]))
    assert net.deliver("O", frames.icmp_error(IPv4Address("192.0.2.1"), never, eth_src=GATEWAY_MAC)) == ""


@pytest.mark.parametrize("sender", ["A", "R"])
def test_fragments_go_together_with_an_admitted_first_one(net: Net, sender: str) -> None:
    eth_src = net.mac(sender, ORIGINAL, UNSELECTED)
    good = frames.udp_fragments(ADDRESS[sender], ADDRESS["B"], (40000, 53), eth_src=eth_src)
    out = net.switch.send(PORT[sender], *good)
    assert len(out["pb"]) == len(good) and set(out) == {"pb"}
    bad = frames.udp_fragments(ADDRESS[sender], ADDRESS["B"], (40000, 54), eth_src=eth_src)
    assert net.switch.send(PORT[sender], *bad) == {}
    net.switch.flush()
    assert net.switch.send(PORT[sender], *bad[1:]) == {}, "later fragments alone"


def test_fragmented_replies_pass(net: Net) -> None:
    assert net.udp("R", "B", (40000, 53)) == "B"
    answer = frames.udp_fragments(ADDRESS["B"], ADDRESS["R"], (53, 40000), eth_src=PLAN.mac(ADDRESS["B"]))
    assert len(net.switch.send("pb", *answer)["uplink"]) == len(answer)


def test_sctp_is_decided_on_its_ports_always(net: Net) -> None:
    def sctp(sender: str, receiver: str, ports: tuple[int, int], kind: int, mark: int = ORIGINAL) -> str:
        eth_src = net.mac(sender, mark, UNSELECTED)
        return net.deliver(sender, frames.sctp(ADDRESS[sender], ADDRESS[receiver], ports, eth_src=eth_src, kind=kind))

    assert sctp("A", "B", (40000, 80), 1) == "B"
    assert sctp("B", "A", (80, 40000), 2) == "A"
    assert sctp("A", "B", (40000, 81), 1) == "", "one allowed association opens no other port (docs/hazards.md A9)"
    assert sctp("B", "A", (80, 40000), 2) == "A", "and the refused one does not cut the allowed one"
    assert sctp("B", "A", (40000, 80), 1) == "", "A admits nobody"
    net.switch.load(tables(a_admits=(admits("B"),)))
    assert sctp("B", "A", (40000, 80), 1) == "A", "an association of the server's own, on an entry without ports"


def test_a_flush_is_no_revocation_and_no_permission(net: Net) -> None:
    """docs/hazards.md B11: server data after a flush must not turn the connection round."""
    net.handshake("A", "B", (40000, 80))
    net.switch.load(tables(b_admits=()))
    net.switch.flush()
    assert net.tcp("B", "A", (80, 40000), ACK | PSH, seq=5001, ack=1001, data=b"push") == ""
    assert net.tcp("A", "B", (40000, 80), ACK | PSH, seq=1001, ack=5001, data=b"denied") == ""


def test_one_way_datagrams_stop_when_the_permission_goes(net: Net) -> None:
    """docs/hazards.md A21."""
    for _ in range(4):
        assert net.udp("A", "B", (40000, 53)) == "B"
    net.switch.load(tables(b_admits=()))
    assert net.udp("A", "B", (40000, 53)) == ""


def test_either_nodes_conntrack_may_vanish(net: Net) -> None:
    """D lost its state: the client's next packet restores it. S lost it: midstream packets keep D's entry alive."""
    net.handshake("R", "B", (40000, 80))
    net.switch.flush()
    back = frames.tcp(ADDRESS["B"], ADDRESS["R"], (80, 40000), ACK, eth_src=PLAN.mac(ADDRESS["B"]), seq=5001, ack=1001)
    (lost,) = net.switch.send("pb", back)["uplink"]
    assert lost[7] & 3 == MIDSTREAM
    assert net.entries() == [], "never tracked reversed"
    assert net.tcp("R", "B", (40000, 80), ACK, seq=1001, ack=5001) == "B"
    (found,) = net.switch.send("pb", back)["uplink"]
    assert found[7] & 3 == REPLY


def test_transit_and_strange_marks(net: Net) -> None:
    far = Net(net.switch)
    elsewhere = PLAN.address(3, 2, 7)
    assert (
        net.switch.send("uplink", frames.udp(ADDRESS["R"], elsewhere, (1, 53), eth_src=wire_mac("R", ORIGINAL))) == {}
    )
    spoofed = wire_mac("R", ORIGINAL).replace("0a:05", "0a:58")
    assert far.switch.send("uplink", frames.udp(ADDRESS["R"], ADDRESS["B"], (1, 53), eth_src=spoofed)) == {}
    forged = frames.udp(ADDRESS["A"], ADDRESS["B"], (1, 53), eth_src=wire_mac("R", ORIGINAL))
    assert far.switch.send("pa", forged) == {}, "a pod cannot claim an identity"
    tagged = frames.udp(ADDRESS["A"], ADDRESS["B"], (1, 53), eth_src=PLAN.mac(ADDRESS["A"]))
    tagged = tagged[:12] + b"\x81\x00\x00\x05" + tagged[12:]
    assert far.switch.send("pa", tagged) == {}


def test_current_connections_bypass_policies_unless_relabelled(net: Net) -> None:
    net.handshake("A", "B", (40000, 80))
    former = IDENTITY["A"]
    try:
        IDENTITY["A"] = identity(1, 2)
        net.switch.load(tables(b_admits=(admits("A"),)))
        assert net.tcp("A", "B", (40000, 80), ACK | PSH, seq=1001, ack=5001, data=b"x") == "B"
        assert any(f"mark={identity(1, 2)}" in entry for entry in net.entries())
        net.switch.load(tables(b_admits=(replace(admits("A"), identities=frozenset({IdentityMatch(former)})),)))
        assert net.tcp("A", "B", (40000, 80), ACK | PSH, seq=1002, ack=5001, data=b"x") == ""
    finally:
        IDENTITY["A"] = former
