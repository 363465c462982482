"""The nftables rules of a node, as text: what they depend on, and that `nft` takes them."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from romana_ovs.attach.host_rules import HostRules, render, rule_count
from romana_ovs.attach.nftables import concerns_table
from romana_ovs.model.node_network import NodeNetwork

NETWORK = NodeNetwork(
    IPv4Address("10.0.0.65"), IPv4Network("10.0.0.0/8"), IPv4Address("10.0.0.64"), IPv4Address("255.0.15.192")
)
PEERS = (IPv4Network("192.0.2.1/32"), IPv4Network("192.0.2.4/30"))
ALONE = HostRules("br-int", NETWORK)
WITH_TUNNEL = replace(ALONE, network=replace(NETWORK, tunnel_peers=PEERS), tunnel_ports=frozenset({6081}))
SERVICES = (IPv4Network("172.30.0.0/16"), IPv4Network("172.31.7.9/32"))
IN_USERSPACE = replace(WITH_TUNNEL, switch_devices=frozenset({"eth1", "eth0"}), masquerade_bit=20)
WITH_SERVICES = replace(WITH_TUNNEL, network=replace(WITH_TUNNEL.network, service_ranges=SERVICES))
ALL = {"alone": ALONE, "services": WITH_SERVICES, "tunnel": WITH_TUNNEL, "userspace": IN_USERSPACE}


def rules_of(rules: HostRules, chain: str) -> list[str]:
    """The rules of a chain; empty when there is no such chain."""
    _, _, rest = render(rules).partition(f"chain {chain} {{\n")
    return [line.strip() for line in rest.partition("\t}")[0].splitlines()][1:]


def test_the_table_is_replaced_in_one_step() -> None:
    lines = render(ALONE).splitlines()
    assert lines[:3] == ["table inet romana-ovs", "delete table inet romana-ovs", "table inet romana-ovs {"]
    assert rule_count(render(ALONE)) == 15


def test_without_a_tunnel_there_are_no_rules_about_tunnels() -> None:
    assert "dport" not in render(ALONE)
    assert rules_of(WITH_TUNNEL, "tunnels") == [
        "udp dport { 6081 } ip saddr { 192.0.2.1, 192.0.2.4/30 } accept",
        "udp dport { 6081 } drop",
    ]
    assert rules_of(WITH_TUNNEL, "forwarded")[-1] == "udp dport { 6081 } drop"


def test_while_no_other_node_is_known_the_tables_alone_decide() -> None:
    """They accept tunnelled packets of known nodes only, and an nftables set cannot be empty."""
    alone = replace(WITH_TUNNEL, network=NETWORK)
    assert not rules_of(alone, "tunnels") and rules_of(alone, "forwarded")[-1] == "udp dport { 6081 } drop"


def test_devices_of_userspace_bridges_are_not_the_kernels() -> None:
    assert rules_of(ALONE, "ports") == ['iifname "rp*" drop']
    assert rules_of(IN_USERSPACE, "ports")[1:] == ['iifname { "eth0", "eth1" } drop']


def test_the_marks_of_kube_proxy_and_portmap_count() -> None:
    source = "snat ip to 192.0.0.8"
    assert [rule for rule in rules_of(ALONE, "translations") if "mark" in rule] == [
        f"meta mark & 0x00004000 == 0x00004000 {source}",
        f"meta mark & 0x00002000 == 0x00002000 {source}",
    ]
    assert f"meta mark & 0x00100000 == 0x00100000 {source}" in rules_of(IN_USERSPACE, "translations")
    assert len([rule for rule in rules_of(replace(ALONE, masquerade_bit=13), "translations") if "mark" in rule]) == 1


def test_ranges_of_services_neither_send_nor_leave_untranslated() -> None:
    with_services = replace(ALONE, network=replace(NETWORK, service_ranges=(IPv4Network("172.30.0.0/16"),)))
    assert rules_of(with_services, "pod-sources")[1] == 'iifname != "lo" ip saddr { 172.30.0.0/16 } drop'
    assert rules_of(with_services, "forwarded")[-1] == "ip daddr { 172.30.0.0/16 } drop"
    assert "172.30" not in render(ALONE)


@pytest.mark.root
@pytest.mark.skipif(not (shutil.which("nft") or os.environ.get("CI")), reason="needs nft")
@pytest.mark.parametrize("name", ALL)
def test_nft_takes_the_rules_and_lists_as_many(name: str) -> None:
    text = render(ALL[name])
    script = "nft -f - && nft -s -t list table inet romana-ovs"
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", script], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert rule_count(done.stdout) == rule_count(text) > 10


def test_messages_about_other_tables_are_passed_by() -> None:
    assert concerns_table(b"....romana-ovs\0...") and not concerns_table(b"....kube-proxy\0....")
