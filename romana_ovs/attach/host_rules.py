"""Renders the nftables rules of a node: what its kernel may forward, translate and accept beside the bridge.

docs/nodes.md has them rule by rule. Sources: nft(8); kube-proxy's masqueradeBit; the CNI plugin portmap (markMasqBit).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from romana_ovs.attach.attachment import DEVICE_PREFIX
from romana_ovs.model.node_network import NodeNetwork

FAMILY, TABLE = "inet", "romana-ovs"
FORWARDED_SOURCE = IPv4Address("192.0.0.8")
"""The source of what a node forwards to its own pods in place of its own address: the dummy address of RFC 7600."""
OWN_SERVICES = "own-services"
"""The set of pods whose connections have been translated lately, each twice: (address, address)."""
PORTMAP_BIT = 13
"""The mark bit by which portmap asks for masquerade."""


@dataclass(frozen=True, slots=True)
class HostRules:
    """What the rules depend on.

    `gateway` is the device of the bridge's local port, `tunnel_ports` the UDP ports of its tunnels. `switch_devices`
    are devices that belong to userspace bridges, beside pods'. `masquerade_bit` is that of kube-proxy's mark.
    """

    gateway: str
    network: NodeNetwork
    tunnel_ports: frozenset[int] = frozenset()
    switch_devices: frozenset[str] = frozenset()
    masquerade_bit: int = 14


_OWN_SERVICES_SET = f"""\tset {OWN_SERVICES} {{
\t\ttype ipv4_addr . ipv4_addr
\t\tsize 65535
\t\tflags dynamic,timeout
\t\ttimeout 10s
\t}}
"""
_NO_RULES = ("table ", "delete ", "chain ", "type ", "set ", "size ", "flags ", "timeout ", "}")
"""How lines begin that are no rules."""


def render(rules: HostRules) -> str:
    """The input of `nft -f -` that replaces the table in one step."""
    chains = [
        _chain("ports", "filter hook prerouting priority raw - 10", _ports(rules)),
        _chain("pod-sources", "filter hook prerouting priority raw - 5", _pod_sources(rules)),
        _chain("translations", "nat hook postrouting priority srcnat - 10", _translations(rules)),
        _chain("forwarded-checked", "filter hook postrouting priority srcnat + 10", _checked(rules)),
        _chain("forwarded", "filter hook forward priority filter - 10", _forwarded(rules)),
        _chain(
            "redirects",
            "filter hook output priority filter - 10",
            [f"oifname {_quoted(rules.gateway)} icmp type redirect drop"],
        ),
    ]
    if rules.tunnel_ports:
        chains += _tunnel_chains(rules)
    name = f"table {FAMILY} {TABLE}"
    return f"{name}\ndelete {name}\n{name} {{\n{_OWN_SERVICES_SET}{''.join(chains)}}}\n"


def rule_count(text: str) -> int:
    """How many rules a rendered or listed table has."""
    lines = (line.strip() for line in text.splitlines())
    return sum(1 for line in lines if line and not line.startswith(_NO_RULES))


def _chain(name: str, hook: str, lines: Iterable[str]) -> str:
    body = "".join(f"\t\t{line}\n" for line in (f"type {hook}; policy accept;", *lines))
    return f"\tchain {name} {{\n{body}\t}}\n"


def _ports(rules: HostRules) -> list[str]:
    """With the userspace datapath the kernel, too, receives the frames of every port; none may bypass the bridge."""
    devices = [f'iifname "{DEVICE_PREFIX}*" drop']
    if rules.switch_devices:
        devices.append(f"iifname {_set(map(_quoted, sorted(rules.switch_devices)))} drop")
    return devices


def _pod_sources(rules: HostRules) -> list[str]:
    """Pods send by the gateway only: their addresses from elsewhere are forged. Addresses of Services send nothing."""
    known = _set((_quoted("lo"), _quoted(rules.gateway)))
    lines = [f"iifname != {known} ip saddr {rules.network.network} drop"]
    if rules.network.service_ranges:
        lines.append(f'iifname != "lo" ip saddr {_services(rules)} drop')
    return lines


def _translations(rules: HostRules) -> list[str]:
    """Pods leave the cluster with the node's address; what the node forwards to its own pods is not the node.

    Before kube-proxy, and only once for a connection.
    """
    network = rules.network.network
    away = f"oifname != {_set((_quoted('lo'), _quoted(rules.gateway)))}"
    marks = [1 << rules.masquerade_bit, 1 << PORTMAP_BIT]
    return [
        f"{away} ip saddr {network} ip daddr != {network} masquerade fully-random",
        f"oifname != {_quoted(rules.gateway)} accept",
        "fib saddr type local accept",
        _elsewhere(rules),
        # kube-proxy masquerades a pod's packets to itself without a mark. nftables cannot compare two fields of a
        # packet, so the source is put into a set twice, and source and destination are looked up there.
        f"ct status dnat update @{OWN_SERVICES} {{ ip saddr . ip saddr }}",
        f"ip saddr . ip daddr @{OWN_SERVICES} snat ip to {FORWARDED_SOURCE}",
        *(f"meta mark & {mark:#010x} == {mark:#010x} snat ip to {FORWARDED_SOURCE}" for mark in dict.fromkeys(marks)),
    ]


def _checked(rules: HostRules) -> list[str]:
    """What another rule has masqueraded with the node's address does not reach the node's own pods."""
    return [
        f"oifname != {_quoted(rules.gateway)} accept",
        _elsewhere(rules),
        "meta iif != 0 ct direction original fib saddr type local drop",
    ]


def _elsewhere(rules: HostRules) -> str:
    """Accepts what goes to pods of other nodes: for these the node's own address is outside, and replies find it."""
    network = rules.network
    share = f"ip daddr & {network.pods_mask} != {network.pods_value}"
    return f"ip daddr {network.network} {share} accept"


def _forwarded(rules: HostRules) -> list[str]:
    """What a pod sends to FORWARDED_SOURCE is no reply, and would leave the node."""
    lines = [f"ip daddr {FORWARDED_SOURCE} drop"]
    if rules.network.service_ranges:
        # No proxy has translated it, and nobody outside may answer in the place of a Service.
        lines.append(f"ip daddr {_services(rules)} drop")
    if rules.tunnel_ports:
        # The node's own address would be the source, which other nodes take for a node's tunnel.
        lines.append(f"udp dport {_ports_set(rules)} drop")
    return lines


def _tunnel_chains(rules: HostRules) -> list[str]:
    """A sender to a tunnel port can claim any identity: only known nodes may, and tunnels are not tracked."""
    ports, peers = _ports_set(rules), rules.network.tunnel_peers
    chains = [
        # For Services that bypass the forward hook (IPVS); before masquerading the source is no address of this node.
        _chain(
            "tunnels-translated",
            "filter hook postrouting priority srcnat - 20",
            [f"udp dport {ports} fib saddr type != local drop"],
        )
    ]
    if peers:
        known = _set(map(_network, peers))
        chains += [
            _chain(
                "tunnels",
                "filter hook input priority filter - 10",
                [f"udp dport {ports} ip saddr {known} accept", f"udp dport {ports} drop"],
            ),
            _chain(
                "tunnels-untracked-in",
                "filter hook prerouting priority raw",
                [f"udp dport {ports} ip saddr {known} fib daddr type local notrack"],
            ),
            _chain(
                "tunnels-untracked-out",
                "filter hook output priority raw",
                [f"udp dport {ports} ip daddr {known} notrack"],
            ),
        ]
    return chains


def _ports_set(rules: HostRules) -> str:
    return _set(map(str, sorted(rules.tunnel_ports)))


def _services(rules: HostRules) -> str:
    return _set(map(_network, rules.network.service_ranges))


def _network(network: IPv4Network) -> str:
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)


def _quoted(device: str) -> str:
    return f'"{device}"'


def _set(elements: Iterable[str]) -> str:
    return f"{{ {', '.join(elements)} }}"
