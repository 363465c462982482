"""Keeps the node's own address, its route to all pods, and the host's rules, for the bridge's local port (the gateway).

That device ends when ovs-vswitchd is told to clean up (ovs-appctl exit --cleanup), and the next one has neither. So
what is there is compared whenever the kernel or the database reports a change, and every few seconds.
Sources: rtnetlink(7); ip-route(8); Linux Documentation/networking/ip-sysctl.rst.
"""

from __future__ import annotations

import logging
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from romana_ovs.attach import errors, nftables
from romana_ovs.attach.attachment import BridgeState
from romana_ovs.attach.database import Database
from romana_ovs.attach.errors import CniError
from romana_ovs.attach.host_rules import FAMILY, TABLE, HostRules
from romana_ovs.attach.namespaces import NEXT_HOP_LLADDR, netlink_errors, set_next_hop, set_up
from romana_ovs.attach.nftables import NftTable
from romana_ovs.attach.results import NEXT_HOP, mac_of
from romana_ovs.model.node_network import NodeNetwork

LOG = logging.getLogger("romana_ovs.attach")

COMPARE_SECONDS = 5.0
"""Between two comparisons when nothing reports a change."""
PAUSE_SECONDS = 0.1
"""Between two comparisons at least."""
SYSCTLS = (Path("/host/proc/sys/net/ipv4"), Path("/proc/sys/net/ipv4"))
"""Where sysctls can be set, the first that exists: that of a container is read-only, so the manifest mounts the node's.

Either shows the values of the network namespace of whoever asks.
"""
_LOOSE = "2"
"""rp_filter: the source of a packet must be reachable, by any device. Pods' packets come back by the gateway."""
_IFF_UP = 1
_RTMGRP_LINK, _RTMGRP_NEIGH, _RTMGRP_IPV4_IFADDR, _RTMGRP_IPV4_ROUTE = 0x1, 0x4, 0x10, 0x40
_RTM_NEWLINK, _RTM_DELLINK, _RTM_DELADDR, _RTM_DELROUTE, _RTM_DELNEIGH = 16, 17, 21, 25, 29
Work = Callable[[BridgeState, NodeNetwork], None]
_NETLINK_HEADER = struct.Struct("=LHHLL")


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """What of the host is kept: the device's MTU in bytes, and the rules unless `nftables` is False.

    `masquerade_bit` is the bit of the mark by which kube-proxy asks for masquerade (its masqueradeBit).
    """

    mtu: int
    nftables: bool = True
    masquerade_bit: int = 14


class Gateway:
    """Configures the local port of `bridge`, and the host, from a thread of its own."""

    def __init__(self, bridge: str, settings: GatewaySettings, database: Database) -> None:
        self._bridge = bridge
        self._settings = settings
        self._database = database
        self._table = NftTable()
        self._host_changed = threading.Event()
        self._failures: dict[Work, str] = {}

    def start(self) -> None:
        """Begin, until the process ends."""
        threading.Thread(target=self._watch, name="netlink", daemon=True).start()
        threading.Thread(target=self._run, name="gateway", daemon=True).start()

    def _run(self) -> None:
        while True:
            state = self._database.state
            self._host_changed.clear()
            if state.connected and state.node_network is not None:
                if self._settings.nftables:
                    # First: what the kernel may forward and what not, before it forwards.
                    self._attempt(self._set_rules, state, state.node_network)
                self._attempt(self._set_device, state, state.node_network)
            time.sleep(PAUSE_SECONDS)
            self._wait(state)

    def _wait(self, before: BridgeState) -> None:
        """Wait until something of the gateway may have changed."""

        def check(state: BridgeState) -> bool:
            return self._host_changed.is_set() or _concerns(state) != _concerns(before)

        self._database.wait_until(check, time.monotonic() + COMPARE_SECONDS)

    def _attempt(self, work: Work, state: BridgeState, network: NodeNetwork) -> None:
        """Do the work. A failure is logged once, and tried again."""
        try:
            work(state, network)
            self._failures.pop(work, None)
        except (CniError, OSError) as error:
            if self._failures.get(work) != str(error):
                self._failures[work] = str(error)
                LOG.warning("gateway %s is not configured: %s", self._bridge, error)

    def _set_rules(self, state: BridgeState, network: NodeNetwork) -> None:
        rules = HostRules(
            self._bridge, network, state.tunnel_ports, state.switch_devices, self._settings.masquerade_bit
        )
        if self._table.ensure(rules):
            LOG.info("gateway %s: set table %s %s of nftables", self._bridge, FAMILY, TABLE)
        if set_sysctl("ip_forward", "1"):
            LOG.info("gateway %s: this host forwards (ip_forward)", self._bridge)

    def _set_device(self, state: BridgeState, network: NodeNetwork) -> None:
        mac = mac_of(network.address)
        if (state.hwaddr, state.gateway_mtu) != (mac, self._settings.mtu):
            self._database.configure_gateway(mac, self._settings.mtu)
        for text in configure_device(self._bridge, network):
            LOG.info("gateway %s: %s", self._bridge, text)

    def _watch(self) -> None:
        """Never returns: takes note of what the kernel reports about the device, its addresses, routes and rules."""
        with _link_events() as links, nftables.events() as rules:
            concerns = {links: lambda data: concerns_device(data, self._bridge), rules: nftables.concerns_table}
            while True:
                for events in select.select(list(concerns), (), ())[0]:
                    try:
                        data = events.recv(1 << 16)
                    except OSError:  # ENOBUFS: some were lost.
                        data = b""
                    if not data or concerns[events](data):
                        self._host_changed.set()
                        self._database.wake()


def _link_events() -> socket.socket:
    """A socket that gets a message for each change of devices, neighbours, addresses and routes."""
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    made.bind((0, _RTMGRP_LINK | _RTMGRP_NEIGH | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV4_ROUTE))
    return made


def _concerns(state: BridgeState) -> tuple[object, ...]:
    """What of a state the gateway depends on."""
    asked_for = state.hwaddr, state.gateway_mtu
    return state.connected, state.node_network, asked_for, state.tunnel_ports, state.switch_devices


def concerns_device(messages: bytes, device: str) -> bool:
    """Whether a packet of netlink messages may be about this device: its link, or any address or route that is gone.

    Read here as pods come with many messages, and decoding each whole takes a millisecond.
    """
    name, at = device.encode() + b"\0", 0
    while at + _NETLINK_HEADER.size <= len(messages):
        length, kind, *_ = _NETLINK_HEADER.unpack_from(messages, at)
        if kind in (_RTM_DELADDR, _RTM_DELROUTE, _RTM_DELNEIGH):
            return True
        if kind in (_RTM_NEWLINK, _RTM_DELLINK) and name in messages[at : at + length]:
            return True
        at += max(length + 3 & ~3, _NETLINK_HEADER.size)
    return False


def configure_device(device: str, network: NodeNetwork) -> tuple[str, ...]:
    """Give the device the node's address and the route to all pods; returns what was missing, in words for the log.

    All is routed by one next hop with a permanent neighbour entry: otherwise each destination would take an entry of
    the machine's ARP table. Addresses of the network that are not the node's (any more) are removed. Raises CniError
    when the device is missing, or another one has an address of the network.
    """
    with netlink_errors(device), IPRoute() as ip:
        links = ip.link_lookup(ifname=device)
        if not links:
            raise CniError(errors.TRY_AGAIN_LATER, "there is no such device (yet)")
        index = int(links[0])
        (link,) = ip.get_links(index)
        own = f"{network.address}/32"
        set_before = tuple(_addresses(ip, network, index))
        changed = []
        if not link["flags"] & _IFF_UP:
            set_up(ip, index)
            changed.append("is up")
        if own not in set_before:
            ip.addr("add", index=index, address=str(network.address), prefixlen=32)
            changed.append(f"has the address {network.address}")
        for other in set_before:
            if other != own:
                address, _, length = other.partition("/")
                ip.addr("del", index=index, address=address, prefixlen=int(length))
                changed.append(f"has no longer the address {other}")
        if not _has_next_hop(ip, index):
            set_next_hop(ip, index)
            changed.append(f"has the next hop {NEXT_HOP}")
        if not _has_route(ip, network, index):
            ip.route(
                "replace",
                dst=str(network.network),
                gateway=str(NEXT_HOP),
                oif=index,
                flags=["onlink"],
                prefsrc=str(network.address),
            )
            changed.append(f"leads to {network.network}")
        if set_sysctl(f"conf/{device}/rp_filter", _LOOSE):
            changed.append("takes packets of pods from every side (rp_filter)")
    return tuple(changed)


def _addresses(ip: Any, network: NodeNetwork, index: int) -> Iterator[str]:
    """The device's addresses of the network. Raises CniError when another device has one."""
    for each in ip.get_addr(family=socket.AF_INET):
        text = each.get_attr("IFA_LOCAL") or each.get_attr("IFA_ADDRESS")
        if IPv4Address(text) not in network.network:
            continue
        if each["index"] != index:
            reason = f"device {each.get_attr('IFA_LABEL')} has the address {text} of the pod network {network.network}"
            raise CniError(errors.INVALID_CONFIGURATION, f"{reason}; set `network` to a range that no node is in")
        yield f"{text}/{each['prefixlen']}"


def _has_next_hop(ip: Any, index: int) -> bool:
    entries = ip.get_neighbours(family=socket.AF_INET, ifindex=index)
    return any(
        each.get_attr("NDA_DST") == str(NEXT_HOP) and each.get_attr("NDA_LLADDR") == NEXT_HOP_LLADDR for each in entries
    )


def _has_route(ip: Any, network: NodeNetwork, index: int) -> bool:
    routes = ip.get_routes(family=socket.AF_INET, oif=index)
    return any(
        (each.get_attr("RTA_DST"), each["dst_len"]) == (str(network.network.network_address), network.network.prefixlen)
        and each.get_attr("RTA_GATEWAY") == str(NEXT_HOP)
        and each.get_attr("RTA_PREFSRC") == str(network.address)
        for each in routes
    )


def set_sysctl(name: str, value: str) -> bool:
    """Set a sysctl below net.ipv4 unless it has the value already; returns whether it was set. Raises OSError.

    `name` has slashes, as names of devices may have dots.
    """
    path = next((folder for folder in SYSCTLS if folder.is_dir()), SYSCTLS[-1]) / name
    if path.read_text().strip() == value:
        return False
    path.write_text(value)
    return True
