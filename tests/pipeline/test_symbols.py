"""Registers by name beside flows."""

from __future__ import annotations

from romana_ovs.pipeline import priorities
from romana_ovs.pipeline.actions import Action, Ct, Goto, Load, Move
from romana_ovs.pipeline.compile.conditions import FROM_CLIENT, feature_origin, load
from romana_ovs.pipeline.compile.conntrack import CT_WRITES
from romana_ovs.pipeline.cookies import Feature
from romana_ovs.pipeline.flow import Flow
from romana_ovs.pipeline.listing import loadable
from romana_ovs.pipeline.registers import (
    CLIENT_ID,
    DIRECTION,
    MARKS,
    PKT_DESTINATION,
    PKT_SOURCE,
    RECEIVER_ID,
    REPLY,
    SENDER_ID,
    UPLINK,
    ZONE,
)
from romana_ovs.pipeline.symbols import matches, symbols, writes
from romana_ovs.pipeline.tables import flow
from tests.support.simulated_network import SimNetwork, SimPod


def _flow(*match: tuple[str, int, int], actions: tuple[Action, ...] = ()) -> Flow:
    return flow(
        priorities.ClientServer.DEFAULT, match, actions, feature=Feature.CONNTRACK, origin=feature_origin("test")
    )


def test_values_and_moves_are_named_and_partial_matches_masked() -> None:
    moved = (Move(SENDER_ID.bits, CLIENT_ID.bits), load(DIRECTION, REPLY), Goto("Egress"))
    item = _flow(PKT_SOURCE.match(UPLINK), FROM_CLIENT, RECEIVER_ID.match(0x40001), actions=moved)
    assert (
        symbols(item)
        == "pkt_source=uplink direction=0x1/0x1 receiver_id=0x40001 -> client_id=sender_id direction=reply"
    )


def test_a_load_of_several_registers_names_each() -> None:
    assert ("pkt_destination", "0") in [(one.name, text) for one, text in writes(_flow(actions=(Load(MARKS, 1),)))]
    commit = flow(
        priorities.ConntrackCommit.COMMIT,
        [("eth_type", 0x0800), PKT_DESTINATION.match(UPLINK)],
        [Ct(zone=ZONE.bits, table="Output", commit=True, writes=CT_WRITES)],
        feature=Feature.CONNTRACK,
        origin=feature_origin("test"),
    )
    assert symbols(commit) == (
        "pkt_destination=uplink -> ct_client=client_id ct_source=pkt_source ct_destination=pkt_destination"
        " ct_accepted=1"
    )


def test_every_matched_register_has_a_name_in_a_comment() -> None:
    lab = SimNetwork.of(SimPod("c", 1, 1), SimPod("s", 2, 2))
    for item in lab.flows(1):
        declared = {field.field for field in item.match if field.field.startswith(("reg", "ct_mark", "ct_label"))}
        assert declared == {register.bits.field for register, _ in matches(item)}
    lines = [line for line in loadable(lab.flows(1)).splitlines() if " # " in line and line.startswith("table=")]
    assert any(line.endswith("# pkt_source=local pkt_destination=local different=0") for line in lines)
