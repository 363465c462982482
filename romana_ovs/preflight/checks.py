"""Runs the checks of a host: a table of checks, each with the datapaths and fabrics that it concerns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from romana_ovs.model.errors import Severity
from romana_ovs.model.settings import Settings
from romana_ovs.preflight import cluster_checks, kernel_checks, network_checks, runtime_checks, switch_checks
from romana_ovs.preflight.facts import CniConfiguration, HostFacts, Unread, UnreadFact
from romana_ovs.preflight.findings import Finding, LeftOut, Report

Judge = Callable[[HostFacts, Settings], Iterator[Finding]]


class Check(NamedTuple):
    """A check: its name, what judges the facts, and what it concerns."""

    name: str
    title: str
    judge: Judge
    kernel_only: bool = False
    tunnel_only: bool = False
    switch_only: bool = False
    api_only: bool = False
    cni_only: bool = False
    by_command_only: bool = False
    """The controller sees this by itself."""


CHECKS = (
    Check("switch-version", "version of Open vSwitch", switch_checks.check_version, switch_only=True),
    Check("bridge", "settings of the bridge", switch_checks.check_bridges, by_command_only=True),
    Check(
        "controller",
        "connection to the controller",
        switch_checks.check_controller,
        switch_only=True,
        by_command_only=True,
    ),
    Check("datapath-features", "features of the datapath", switch_checks.check_features, switch_only=True),
    Check("kernel-modules", "modules of the kernel", kernel_checks.check_modules, kernel_only=True),
    Check("connection-table", "size of the connection table", kernel_checks.check_connection_table),
    Check("unanswered-connections", "unanswered connections", kernel_checks.check_unanswered, kernel_only=True),
    Check("fragments", "memory for fragments", kernel_checks.check_fragments, kernel_only=True),
    Check("address-overlap", "addresses and routes", network_checks.check_overlap),
    Check(
        "cluster-addresses",
        "Services and nodes",
        cluster_checks.check_cluster_addresses,
        api_only=True,
        by_command_only=True,
    ),
    Check("node", "this node in the cluster", cluster_checks.check_node, api_only=True, by_command_only=True),
    Check(
        "cni-configuration",
        "network of the runtime",
        runtime_checks.check_cni_configuration,
        cni_only=True,
        by_command_only=True,
    ),
    Check("clock", "clock", runtime_checks.check_clock, by_command_only=True),
    Check("forwarding", "rules of a host that forwards", network_checks.check_forwarding),
    Check("reverse-path-filter", "reverse path filter", network_checks.check_reverse_path),
    Check("pod-ports", "filter of ethertypes", network_checks.check_pod_ports),
    Check("mtu", "MTU below tunnels", network_checks.check_mtu, tunnel_only=True),
    Check("tunnel-port", "UDP port of tunnels", network_checks.check_tunnel_port, kernel_only=True, tunnel_only=True),
    Check(
        "tunnel-tracking",
        "tracking of tunnel packets",
        kernel_checks.check_tunnel_tracking,
        kernel_only=True,
        tunnel_only=True,
    ),
)


def check_host(facts: HostFacts, settings: Settings, *, by_controller: bool = False) -> Report:
    """The outcome of every check; `by_controller`: without those of what the controller sees anyway."""
    findings: list[Finding] = []
    passed: list[str] = []
    left_out: list[LeftOut] = []
    for check in CHECKS:
        reason = _why_left_out(check, facts, by_controller=by_controller)
        if reason:
            left_out.append(LeftOut(check.name, reason))
            continue
        found = list(_run(check, facts, settings))
        findings += found
        if not found:
            passed.append(check.name)
    return Report(tuple(findings), tuple(passed), tuple(left_out))


def _run(check: Check, facts: HostFacts, settings: Settings) -> Iterator[Finding]:
    """What a check finds; a fact that it cannot have is a note."""
    try:
        yield from check.judge(facts, settings)
    except UnreadFact as error:
        yield Finding(
            check.name,
            Severity.INFO,
            check.title,
            f"not checked: {error}",
            "Check it by hand, or run this as root on the node itself.",
        )


def _why_left_out(check: Check, facts: HostFacts, *, by_controller: bool) -> str:
    """Why a check does not concern this host, empty when it does."""
    if check.by_command_only and by_controller:
        return "the controller sees it by itself"
    if check.switch_only and isinstance(facts.bridges, Unread):
        return "Open vSwitch cannot be asked"
    if check.kernel_only and facts.userspace:
        return "the bridge has the userspace datapath"
    if check.api_only and facts.cluster is None:
        return "the settings name no API server"
    if check.cni_only and (facts.cni is None or isinstance(facts.cni, CniConfiguration) and not facts.cni.files):
        return "no network is configured for CNI"
    if check.tunnel_only and facts.tunnel is None:
        return "there is no bridge with a tunnel port"
    return ""
