"""Rows of an Open vSwitch database as bridges of the controller; versions and features as the switch prints them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

from romana_ovs.preflight.facts import ControllerTarget, SwitchBridge, Tunnel
from romana_ovs.preflight.switch_facts import bridges_of, features_of, version_of

BRIDGE: dict[str, Any] = {
    "_uuid": "b",
    "name": "br-int",
    "datapath_type": "",
    "fail_mode": "secure",
    "protocols": (),
    "controller": "c",
    "ports": ("p1", "p2", "p3"),
    "external_ids": {},
    "other_config": {"disable-in-band": "true"},
}
INTERFACE: dict[str, Any] = {"name": "i", "type": "", "options": {}, "external_ids": {}, "mtu": (), "error": ()}


def tables(**bridge: object) -> dict[str, list[dict[str, Any]]]:
    """A database with one bridge, which has a tunnel port and two pods' ports."""
    return {
        "Bridge": [{**BRIDGE, **bridge}],
        "Port": [{"_uuid": f"p{number}", "interfaces": f"i{number}"} for number in (1, 2, 3)],
        "Interface": [
            {
                **INTERFACE,
                "_uuid": "i1",
                "type": "vxlan",
                "external_ids": {"romana-tunnel": "192.0.2.1"},
                "error": "bad",
            },
            {**INTERFACE, "_uuid": "i2", "name": "b-port", "mtu": 1450, "external_ids": {"iface-id": "a/b"}},
            {**INTERFACE, "_uuid": "i3", "name": "a-port", "mtu": 1400, "external_ids": {"iface-id": "a/c"}},
        ],
        "Controller": [
            {
                "_uuid": "c",
                "target": "tcp:127.0.0.1:6653",
                "connection_mode": "out-of-band",
                "type": "service",
                "is_connected": True,
            }
        ],
    }


def test_a_bridge() -> None:
    assert bridges_of(tables()) == (
        SwitchBridge(
            "br-int",
            "system",
            controllers=(ControllerTarget("tcp:127.0.0.1:6653", "out-of-band", "service", connected=True),),
            in_band_disabled=True,
            tunnel=Tunnel("vxlan", 4789, IPv4Address("192.0.2.1"), "bad"),
            port_mtu=1450,
            pod_ports=("a-port", "b-port"),
        ),
    )


def test_settings_of_a_bridge() -> None:
    bridge = bridges_of(
        tables(datapath_type="netdev", fail_mode=(), protocols=("OpenFlow15", "OpenFlow13"), ports="p2")
    )[0]
    assert (bridge.datapath, bridge.fail_mode, bridge.tunnel) == ("netdev", "", None)
    assert bridge.protocols == ("OpenFlow13", "OpenFlow15")


def test_the_port_and_address_of_a_tunnel_by_its_options() -> None:
    rows = tables()
    rows["Interface"][0] |= {"options": {"local_ip": "192.0.2.7", "dst_port": "8472"}, "external_ids": {}, "error": ()}
    assert bridges_of(rows)[0].tunnel == Tunnel("vxlan", 8472, IPv4Address("192.0.2.7"))
    rows["Interface"][0] |= {"options": {"local_ip": "flow", "dst_port": "x"}}
    assert bridges_of(rows)[0].tunnel == Tunnel("vxlan", 4789)


def test_bridges_of_others_are_no_bridges_of_the_controller() -> None:
    assert bridges_of(tables(name="br-ex")) == ()
    assert [each.name for each in bridges_of(tables(name="br-7", external_ids={"romana-node": "node7"}))] == ["br-7"]


def test_version_and_features() -> None:
    assert version_of("ovs-vswitchd (Open vSwitch) 3.1.0\n") == "3.1.0"
    assert version_of("something else") == ""
    assert features_of("Masked set action: Yes\nSample nesting: 10\n") == {
        "Masked set action": "Yes",
        "Sample nesting": "10",
    }


def test_the_node_and_the_network_of_a_bridge() -> None:
    ids = {"romana-node": "n1", "romana-pod-network": "10.32.0.0/11"}
    (bridge,) = bridges_of(tables(external_ids=ids))
    assert (bridge.node, bridge.network) == ("n1", IPv4Network("10.32.0.0/11"))
    (bridge,) = bridges_of(tables(external_ids={"romana-pod-network": "x"}))
    assert (bridge.node, bridge.network) == ("", None)
