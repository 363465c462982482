"""Implements `romana-ovs attach`: the attach agent of a node, which the CNI plugin romana-cni asks."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

from romana_ovs.config import ControllerOptions
from romana_ovs.model.errors import InputError, SetupError

HELP = "The attach agent of a node: gives pods their network devices and bridge ports, as a container runtime asks."
SOCKET = Path("/run/romana-ovs/attach.sock")
QUEUE = Path("/var/lib/romana-ovs/deletes")
CONF_FOLDER = Path("/etc/cni/net.d")
BRIDGE = "br-int"
WAIT_SECONDS = 20.0
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
    parser.add_argument("--no-conflist", action="store_true", help="write no CNI configuration list")
    parser.add_argument(
        "--no-portmap", action="store_true", help="leave the plugin portmap (hostPort) out of that list"
    )
    parser.add_argument(
        "--mtu", type=int, metavar="BYTES", help="MTU of pods and gateway (default: the uplink's less 50)"
    )
    parser.add_argument("--no-gateway", action="store_true", help="leave the node's own address and routes alone")
    parser.add_argument(
        "--wait",
        type=float,
        default=WAIT_SECONDS,
        metavar="SECONDS",
        help=f"how long ADD waits for the controller (default {WAIT_SECONDS:.0f})",
    )


def run(args: argparse.Namespace) -> int:
    """Returns exit code 0 after SIGTERM or SIGINT. Raises InputError for invalid options, SetupError without root."""
    _check(args)
    if os.geteuid() != 0:
        raise SetupError("the attach agent needs root (network namespaces, devices): run it with sudo")
    from romana_ovs.attach.without_eventlet import block_eventlet

    block_eventlet()
    # Imported here: without eventlet, and pyroute2 takes a while.
    from romana_ovs.attach import agent
    from romana_ovs.attach.operations import AttachSettings

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    return agent.run(
        AttachSettings(
            bridge=args.bridge,
            ovsdb=args.ovsdb or ControllerOptions().ovsdb[0],
            socket=args.socket.absolute(),
            queue=args.queue.absolute(),
            conf_folder=None if args.no_conflist else args.cni_conf_dir.absolute(),
            portmap=not args.no_portmap,
            mtu=args.mtu if args.mtu is not None else agent.learned_mtu(),
            wait_seconds=args.wait,
            gateway=not args.no_gateway,
        )
    )


def _check(args: argparse.Namespace) -> None:
    if args.mtu is not None and not MIN_MTU <= args.mtu <= MAX_MTU:
        raise InputError.because(f"--mtu: {args.mtu} is not from {MIN_MTU} to {MAX_MTU}")
    if not 0 < args.wait <= 60:
        raise InputError.because(f"--wait: {args.wait:g} is not from 0 to 60 seconds; the plugin waits 90")
    if not args.bridge or "/" in args.bridge:
        raise InputError.because(f"--bridge: {args.bridge!r} is no name of a bridge")
