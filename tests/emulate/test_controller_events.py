"""What the controller reports, as values."""

from __future__ import annotations

import json

import pytest

from romana_ovs.model.errors import SetupError
from romana_ovs_emulate.controller import Programmed, Refused, State, parse_event

NODE = {"connected": True, "flows": {"policy": 3, "forwarding": 9, "total": 12}, "synced_generation": 4}
POD = {"node": "node1", "address": "10.0.0.2", "mac": "0a:58:0a:00:00:02", "port": 3}


def state(**changes: object) -> State:
    event = {
        "event": "state",
        "generation": 4,
        "nodes": {"node1": NODE},
        "pods": {"x/a": POD},
        "problems": [],
        "refused": [],
        "packet_ins": 0,
        **changes,
    }
    found = parse_event(json.dumps(event))
    assert isinstance(found, State)
    return found


def test_a_state_is_settled_with_all_switches_and_ports() -> None:
    assert state().settled(["node1"])
    assert state().nodes["node1"].flows["total"] == 12
    assert state().nodes["node1"].sctp_ports is None
    assert state(nodes={"node1": {**NODE, "sctp_ports": False}}).nodes["node1"].sctp_ports is False
    assert not state(generation=5).settled(["node1"])
    assert not state(pending=True).settled(["node1"])
    assert not state(pods={"x/a": {**POD, "port": None}}).settled(["node1"])
    assert state(pods={"x/a": {**POD, "node": "nowhere", "port": None}}).settled(["node1"])
    assert not state(nodes={"node1": {**NODE, "connected": False}}).settled(["node1"])
    assert not state(nodes={"node1": {**NODE, "synced_generation": None}}).settled(["node1"])


def test_programmed_and_refused() -> None:
    line = '{"event": "programmed", "generation": 5, "milliseconds": 7.5, "sent": {"node1": 2}}'
    assert parse_event(line) == Programmed(5, 7.5, {"node1": 2})
    assert parse_event('{"event": "refused", "problems": ["a.yaml: bad"]}') == Refused(("a.yaml: bad",))


def test_an_unknown_event_is_no_event() -> None:
    assert parse_event('{"event": "weather"}') is None


@pytest.mark.parametrize("line", ["", "{", "[]", '{"event": "state"}', '{"event": "programmed"}', "3", '{"a": 1}'])
def test_an_invalid_event_is_an_error(line: str) -> None:
    with pytest.raises(SetupError, match="controller sent an invalid event"):
        parse_event(line)
