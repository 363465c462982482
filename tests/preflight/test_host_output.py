"""Outputs of `ip`, `nft` and the kernel's lists of modules, as Debian 12's programs print them."""

from __future__ import annotations

import json
from ipaddress import IPv4Interface, IPv4Network

import pytest

from romana_ovs.preflight.facts import Link, Route
from romana_ovs.preflight.host_output import links_of, listening_of, modules_of, routes_of, ruleset_of

ADDRESSES = """[{"ifindex":1,"ifname":"lo","flags":["LOOPBACK","UP"],"mtu":65536,"link_type":"loopback",
 "addr_info":[{"family":"inet","local":"127.0.0.1","prefixlen":8,"scope":"host"},
 {"family":"inet6","local":"::1","prefixlen":128}]},{},
 {"ifindex":3,"ifname":"vxlan_sys_4789","mtu":65000,"master":"ovs-system","linkinfo":{"info_kind":"vxlan",
 "info_data":{"external":true,"id":0,"port":4789},"info_slave_kind":"openvswitch"},"addr_info":[]},
 {"ifindex":4,"ifname":"eth0","mtu":1500,"linkinfo":{"info_kind":"veth"}}]"""
ROUTES = """[{"dst":"default","gateway":"192.0.2.254","dev":"eth0","flags":[]},
 {"dst":"10.0.0.0/8","dev":"br-int","scope":"link","flags":[]},
 {"dst":"198.51.100.7","flags":[],"nexthops":[{"gateway":"192.0.2.2","dev":"eth1","weight":1}]},
 {"type":"blackhole","dst":"10.9.0.0/16","flags":[]},
 {"type":"local","dst":"192.0.2.1","dev":"eth0","table":"local","flags":[]}]"""


def rule(chain: str, *expressions: object) -> dict[str, object]:
    """A rule of the table `inet t`."""
    return {"rule": {"family": "inet", "table": "t", "chain": chain, "handle": 1, "expr": list(expressions)}}


def chain(name: str, **base: object) -> dict[str, object]:
    """A chain of the table `inet t`; `base` are the fields of a base chain."""
    return {"chain": {"family": "inet", "table": "t", "name": name, **base}}


def udp_port(value: object) -> dict[str, object]:
    """A match on the UDP destination port."""
    return {"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": value}}


NOTRACK = {"notrack": None}
PREROUTING = chain("in", type="filter", hook="prerouting", prio=-300, policy="accept")


def ruleset(*items: object) -> str:
    """The JSON of `nft -j list ruleset`."""
    return json.dumps({"nftables": [{"metainfo": {"version": "1.0.6"}}, *items]})


def test_links() -> None:
    assert links_of(ADDRESSES) == (
        Link("lo", 65536, (IPv4Interface("127.0.0.1/8"),)),
        Link("vxlan_sys_4789", 65000, (), "vxlan", 4789, "ovs-system"),
        Link("eth0", 1500, (), "veth"),
    )


def test_routes() -> None:
    assert routes_of(ROUTES) == (
        Route(IPv4Network("0.0.0.0/0"), "eth0"),
        Route(IPv4Network("10.0.0.0/8"), "br-int"),
        Route(IPv4Network("198.51.100.7/32"), "eth1"),
    )
    assert routes_of("") == routes_of("[]") == ()


@pytest.mark.parametrize(
    ("expressions", "ports"),
    [
        ((udp_port(4789), NOTRACK), {4789}),
        ((udp_port({"set": [4789, 6081]}), {"counter": {"packets": 0, "bytes": 0}}, NOTRACK), {4789, 6081}),
        ((udp_port({"range": [4000, 5000]}), NOTRACK), {4789}),
        ((udp_port({"set": [{"range": [6000, 7000]}, 53]}), NOTRACK), {53, 6081}),
        ((udp_port("@ports"), NOTRACK), set()),
        ((NOTRACK,), {4789, 6081}),
        (({"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "lo"}}, NOTRACK), set()),
    ],
)
def test_untracked_ports(expressions: tuple[object, ...], ports: set[int]) -> None:
    assert ruleset_of(ruleset(PREROUTING, rule("in", *expressions))).untracked == {"prerouting": ports}


def test_rules_that_track_nothing_less() -> None:
    other = chain("jumped-to")
    text = ruleset(PREROUTING, other, rule("in", udp_port(4789), {"accept": None}), rule("jumped-to", NOTRACK))
    assert ruleset_of(text).untracked == {}


def test_tables_and_drops() -> None:
    text = ruleset(
        {"table": {"family": "inet", "name": "romana-ovs", "handle": 1}},
        chain("f", type="filter", hook="forward", prio=0, policy="drop"),
        chain("g", type="filter", hook="forward", prio=0, policy="accept"),
        chain("i", type="filter", hook="input", prio=0, policy="drop"),
    )
    assert ruleset_of(text).tables == {"inet romana-ovs"}
    assert ruleset_of(text).forward_drops == ("inet t f",)


def test_modules() -> None:
    modules = modules_of(
        "openvswitch 192512 5 vport_geneve,vport_vxlan, Live 0x0000\nveth 36864 0 - Live 0x0\n",
        "kernel/fs/ext4/ext4.ko\n",
        "kernel/net/openvswitch/vport-vxlan.ko: kernel/net/openvswitch/openvswitch.ko\n"
        "kernel/drivers/net/geneve.ko.xz:\n",
    )
    assert modules.loaded == {"openvswitch", "veth", "ext4"}
    assert modules.loadable == {"vport_vxlan", "geneve"}


def test_listening_ports() -> None:
    lines = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
        "   0: 0100007F:19FD 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1",
        "   1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 4712 1",
    )
    assert listening_of("\n".join(lines)) == {6653}


@pytest.mark.parametrize("text", ["nonsense", '[{"ifname": "eth0"}]', "[1]", '{"a": 1}'])
def test_other_outputs_raise_what_the_reader_expects(text: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        links_of(text)
