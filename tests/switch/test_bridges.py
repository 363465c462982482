"""What rows of a database are taken to mean."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from romana_ovs.model.bridge import PodPort, TunnelPort
from romana_ovs.model.objects import PodKey
from romana_ovs.switch.bridges import Bridge, BridgeRow, ControllerRow, InterfaceRow, bridges

X = PodKey("a/x")
LOCAL = InterfaceRow("br-int", 0xFFFE, {}, mac="0a:58:0a:00:00:01")
ROW = BridgeRow("br-int", 5, "host", {"romana-node": "n1"}, {}, "secure", (), (LOCAL,))


def _one(*interfaces: InterfaceRow, row: BridgeRow = ROW) -> Bridge:
    found = bridges([replace(row, interfaces=(*row.interfaces, *interfaces))])
    assert len(found) == 1
    return found[0]


def _pod(name: str, pod: str, port: int | None, **more: str | int) -> InterfaceRow:
    ids = {"iface-id": pod}
    if "mac" in more:
        ids["attached-mac"] = str(more["mac"])
    return InterfaceRow(name, port, ids, seen=int(more.get("seen", 1)), row=name)


def test_ports_by_their_ids() -> None:
    found = _one(
        _pod("p", "a/x", 3, mac="0A:58:00:00:00:09"),
        InterfaceRow("l", 4, {"romana-link": "n2"}),
        InterfaceRow("t", 5, {"romana-tunnel": "yes"}, {"local_ip": "192.0.2.1", "remote_ip": "flow"}),
    )
    facts = found.facts
    assert (found.dpid, facts.node, facts.gateway_port, facts.gateway_mac) == (5, "n1", 0xFFFE, "0a:58:0a:00:00:01")
    assert facts.pod_ports == {"a/x": PodPort(3, "0a:58:00:00:00:09")}
    assert facts.links == {"n2": 4}
    assert facts.tunnel == TunnelPort(5, IPv4Address("192.0.2.1"))
    assert found.rows == {"a/x": "p"}
    assert found.warnings == ()


@pytest.mark.parametrize("port", [None, -1, 0])
def test_a_port_without_number_waits_quietly(port: int | None) -> None:
    found = _one(_pod("p", "a/x", port), _pod("q", "a/y", 2))
    assert list(found.facts.pod_ports) == ["a/y"]
    assert found.warnings == ()


def test_the_newest_of_two_claims_counts() -> None:
    found = _one(_pod("old", "a/x", 9, seen=1), _pod("new", "a/x", 2, seen=2))
    assert found.facts.pod_ports[PodKey("a/x")].ofport == 2
    assert "nothing passes old" in found.warnings[0]


def _uid(port: str, uid: str, seen: int) -> InterfaceRow:
    ids = {"iface-id": "a/x", **({"iface-id-ver": uid} if uid else {})}
    return InterfaceRow(port, seen, ids, seen=seen)


def test_ports_of_two_pods_of_one_name_differ_by_uid() -> None:
    found = _one(_uid("old", "1", 3), _uid("new", "2", 4))
    new, old = PodPort(4, uid="2"), PodPort(3, uid="1")
    assert found.warnings == ()
    assert (dict(found.facts.pod_ports), dict(found.facts.superseded_ports)) == ({"a/x": new}, {"a/x": (old,)})
    port = found.facts.port
    assert (port(X, "1"), port(X, "2"), port(X, "3"), port(X, "")) == (old, new, None, new)
    assert port(PodKey("a/y"), "1") is None


def test_a_port_without_a_uid_is_found_by_the_pods_name() -> None:
    facts = _one(_uid("p", "", 3)).facts
    assert facts.port(X, "1") == facts.port(X, "") == PodPort(3)


@pytest.mark.parametrize("uids", [("1", "1"), ("", "1"), ("1", ""), ("", "")])
def test_of_two_ports_that_may_be_one_pods_the_newer_counts(uids: tuple[str, str]) -> None:
    found = _one(_uid("old", uids[0], 3), _uid("new", uids[1], 4))
    assert found.facts.port(X, "1") == PodPort(4, uid=uids[1]) and not found.facts.superseded_ports
    assert "ports new and old both claim pod a/x" in found.warnings[0]


def test_the_order_of_rows_decides_nothing() -> None:
    rows = (_pod("p", "a/x", 3), _pod("q", "a/x", 4), _pod("r", "a/y", 5))
    assert _one(*rows) == _one(*reversed(rows))


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (InterfaceRow("p", 1, {}), "no external_ids:iface-id"),
        (InterfaceRow("p", 1, {"iface-id": "x"}), "not <namespace>/<pod>"),
        (InterfaceRow("p", 1, {"iface-id": "a/x", "attached-mac": "zz"}), "not a MAC address"),
        (InterfaceRow("p", 1, {"iface-id": "a/x", "romana-link": "n2"}), "several roles"),
        (InterfaceRow("p", 1, {"romana-tunnel": "yes"}, {"local_ip": "flow"}), "options:local_ip"),
        (InterfaceRow("p", 1, {"romana-tunnel": "yes"}, {"local_ip": "224.0.0.1"}), "is a multicast address"),
        (InterfaceRow("p", 1, {"romana-tunnel": "0.0.0.0"}, {"local_ip": "flow"}), "is the unspecified address"),
    ],
)
def test_an_invalid_port_stays_closed_and_is_reported(row: InterfaceRow, why: str) -> None:
    found = _one(row)
    assert why in found.warnings[0]
    assert not found.facts.pod_ports
    assert not found.facts.links
    assert found.facts.tunnel is None


def test_only_our_bridges_are_driven() -> None:
    other = replace(ROW, name="br0", external_ids={})
    default = replace(ROW, external_ids={})
    assert [bridge.node for bridge in bridges([other, default])] == ["host"]
    assert bridges([replace(ROW, dpid=None)]) == ()


def test_two_bridges_of_one_node() -> None:
    found = bridges([ROW, replace(ROW, name="br-b", dpid=6)])
    assert [bridge.name for bridge in found] == ["br-b"]
    assert "br-int is ignored" in found[0].warnings[-1]


def test_unsafe_bridges_are_reported() -> None:
    in_band = replace(ROW, fail_mode="", controllers=(ControllerRow("tcp:127.0.0.1:6653"),))
    warnings = _one(row=in_band).warnings
    assert any("fail_mode=secure" in text for text in warnings)
    assert any("in-band" in text for text in warnings)
    for safe in (
        replace(ROW, controllers=(ControllerRow("tcp:127.0.0.1:6653", "out-of-band"),)),
        replace(ROW, controllers=(ControllerRow("unix:/run/x"),)),
        replace(ROW, controllers=(ControllerRow("tcp:127.0.0.1"),), other_config={"disable-in-band": "true"}),
    ):
        assert _one(row=safe).warnings == ()


def test_a_primary_controller_is_reported_before_it_costs_flows() -> None:
    primary = ControllerRow("tcp:127.0.0.1:6653", "out-of-band")
    waiting = replace(ROW, controllers=(primary,), flow_restore_wait=True)
    assert "set controller br-int type=service" in _one(row=waiting).warnings[0]
    assert _one(row=replace(waiting, controllers=(replace(primary, type="service"),))).warnings == ()
    assert _one(row=replace(waiting, flow_restore_wait=False)).warnings == ()
    assert _one(row=waiting).flow_restore_wait


def test_without_a_mac_there_is_no_gateway() -> None:
    assert _one(row=replace(ROW, interfaces=(replace(LOCAL, mac=""),))).facts.gateway_port is None
