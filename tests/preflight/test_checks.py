"""Every check with the facts that it passes and the facts that it does not: severity, subject, reason, action."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import NamedTuple

import pytest

from romana_ovs.model.bridge import IngressHook
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import Severity
from romana_ovs.model.objects import Node
from romana_ovs.model.services import ServiceCIDR
from romana_ovs.model.settings import Settings
from romana_ovs.preflight.checks import CHECKS, check_host
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
    Unread,
)
from romana_ovs.preflight.findings import Finding, LeftOut
from tests.preflight.hosts import (
    BRIDGE,
    CONTROLLER,
    GATEWAY,
    GOOD,
    MODULES,
    ROUTES,
    SYSCTLS,
    TUNNEL,
    UNTRACKED,
    UPLINK,
    USERSPACE_BRIDGE,
)

SETTINGS = Settings()
ERROR, WARNING, INFO = Severity.ERROR, Severity.WARNING, Severity.INFO
IN_BAND = replace(BRIDGE, controllers=(ControllerTarget("tcp:127.0.0.1:6653", type="service", connected=True),))
PRIMARY = replace(BRIDGE, controllers=(replace(CONTROLLER, type=""),))


class Row(NamedTuple):
    """Facts, and the finding that a check makes of them: its severity, and words of its sentences."""

    name: str
    facts: HostFacts
    check: str
    severity: Severity
    words: tuple[str, ...]
    settings: Settings = SETTINGS


def table(size: int, limits: dict[int, int]) -> HostFacts:
    """A host with this connection table."""
    return replace(GOOD, conntrack=ConntrackTable(size, limits))


def sysctl(**values: str) -> HostFacts:
    """A host with these values in place of good ones; `_` stands for the dots of names."""
    names = {name.replace(".", "_").replace("-", "_"): name for name in SYSCTLS}
    return replace(GOOD, sysctls={**SYSCTLS, **{names[name]: text for name, text in values.items()}})


def userspace(facts: HostFacts = GOOD) -> HostFacts:
    """The same host with the userspace datapath."""
    return replace(facts, bridges=(USERSPACE_BRIDGE,))


def with_bridge(**values: object) -> HostFacts:
    """A host whose bridge differs."""
    return replace(GOOD, bridges=(replace(BRIDGE, **values),))  # type: ignore[arg-type]


def filters(*hooks: IngressHook) -> HostFacts:
    """A host with the filter of ethertypes at the first of two ports there, and at the second as it should be."""
    return replace(GOOD, filters={"a-port": frozenset(hooks), "b-port": frozenset({IngressHook.TC})})


ROWS = (
    Row("unfiltered port", filters(), "pod-ports", WARNING, ("port a-port: frames", "--datapath system a-port.")),
    Row("XDP below the kernel's", filters(IngressHook.XDP), "pod-ports", INFO, ("XDP", "--datapath system a-port.")),
    Row(
        "tc below userspace",
        userspace(filters()),
        "pod-ports",
        WARNING,
        ("2 ports of pods: frames", "--datapath netdev a-port b-port."),
    ),
    Row(
        "many unfiltered ports",
        replace(GOOD, filters={f"p{number}": frozenset() for number in range(9)}),
        "pod-ports",
        WARNING,
        ("9 ports", "system p0 p1 p2 and the others."),
    ),
    Row("no libbpf", replace(GOOD, filters=Unread("no libbpf")), "pod-ports", INFO, ("not checked: no libbpf",)),
    Row("old switch", replace(GOOD, version="2.17.9"), "switch-version", ERROR, ("2.17.9", "3.1 or later")),
    Row("SCTP", userspace(replace(GOOD, version="3.1.0")), "switch-version", INFO, ("SCTP", "3.2 or later")),
    Row("no version", replace(GOOD, version="unknown"), "switch-version", INFO, ("not checked", "'unknown'")),
    Row(
        "no switch",
        replace(GOOD, bridges=Unread("x/db.sock: refused")),
        "bridge",
        ERROR,
        ("x/db.sock: refused", "--ovsdb"),
    ),
    Row("no bridge", replace(GOOD, bridges=()), "bridge", ERROR, ("no bridge", "fail_mode=secure")),
    Row("datapath", with_bridge(datapath="dummy"), "bridge", ERROR, ("'dummy'", "datapath_type=system")),
    Row(
        "standalone", with_bridge(fail_mode=""), "bridge", ERROR, ("forwards everything", "set-fail-mode br-int secure")
    ),
    Row("protocols", with_bridge(protocols=("OpenFlow13",)), "bridge", ERROR, ("OpenFlow13", "protocols=OpenFlow15")),
    Row("in-band", replace(GOOD, bridges=(IN_BAND,)), "bridge", WARNING, ("hidden flows", "out-of-band")),
    Row("primary", replace(GOOD, bridges=(PRIMARY,)), "bridge", WARNING, ("deletes all flows", "type=service")),
    Row("no controller", with_bridge(controllers=()), "controller", ERROR, ("no controller", "set-controller br-int")),
    Row(
        "not connected",
        with_bridge(controllers=(ControllerTarget("tcp:127.0.0.1:6653", "out-of-band", "service"),)),
        "controller",
        WARNING,
        ("controller tcp:127.0.0.1:6653, though a program listens there", "Start the controller"),
    ),
    Row(
        "nobody listens",
        with_bridge(controllers=(ControllerTarget("tcp:127.0.0.1:6654", "out-of-band", "service"),)),
        "controller",
        WARNING,
        ("controller tcp:127.0.0.1:6654, as no program listens there;",),
    ),
    Row(
        "controller elsewhere",
        with_bridge(controllers=(ControllerTarget("ssl:192.0.2.1", "out-of-band", "service"),)),
        "controller",
        WARNING,
        ("controller ssl:192.0.2.1; its tables",),
    ),
    Row(
        "features",
        replace(GOOD, features={"br-int": {"CT label": "No", "CT zone": "No", "Recirc": "Yes"}}),
        "datapath-features",
        ERROR,
        ("CT zone, CT label", "the other datapath"),
    ),
    Row(
        "loadable",
        replace(GOOD, modules=KernelModules(MODULES - {"nf_conntrack_netlink"}, frozenset({"nf_conntrack_netlink"}))),
        "kernel-modules",
        WARNING,
        ("module nf_conntrack_netlink", "is not loaded", "modprobe nf_conntrack_netlink"),
    ),
    Row(
        "no datapath module",
        replace(GOOD, modules=KernelModules(MODULES - {"openvswitch"})),
        "kernel-modules",
        ERROR,
        ("module openvswitch", "does not exist for this kernel", "datapath_type=netdev"),
    ),
    Row(
        "no tunnel module",
        replace(GOOD, modules=KernelModules(MODULES - {"vxlan"})),
        "kernel-modules",
        ERROR,
        ("module vxlan", "a vxlan port"),
    ),
    Row(
        "large setting",
        table(262_144, {}),
        "connection-table",
        INFO,
        ("table of 262144", "may have 65536", "nf_conntrack_max=1000000"),
    ),
    Row(
        "many tenants",
        table(262_144, {0x2000: 131_072, 0x2001: 65_536, 0x2002: 65_536}),
        "connection-table",
        WARNING,
        ("2 tenants add up to 131072", "98304 are left", "at most 49152", "nf_conntrack_max=1333334"),
    ),
    Row(
        "many tenants in userspace",
        userspace(table(3_000_000, {0x1000 + number: 250_000 for number in range(1, 8)})),
        "connection-table",
        WARNING,
        ("7 tenants add up to 1750000", "at most 214285", "ct-set-maxconns 3500000"),
    ),
    Row(
        "no limit",
        GOOD,
        "connection-table",
        WARNING,
        ("tenant_connections is 0", "nor does this host"),
        replace(SETTINGS, tenant_connections=0),
    ),
    Row(
        "no limit in userspace",
        userspace(),
        "connection-table",
        INFO,
        ("tenant_connections is 0",),
        replace(SETTINGS, tenant_connections=0),
    ),
    Row(
        "no table",
        replace(GOOD, conntrack=Unread("unknown size")),
        "connection-table",
        INFO,
        ("size of the connection table: not checked: unknown size", "as root"),
    ),
    Row(
        "unanswered",
        table(262_144, {}),
        "unanswered-connections",
        WARNING,
        ("syn_sent = 120", "130000 unanswered", "its tenant has 65536", "syn_sent=30,"),
    ),
    Row(
        "unanswered, small table",
        table(65_536, {}),
        "unanswered-connections",
        WARNING,
        ("its tenant has 16384", "new_connections to at most 409", "syn_sent=30"),
    ),
    Row(
        "unanswered, no limit of tenants",
        table(100_000, {}),
        "unanswered-connections",
        WARNING,
        ("its tenant has 100000",),
        replace(SETTINGS, tenant_connections=0),
    ),
    Row(
        "no limit of new connections",
        GOOD,
        "unanswered-connections",
        WARNING,
        ("new_connections is 0",),
        replace(SETTINGS, new_connections=0),
    ),
    Row(
        "fragments",
        sysctl(net_ipv4_ipfrag_high_thresh="4194304"),
        "fragments",
        WARNING,
        ("3200 fragments", "about 922", "ipfrag_high_thresh=43670400"),
    ),
    Row("all fragments", GOOD, "fragments", WARNING, ("tenant_fragments is 0",), replace(SETTINGS, tenant_fragments=0)),
    Row(
        "unread sysctl",
        sysctl(net_ipv4_ipfrag_time=""),
        "fragments",
        INFO,
        ("not checked: net.ipv4.ipfrag_time cannot be read",),
    ),
    Row(
        "address",
        replace(GOOD, links=(replace(UPLINK, addresses=(IPv4Interface("10.8.0.5/16"), *UPLINK.addresses)), GATEWAY)),
        "address-overlap",
        ERROR,
        ("address 10.8.0.5/16 of eth0", "10.0.0.0/8", "the setting network"),
    ),
    Row(
        "route",
        replace(GOOD, routes=(*ROUTES, Route(IPv4Network("10.244.0.0/24"), "cni0"))),
        "address-overlap",
        ERROR,
        ("route 10.244.0.0/24 of cni0", "remove the route"),
    ),
    Row(
        "wider route",
        replace(GOOD, routes=(Route(IPv4Network("10.0.0.0/7"), "eth0"),)),
        "address-overlap",
        WARNING,
        ("10.0.0.0/7", "ip route add 10.0.0.0/8 dev br-int"),
    ),
    Row(
        "Services in the pods' network",
        replace(
            GOOD,
            cluster=Cluster(service_cidrs={"kubernetes": ServiceCIDR("kubernetes", (IPv4Network("10.96.0.0/12"),))}),
        ),
        "cluster-addresses",
        ERROR,
        ("ServiceCIDR kubernetes", "10.96.0.0/12", "10.0.0.0/8", "Give the setting network a range", "100.64.0.0/10"),
    ),
    Row(
        "a node in the pods' network",
        replace(GOOD, cluster=Cluster(nodes={"n1": Node("n1", addresses=(IPv4Address("10.8.0.5"),))})),
        "cluster-addresses",
        ERROR,
        ("Node n1", "10.8.0.5", "10.0.0.0/8", "Give the setting network a range"),
    ),
    Row(
        "no API server",
        replace(GOOD, cluster=Unread("https://192.0.2.1:6443 cannot be reached")),
        "cluster-addresses",
        INFO,
        ("not checked: https://192.0.2.1:6443 cannot be reached",),
    ),
    Row(
        "forwarding",
        replace(GOOD, ruleset=Ruleset(UNTRACKED)),
        "forwarding",
        WARNING,
        ("inet romana-ovs is missing", "Start romana-ovs attach", "forwarding-node.nft"),
    ),
    Row(
        "not forwarding",
        sysctl(net_ipv4_ip_forward="0"),
        "forwarding",
        ERROR,
        ("net.ipv4.ip_forward = 0", "neither Services nor", "sysctl -w net.ipv4.ip_forward=1"),
    ),
    Row(
        "forwarding in userspace",
        userspace(replace(GOOD, ruleset=Ruleset(UNTRACKED))),
        "forwarding",
        ERROR,
        ("past the bridge", "forwarding-node.nft"),
    ),
    Row(
        "another table's drop",
        replace(
            sysctl(net_ipv4_ip_forward="1"),
            ruleset=Ruleset(UNTRACKED, ("ip filter FORWARD",), frozenset({"inet romana-ovs"})),
        ),
        "forwarding",
        WARNING,
        ("chain ip filter FORWARD", "a rule to it that accepts", "iptables -I FORWARD -i br-int -j ACCEPT"),
    ),
    Row(
        "another network first",
        replace(GOOD, cni=CniConfiguration("/etc/cni/net.d", ("05-cilium.conflist", CONFLIST))),
        "cni-configuration",
        ERROR,
        ("/etc/cni/net.d/05-cilium.conflist", "precedes 10-romana-ovs.conflist: pods get that", "Remove the file"),
    ),
    Row(
        "another network behind",
        replace(GOOD, cni=CniConfiguration("/etc/cni/net.d", (CONFLIST, "87-podman.conflist"))),
        "cni-configuration",
        WARNING,
        ("87-podman.conflist", "takes the place of 10-romana-ovs.conflist if that is gone"),
    ),
    Row(
        "no portmap",
        replace(GOOD, cni=CniConfiguration("/etc/cni/net.d", (CONFLIST,), ("portmap",))),
        "cni-configuration",
        ERROR,
        ("plugin portmap", "no pod starts", "--no-portmap"),
    ),
    Row(
        "unreadable network",
        replace(GOOD, cni=Unread("/etc/cni/net.d: Permission denied")),
        "cni-configuration",
        INFO,
        ("not checked: /etc/cni/net.d: Permission denied",),
    ),
    Row("clock", replace(GOOD, clock_synchronized=False), "clock", INFO, ("no program synchronizes it", "chrony")),
    Row(
        "unknown node", with_bridge(node="n2"), "node", ERROR, ("no Node of this name", "romana-ovs controller --node")
    ),
    Row(
        "another address",
        with_bridge(tunnel=replace(TUNNEL, local_address=IPv4Address("198.51.100.1"))),
        "node",
        ERROR,
        ("address 198.51.100.1, and the Node n1 192.0.2.1", "kubelet --node-ip"),
    ),
    Row(
        "strict",
        replace(sysctl(net_ipv4_conf_all_rp_filter="1"), routes=()),
        "reverse-path-filter",
        WARNING,
        ("net.ipv4.conf.br-int.rp_filter", "ip route add 10.0.0.0/8 dev br-int"),
    ),
    Row(
        "MTU",
        with_bridge(port_mtu=1500),
        "mtu",
        WARNING,
        ("MTU 1500 and 50 bytes", "eth0, 1500", "of pods to 1450, or that of eth0 to 1550"),
    ),
    Row(
        "no tunnel address",
        with_bridge(tunnel=replace(TUNNEL, local_address=IPv4Address("192.0.2.9"))),
        "mtu",
        INFO,
        ("not checked: no device has the tunnel's address 192.0.2.9",),
    ),
    Row(
        "another network's tunnel",
        replace(GOOD, links=(UPLINK, GATEWAY, Link("flannel.1", 1450, (), "vxlan", 4789))),
        "tunnel-port",
        ERROR,
        ("UDP port 4789", "flannel.1 (vxlan)", "options:dst_port"),
    ),
    Row(
        "failed tunnel",
        with_bridge(tunnel=replace(TUNNEL, error="could not open network device tunnel (Address already in use)")),
        "tunnel-port",
        ERROR,
        ("Address already in use", "ss -lun"),
    ),
    Row(
        "tracked tunnel",
        replace(GOOD, ruleset=Ruleset({"prerouting": frozenset({4789})})),
        "tunnel-tracking",
        WARNING,
        ("UDP port 4789", "(output)", "untracked-tunnels.nft"),
    ),
    Row(
        "unread rules",
        replace(GOOD, ruleset=Unread("Operation not permitted")),
        "tunnel-tracking",
        INFO,
        ("not checked: Operation not permitted",),
    ),
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_findings(row: Row) -> None:
    findings = check_host(row.facts, row.settings).findings
    assert [each.check for each in findings].count(row.check) == 1
    finding = next(each for each in findings if each.check == row.check)
    assert finding.severity is row.severity
    assert all(word in str(finding) for word in row.words), str(finding)
    assert finding.action.endswith(".") and not finding.reason.endswith(".")


def test_every_check_has_a_row() -> None:
    assert {row.check for row in ROWS} == {check.name for check in CHECKS}


def test_a_good_host_has_no_finding() -> None:
    report = check_host(GOOD, SETTINGS)
    assert report.findings == () and report.left_out == ()
    assert report.passed == tuple(check.name for check in CHECKS)


def test_a_good_host_with_the_userspace_datapath() -> None:
    facts = replace(userspace(), modules=Unread("no modules"))
    report = check_host(facts, SETTINGS)
    assert report.findings == ()
    assert [each.check for each in report.left_out] == [
        "kernel-modules",
        "unanswered-connections",
        "fragments",
        "tunnel-port",
        "tunnel-tracking",
    ]
    assert {each.reason for each in report.left_out} == {"the bridge has the userspace datapath"}


def test_without_a_tunnel_port_its_checks_are_left_out() -> None:
    report = check_host(with_bridge(tunnel=None), SETTINGS)
    assert [each.check for each in report.left_out] == ["mtu", "tunnel-port", "tunnel-tracking"]


def test_without_open_vswitch_only_the_host_is_checked() -> None:
    unread = Unread("x/db.sock: No such file or directory")
    report = check_host(replace(GOOD, bridges=unread, version=unread, features=unread), SETTINGS)
    assert [each.check for each in report.findings] == ["bridge"]
    assert LeftOut("switch-version", "Open vSwitch cannot be asked") in report.left_out


def test_the_controller_does_not_check_what_it_sees_itself() -> None:
    facts = with_bridge(controllers=(ControllerTarget("unix:controller.sock", type="service"),), fail_mode="")
    assert [each.check for each in check_host(facts, SETTINGS).findings] == ["bridge", "controller"]
    report = check_host(facts, SETTINGS, by_controller=True)
    assert report.findings == ()
    seen = {"bridge", "clock", "cluster-addresses", "cni-configuration", "controller", "node"}
    assert {each.check for each in report.left_out} == seen


def test_without_a_network_of_cni_its_check_is_left_out() -> None:
    for cni in (None, CniConfiguration("/etc/cni/net.d")):
        report = check_host(replace(sysctl(net_ipv4_ip_forward="0"), cni=cni), SETTINGS)
        assert [each.check for each in report.left_out] == ["cni-configuration"] and not report.findings


def test_findings_by_severity() -> None:
    report = check_host(replace(GOOD, version="2.17.0", clock_synchronized=False), SETTINGS)
    assert [each.severity for each in report.at_least(INFO)] == [ERROR, INFO]
    assert [each.severity for each in report.at_least(WARNING)] == [ERROR]
    assert str(Finding("a", ERROR, "this", "is so", "Do that.")) == "this: is so. Do that."
