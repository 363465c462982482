"""Starts the Open vSwitch of a node: its daemons, and the bridge of its card. romana-ovs makes the bridge of pods.

On the userspace datapath the node's card is a port of a bridge, which has the node's address (docs.openvswitch.org,
"Userspace tunneling").
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address

from romana_ovs.model.bridge import DatapathType
from romana_ovs.model.errors import SetupError
from romana_ovs_emulate.cluster.node import ClusterNode
from romana_ovs_emulate.cluster.underlay import CARD, CONTROL_PLANE
from romana_ovs_emulate.fabric import underlay_mac
from romana_ovs_emulate.nodes import (
    BRIDGE,
    NICENESS,
    UNDERLAY,
    UNDERLAY_BRIDGE,
    VSCTL_SECONDS,
    retry_route,
    rules_to_ignore_ports,
)
from romana_ovs_emulate.system import ip_batch, ovs_schema

RUN_FOLDER = "/run/openvswitch"
DATABASE = "/etc/openvswitch/conf.db"
LOG_FOLDER = "/var/log/openvswitch"
ENVIRONMENT = {"OVS_RUNDIR": RUN_FOLDER, "OVS_LOGDIR": LOG_FOLDER, "OVS_DBDIR": "/etc/openvswitch"}
"""Debian's places, whatever prefix Open vSwitch was built with."""
_IGNORED_CARD = f"""\
table inet card-of-bridge {{
    chain prerouting {{
        type filter hook prerouting priority -400; policy accept;
        iifname "{CARD}" drop
    }}
}}
"""
"""The node's kernel receives what comes in by its card, too, and must not act on it: that is the bridge's."""


def start(node: ClusterNode, others: Sequence[IPv4Address]) -> None:
    """Start Open vSwitch, the first time or after a reboot; `others` are the other nodes' addresses.

    Raises SetupError.
    """
    ip_batch(rules_to_ignore_ports(), netns=node.netns)
    node.call("nft", "-f", "-", stdin=_IGNORED_CARD)
    ip_batch([f"link set {CARD} up"], netns=node.netns)
    if not node.path(DATABASE).exists():
        node.call("ovsdb-tool", "create", DATABASE, str(ovs_schema()))
    _daemon(node, "ovsdb-server", DATABASE, f"--remote=punix:{RUN_FOLDER}/db.sock")
    vsctl(node, "--no-wait", "init", *_underlay_bridge(node))
    # As `ovs-ctl delete-transient-ports` after a boot.
    for port in vsctl(node, "--bare", "--columns=name", "find", "port", "other_config:transient=true").split():
        vsctl(node, "--no-wait", "del-port", port)
    start_switch(node, others)


def start_switch(node: ClusterNode, others: Sequence[IPv4Address]) -> None:
    """Start ovs-vswitchd, the first time or after its end. Raises SetupError.

    With it the device ends that has the node's address, so this sets the address and the routes, too.
    """
    # It would lose the kernel's routes for some milliseconds at every change of a link; see nodes.py.
    _daemon(node, "ovs-vswitchd", f"unix:{RUN_FOLDER}/db.sock", "--disable-system-route", niceness=NICENESS)
    vsctl(node, "init")  # It waits until ovs-vswitchd has made the bridges of the database.
    ip_batch(
        [
            f"addr replace {node.address}/{UNDERLAY.prefixlen} dev {UNDERLAY_BRIDGE}",
            f"link set {UNDERLAY_BRIDGE} up",
            f"route replace default via {CONTROL_PLANE} dev {UNDERLAY_BRIDGE}",
        ],
        netns=node.netns,
    )
    retry_route(lambda: appctl(node, "ovs/route/add", str(UNDERLAY), UNDERLAY_BRIDGE))
    for address in others:
        appctl(node, "tnl/neigh/set", UNDERLAY_BRIDGE, str(address), underlay_mac(address))


def vsctl(node: ClusterNode, *arguments: str) -> str:
    """The output of `ovs-vsctl` on the node. Raises SetupError."""
    argv = ["ovs-vsctl", f"--db=unix:{RUN_FOLDER}/db.sock", f"--timeout={VSCTL_SECONDS:.0f}", *arguments]
    return node.call(*argv, env=ENVIRONMENT)


def ofctl(node: ClusterNode, command: str, *arguments: str) -> str:
    """The output of an `ovs-ofctl` command on the bridge of pods. Raises SetupError."""
    argv = ["ovs-ofctl", "-O", "OpenFlow15", command, f"unix:{RUN_FOLDER}/{BRIDGE}.mgmt", *arguments]
    return node.call(*argv, env=ENVIRONMENT)


def appctl(node: ClusterNode, *arguments: str) -> str:
    """The output of an `ovs-appctl` command to ovs-vswitchd. Raises SetupError."""
    return node.call("ovs-appctl", "-t", "ovs-vswitchd", *arguments, env=ENVIRONMENT)


def kill_switch(node: ClusterNode) -> None:
    """End ovs-vswitchd by SIGKILL. Raises SetupError."""
    pid = node.path(f"{RUN_FOLDER}/ovs-vswitchd.pid").read_text().strip()
    if not pid.isdigit():
        raise SetupError(f"ovs-vswitchd does not run on {node.name}")
    node.call("kill", "-9", pid)


def _daemon(node: ClusterNode, program: str, *arguments: str, niceness: int = 0) -> None:
    places = [f"--pidfile={RUN_FOLDER}/{program}.pid", f"--log-file={LOG_FOLDER}/{program}.log"]
    command = ["nice", "-n", str(niceness), program, *arguments, "--detach", "--no-chdir", "-vconsole:off", *places]
    node.call(*command, env=ENVIRONMENT)


def _underlay_bridge(node: ClusterNode) -> list[str]:
    return [
        "--",
        "--may-exist",
        "add-br",
        UNDERLAY_BRIDGE,
        "--",
        "set",
        "bridge",
        UNDERLAY_BRIDGE,
        f"datapath_type={DatapathType.NETDEV.value}",
        "fail_mode=standalone",
        f'other_config:hwaddr="{underlay_mac(node.address)}"',
        "--",
        "--may-exist",
        "add-port",
        UNDERLAY_BRIDGE,
        CARD,
    ]
