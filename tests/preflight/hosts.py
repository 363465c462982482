"""Hosts as facts: one that meets every requirement, on each datapath."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from types import MappingProxyType

from romana_ovs.model.cluster import Cluster
from romana_ovs.model.objects import Node
from romana_ovs.model.services import ServiceCIDR
from romana_ovs.preflight.facts import (
    CONFLIST,
    CniConfiguration,
    ConntrackTable,
    ControllerTarget,
    HostFacts,
    KernelModules,
    Link,
    Route,
    Ruleset,
    SwitchBridge,
    Tunnel,
)
from romana_ovs.preflight.switch_checks import REQUIRED_FEATURES

MODULES = frozenset({"openvswitch", "vxlan", "geneve", "nf_conntrack_netlink"})
SYSCTLS = MappingProxyType(
    {
        "net.ipv4.ipfrag_high_thresh": str(1 << 26),
        "net.ipv4.ipfrag_time": "30",
        "net.netfilter.nf_conntrack_tcp_timeout_syn_sent": "120",
        "net.netfilter.nf_conntrack_udp_timeout": "30",
        "net.netfilter.nf_conntrack_icmp_timeout": "30",
        "net.ipv4.ip_forward": "1",
        "net.ipv4.conf.all.rp_filter": "0",
        "net.ipv4.conf.br-int.rp_filter": "0",
    }
)
UNTRACKED = MappingProxyType({"prerouting": frozenset({4789, 6081}), "output": frozenset({4789, 6081})})
TUNNEL = Tunnel("vxlan", 4789, IPv4Address("192.0.2.1"))
CONTROLLER = ControllerTarget("tcp:127.0.0.1:6653", "out-of-band", "service", connected=True)
BRIDGE = SwitchBridge("br-int", "system", controllers=(CONTROLLER,), tunnel=TUNNEL, port_mtu=1450, node="n1")
USERSPACE_BRIDGE = replace(BRIDGE, datapath="netdev")
UPLINK = Link("eth0", 1500, (IPv4Interface("192.0.2.1/24"),))
GATEWAY = Link("br-int", 1450, (IPv4Interface("10.0.0.1/32"),))
ROUTES = (
    Route(IPv4Network("0.0.0.0/0"), "eth0"),
    Route(IPv4Network("192.0.2.0/24"), "eth0"),
    Route(IPv4Network("10.0.0.0/8"), "br-int"),
)
SERVICES = MappingProxyType({"kubernetes": ServiceCIDR("kubernetes", (IPv4Network("172.30.0.0/16"),))})
GOOD = HostFacts(
    version="3.3.1",
    bridges=(BRIDGE,),
    features={"br-int": dict.fromkeys(REQUIRED_FEATURES, "Yes")},
    conntrack=ConntrackTable(1 << 20),
    modules=KernelModules(MODULES),
    sysctls=SYSCTLS,
    links=(UPLINK, GATEWAY, Link("vxlan_sys_4789", 65000, (), "vxlan", 4789, "ovs-system")),
    routes=ROUTES,
    ruleset=Ruleset(UNTRACKED, tables=frozenset({"inet romana-ovs"})),
    listening=frozenset({22, 6653}),
    cni=CniConfiguration("/etc/cni/net.d", (CONFLIST,)),
    cluster=Cluster(nodes={"n1": Node("n1", addresses=(IPv4Address("192.0.2.1"),))}, service_cidrs=SERVICES),
)
"""A host with the kernel's datapath and a VXLAN port that has all that it needs."""
