"""Judges the network of a host: addresses and routes, forwarding, the MTU below tunnels, and their UDP port."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from romana_ovs.model.bridge import DatapathType, IngressHook
from romana_ovs.model.errors import Severity
from romana_ovs.model.settings import Settings
from romana_ovs.preflight.facts import HostFacts, UnreadFact, known
from romana_ovs.preflight.findings import Finding

TUNNEL_OVERHEAD = 50
"""Bytes that VXLAN, and Geneve without options, add over IPv4."""
RULES_TABLE = "inet romana-ovs"
"""The table of etc/nftables/forwarding-node.nft."""
STRICT = 1
"""The value of rp_filter that drops packets whose source is reached by another device (ip-sysctl of the kernel)."""
LOOPBACK = "lo"
FORWARDING = "net.ipv4.ip_forward"
ALL_DEVICES = "all"
"""In place of a device: the value that holds for every one whose own is not higher (rp_filter)."""

SHOWN = 3
"""How many ports a finding names."""


def rp_filter(device: str) -> str:
    """The sysctl of a device's reverse path filter."""
    return f"net.ipv4.conf.{device}.rp_filter"


def check_overlap(facts: HostFacts, settings: Settings) -> Iterator[Finding]:
    """Whether addresses and routes of the host lie in the pods' network. Raises UnreadFact."""
    network, bridge = settings.network, facts.bridge_name
    for link in known(facts.links):
        for address in link.addresses:
            if link.name not in (bridge, LOOPBACK) and address.ip in network:
                yield Finding(
                    "address-overlap",
                    Severity.ERROR,
                    f"address {address} of {link.name}",
                    f"it lies in the pods' network {network}: the tables take it for a pod's, and pods cannot reach it",
                    "Give the setting network a range that neither nodes nor Services use.",
                )
    routes = known(facts.routes)
    to_bridge = any(route.device == bridge and route.network.supernet_of(network) for route in routes)
    for route in routes:
        if route.device == bridge or not route.network.prefixlen:
            continue
        subject = f"route {route.network} of {route.device}"
        if route.network.subnet_of(network):
            yield Finding(
                "address-overlap",
                Severity.ERROR,
                subject,
                f"it lies in the pods' network {network}: this host does not reach those addresses by the bridge",
                "Give the setting network a range that no other network uses, or remove the route.",
            )
        elif route.network.supernet_of(network) and not to_bridge:
            yield Finding(
                "address-overlap",
                Severity.WARNING,
                subject,
                f"it contains the pods' network {network}, and no route leads to the bridge",
                f"Run: ip route add {network} dev {bridge}.",
            )


def check_mtu(facts: HostFacts, _settings: Settings) -> Iterator[Finding]:
    """Whether the largest packets of pods fit into tunnel packets. Raises UnreadFact."""
    bridge, tunnel = facts.bridge, facts.tunnel
    port_mtu = bridge.port_mtu if bridge is not None else None
    if tunnel is None or port_mtu is None:
        return
    address = tunnel.local_address
    below = next((link for link in known(facts.links) if any(each.ip == address for each in link.addresses)), None)
    if below is None:
        raise UnreadFact(f"no device has the tunnel's address {address or ''}".rstrip())
    if port_mtu + TUNNEL_OVERHEAD > below.mtu:
        yield Finding(
            "mtu",
            Severity.WARNING,
            f"ports of pods on {facts.bridge_name}",
            f"their MTU {port_mtu} and {TUNNEL_OVERHEAD} bytes of a tunnel exceed that of {below.name}, {below.mtu}: "
            "full packets to other nodes are lost",
            f"Set the MTU of pods to {below.mtu - TUNNEL_OVERHEAD}, or that of {below.name} to "
            f"{port_mtu + TUNNEL_OVERHEAD}.",
        )


def check_forwarding(facts: HostFacts, _settings: Settings) -> Iterator[Finding]:
    """Whether a host that forwards has the rules for it. Raises UnreadFact."""
    if not facts.number(FORWARDING):
        if facts.has_plugin:
            yield Finding(
                "forwarding",
                Severity.ERROR,
                f"{FORWARDING} = 0",
                "this host does not forward, so its pods reach neither Services nor what is outside",
                f"Start romana-ovs attach, which sets it (without --no-nftables), or run: sysctl -w {FORWARDING}=1.",
            )
        return
    ruleset, userspace = known(facts.ruleset), facts.userspace
    if RULES_TABLE not in ruleset.tables:
        reason = (
            "this host forwards, also frames of pods past the bridge, so no policy holds for them"
            if userspace
            else "this host forwards, and others' packets may get its address, so that policies take them for its own"
        )
        yield Finding(
            "forwarding",
            Severity.ERROR if userspace else Severity.WARNING,
            f"{FORWARDING} = 1",
            f"{reason}: the table {RULES_TABLE} is missing",
            "Start romana-ovs attach, which keeps that table, or run nft -f etc/nftables/forwarding-node.nft with this "
            f"host's values, or set {FORWARDING} to 0.",
        )
    for chain in ruleset.forward_drops:
        yield Finding(
            "forwarding",
            Severity.WARNING,
            f"chain {chain}",
            "it drops what this host forwards unless a rule accepts it, so pods may reach nothing outside",
            f"Add a rule to it that accepts what the bridge sends and receives: iptables -I FORWARD -i "
            f"{facts.bridge_name} -j ACCEPT, and the same with -o.",
        )


def check_reverse_path(facts: HostFacts, settings: Settings) -> Iterator[Finding]:
    """Whether the kernel drops what pods send to this host. Raises UnreadFact."""
    name = facts.bridge_name
    if not any(link.name == name and link.addresses for link in known(facts.links)):
        return
    strict = max(facts.number(rp_filter(each)) for each in (ALL_DEVICES, name)) == STRICT
    back = any(route.device == name and route.network.supernet_of(settings.network) for route in known(facts.routes))
    if strict and not back:
        yield Finding(
            "reverse-path-filter",
            Severity.WARNING,
            rp_filter(name),
            f"it is strict, and no route to {settings.network} leads to {name}: this host drops what pods send to it",
            f"Run: ip route add {settings.network} dev {name}, or sysctl -w {rp_filter(name)}=2.",
        )


def check_tunnel_port(facts: HostFacts, _settings: Settings) -> Iterator[Finding]:
    """Whether the tunnel port works and has its UDP port to itself. Raises UnreadFact."""
    tunnel = facts.tunnel
    if tunnel is None:
        return
    port = tunnel.udp_port
    others = [link for link in known(facts.links) if link.udp_port == port and link.master != "ovs-system"]
    for link in others:
        yield Finding(
            "tunnel-port",
            Severity.ERROR,
            f"UDP port {port}",
            f"the device {link.name} ({link.kind}) has it, which belongs to another network",
            "Remove that device, or give the tunnel another port (options:dst_port, the same on all nodes).",
        )
    if tunnel.error and not others:
        yield Finding(
            "tunnel-port",
            Severity.ERROR,
            f"{tunnel.type} port of {facts.bridge_name}",
            f"Open vSwitch cannot use it: {tunnel.error.rstrip('.')}",
            f"See the log of ovs-vswitchd; the kernel needs the module {tunnel.type}, and UDP port {port} has to be "
            "free (ss -lun).",
        )


def check_pod_ports(facts: HostFacts, _settings: Settings) -> Iterator[Finding]:
    """Whether frames other than IPv4 and ARP are dropped at pods' ports, before the datapath. Raises UnreadFact."""
    filters = known(facts.filters)
    # The kernel's datapath comes after both hooks.
    useful = {IngressHook.XDP} if facts.userspace else set(IngressHook)
    open_ports = sorted(name for name, hooks in filters.items() if not hooks & useful)
    if open_ports:
        yield Finding(
            "pod-ports",
            Severity.WARNING,
            _ports(open_ports),
            "frames of every ethertype reach Open vSwitch, and each ethertype makes a flow of its datapath",
            _filter_command(facts, open_ports),
        )
    slow = [] if facts.userspace else sorted(name for name, hooks in filters.items() if IngressHook.XDP in hooks)
    if slow:
        yield Finding(
            "pod-ports",
            Severity.INFO,
            _ports(slow),
            "the filter of ethertypes is an XDP program, as the userspace datapath needs it: it divides the pod's TCP "
            "segments into packets of one MTU",
            _filter_command(facts, slow),
        )


def _ports(names: Sequence[str]) -> str:
    return f"port {names[0]}" if len(names) == 1 else f"{len(names)} ports of pods"


def _filter_command(facts: HostFacts, names: Sequence[str]) -> str:
    datapath = DatapathType.NETDEV if facts.userspace else DatapathType.SYSTEM
    devices = " ".join(names) if len(names) <= SHOWN else f"{' '.join(names[:SHOWN])} and the others"
    return f"Run: python -m romana_ovs.switch.ethertypes --datapath {datapath.value} {devices}."
