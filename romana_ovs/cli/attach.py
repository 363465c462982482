"""Implements `romana-ovs attach`: the attach agent of a node, which the CNI plugin romana-cni asks."""

from __future__ import annotations

import argparse
import logging
import os
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING

from romana_ovs.cli.health_port import add_health_port, check_health_port
from romana_ovs.config import ControllerOptions
from romana_ovs.model.addresses import address_fault
from romana_ovs.model.bridge import DatapathType
from romana_ovs.model.errors import InputError, SetupError
from romana_ovs.model.syntax import subdomain_fault

if TYPE_CHECKING:  # Imported without eventlet: see `run`.
    from romana_ovs.attach.bridge_creation import BridgeSettings

HELP = "The attach agent of a node: gives pods their network devices and bridge ports, as a container runtime asks."
SOCKET = Path("/run/romana-ovs/attach.sock")
QUEUE = Path("/var/lib/romana-ovs/deletes")
CONF_FOLDER = Path("/etc/cni/net.d")
BRIDGE = "br-int"
MASQUERADE_BIT = 14
"""The default of kube-proxy, too."""
WAIT_SECONDS = 20.0
TUNNELS, NO_TUNNEL = ("vxlan", "geneve"), "none"
CONTROLLER = "tcp:127.0.0.1:6653"
MIN_MTU, MAX_MTU = 576, 65535
"""Bytes: what every IPv4 host takes (RFC 791), and the longest packet."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--bridge", default=BRIDGE, metavar="NAME", help=f"the bridge of pods (default {BRIDGE})")
    parser.add_argument("--ovsdb", metavar="REMOTE", help="database of the Open vSwitch (default: that of the system)")
    parser.add_argument("--socket", type=Path, default=SOCKET, metavar="PATH", help=f"its socket (default {SOCKET})")
    parser.add_argument(
        "--queue", type=Path, default=QUEUE, metavar="DIR", help=f"where DELs wait for it (default {QUEUE})"
    )
    parser.add_argument(
        "--cni-conf-dir",
        type=Path,
        default=CONF_FOLDER,
        metavar="DIR",
        help=f"where it writes the CNI configuration list (default {CONF_FOLDER})",
    )
    _add_bridge_arguments(parser)
    add_health_port(parser)
    parser.add_argument("--no-conflist", action="store_true", help="write no CNI configuration list")
    parser.add_argument(
        "--no-portmap", action="store_true", help="leave the plugin portmap (hostPort) out of that list"
    )
    parser.add_argument(
        "--mtu", type=int, metavar="BYTES", help="MTU of pods and gateway (default: the uplink's less 50)"
    )
    parser.add_argument(
        "--no-gateway", action="store_true", help="leave the node's own address, routes and nftables rules alone"
    )
    parser.add_argument("--no-nftables", action="store_true", help="leave nftables and ip_forward alone")
    parser.add_argument("--no-host-check", action="store_true", help="do not check this host at the start (node check)")
    parser.add_argument(
        "--masquerade-bit",
        type=int,
        default=MASQUERADE_BIT,
        metavar="BIT",
        help=f"kube-proxy's masqueradeBit (default {MASQUERADE_BIT})",
    )
    parser.add_argument(
        "--wait",
        type=float,
        default=WAIT_SECONDS,
        metavar="SECONDS",
        help=f"how long ADD waits for the controller (default {WAIT_SECONDS:.0f})",
    )


def _add_bridge_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the bridge")
    group.add_argument(
        "--create-bridge", action="store_true", help="make the bridge and its tunnel port where they are missing"
    )
    group.add_argument("--node", metavar="NAME", help="this node, as it is named in the API server")
    group.add_argument(
        "--datapath",
        choices=[each.value for each in DatapathType],
        help=f"the datapath of a bridge that is made (default {DatapathType.SYSTEM.value}, the kernel's)",
    )
    group.add_argument("--tunnel", choices=[*TUNNELS, NO_TUNNEL], help=f"between nodes (default {TUNNELS[0]})")
    group.add_argument("--tunnel-address", metavar="ADDRESS", help="this node's IPv4 address in the network of nodes")
    group.add_argument(
        "--controller", metavar="TARGET", help=f"of a bridge without one (default {CONTROLLER}; ovs-vswitchd(8))"
    )


def run(args: argparse.Namespace) -> int:
    """Returns exit code 0 after SIGTERM or SIGINT. Raises InputError for invalid options, SetupError without root."""
    _check(args)
    _check_bridge(args)
    if os.geteuid() != 0:
        raise SetupError("the attach agent needs root (network namespaces, devices): run it with sudo")
    from romana_ovs.attach.without_eventlet import block_eventlet

    block_eventlet()
    # Imported here: without eventlet, and pyroute2 takes a while.
    from romana_ovs.attach import agent
    from romana_ovs.attach.gateway import GatewaySettings
    from romana_ovs.attach.operations import AttachSettings

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    mtu = args.mtu if args.mtu is not None else agent.learned_mtu()
    gateway = GatewaySettings(mtu, nftables=not args.no_nftables, masquerade_bit=args.masquerade_bit)
    return agent.run(
        AttachSettings(
            bridge=args.bridge,
            ovsdb=args.ovsdb or ControllerOptions().ovsdb[0],
            socket=args.socket.absolute(),
            queue=args.queue.absolute(),
            conf_folder=None if args.no_conflist else args.cni_conf_dir.absolute(),
            portmap=not args.no_portmap,
            mtu=mtu,
            wait_seconds=args.wait,
            health_port=args.health_port,
            new_bridge=_bridge_settings(args),
            gateway=None if args.no_gateway else gateway,
            host_check=not args.no_host_check,
        )
    )


def _check(args: argparse.Namespace) -> None:
    if args.mtu is not None and not MIN_MTU <= args.mtu <= MAX_MTU:
        raise InputError.because(f"--mtu: {args.mtu} is not from {MIN_MTU} to {MAX_MTU}")
    if not 0 < args.wait <= 60:
        raise InputError.because(f"--wait: {args.wait:g} is not from 0 to 60 seconds; the plugin waits 90")
    check_health_port(args.health_port)
    if not 0 <= args.masquerade_bit <= 31:
        raise InputError.because(f"--masquerade-bit: {args.masquerade_bit} is not from 0 to 31")
    if not args.bridge or "/" in args.bridge:
        raise InputError.because(f"--bridge: {args.bridge!r} is no name of a bridge")


def _check_bridge(args: argparse.Namespace) -> None:
    """Raises InputError for options of the bridge that do not fit together."""
    if not args.create_bridge:
        names = ("node", "datapath", "tunnel", "tunnel_address", "controller")
        for name in names:
            if getattr(args, name) is not None:
                raise InputError.because(f"--{name.replace('_', '-')}: this is for --create-bridge")
        return
    if fault := subdomain_fault(args.node) if args.node else "--create-bridge needs the name of this node":
        raise InputError.because(f"--node: {fault}")
    if args.tunnel != NO_TUNNEL:
        _tunnel_address(args.tunnel_address or "")


def _tunnel_address(text: str) -> IPv4Address:
    """The address in the option. Raises InputError."""
    try:
        address = IPv4Address(text)
    except AddressValueError as error:
        reason = f"{text!r} is no IPv4 address" if text else "a tunnel needs the IPv4 address of this node"
        raise InputError.because(f"--tunnel-address: {reason}") from error
    if fault := address_fault(address):
        raise InputError.because(f"--tunnel-address: {fault}")
    return address


def _bridge_settings(args: argparse.Namespace) -> BridgeSettings | None:
    from romana_ovs.attach.bridge_creation import BridgeSettings, Tunnel, TunnelType  # imported here: as in `run`

    if not args.create_bridge:
        return None
    tunnel = None
    if args.tunnel != NO_TUNNEL:
        tunnel = Tunnel(TunnelType(args.tunnel or TUNNELS[0]), _tunnel_address(args.tunnel_address))
    return BridgeSettings(
        name=args.bridge,
        node=args.node,
        datapath=DatapathType(args.datapath or DatapathType.SYSTEM.value),
        controller=args.controller or CONTROLLER,
        tunnel=tunnel,
    )
