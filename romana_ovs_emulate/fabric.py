"""Joins emulated nodes: by plain links in a line, or by tunnels over an underlay network.

A node's network card is `eth0`, which has its underlay address. Tunnels of the userspace datapath need that address on
another bridge of the same Open vSwitch instance (docs.openvswitch.org, "Userspace tunneling"), `br-phy`; the kernel's
need none.
The underlay's switch is a Linux bridge in a namespace of its own, in place of the data centre's network.
"""

from __future__ import annotations

import logging
import shutil
import zlib
from collections.abc import Sequence
from enum import Enum
from ipaddress import IPv4Address

from romana_ovs.data_files import data_file
from romana_ovs.model.bridge import LINK_ID, TUNNEL_ID, DatapathType
from romana_ovs_emulate.nodes import BRIDGE, UNDERLAY, UNDERLAY_BRIDGE, Node
from romana_ovs_emulate.runs import Run
from romana_ovs_emulate.system import ip_batch

LOG = logging.getLogger("romana_ovs.emulate")

TUNNEL_PORT = "tunnel"
TUNNEL_KEY = 7
"""The VNI of all tunnels; both ends must have the same."""
UNTRACKED_TUNNELS = "nftables/untracked-tunnels.nft"
PLAIN_MTU = 1500
TUNNEL_MTU = 1450
"""1500 bytes less the headers of VXLAN (50 bytes) or Geneve without options (50 bytes)."""


class Fabric(Enum):
    """How nodes are joined."""

    LINK = "link"
    VXLAN = "vxlan"
    GENEVE = "geneve"

    @property
    def mtu(self) -> int:
        """The MTU of pods on it, in bytes."""
        return PLAIN_MTU if self is Fabric.LINK else TUNNEL_MTU


def join(run: Run, nodes: Sequence[Node], fabric: Fabric) -> None:
    """Join running nodes. Raises SetupError."""
    if fabric is Fabric.LINK:
        for left, right in zip(nodes, nodes[1:], strict=False):
            _link(left, right)
    else:
        _tunnels(run, nodes, fabric)


def underlay_address(index: int) -> IPv4Address:
    """The local tunnel address of the node at `index` (from 0)."""
    return UNDERLAY[index + 1]


def _link(left: Node, right: Node) -> None:
    """Join two bridges by a veth pair; each end names the node at the other end."""
    left_port, right_port = _link_name(right), _link_name(left)
    ip_batch([f"link add {left_port} netns {left.netns} type veth peer name {right_port} netns {right.netns}"])
    for node, port, other in ((left, left_port, right), (right, right_port, left)):
        ip_batch([f"link set {port} up"], netns=node.netns)
        node.vsctl("add-port", BRIDGE, port, "--", "set", "interface", port, f"external_ids:{LINK_ID}={other.name}")


def _link_name(other: Node) -> str:
    """The name of the interface that leads to `other`: at most 15 characters, unique on a node."""
    return f"to-{other.name}" if len(other.name) <= 12 else f"to-{hash_of(other.name)}"


def hash_of(name: str) -> str:
    """A hash of a name as eight hexadecimal digits, the same in every run (for interface names)."""
    return f"{zlib.crc32(name.encode()):08x}"


def _tunnels(run: Run, nodes: Sequence[Node], fabric: Fabric) -> None:
    switch = run.netns("underlay")
    run.ip_batch(
        [
            f"netns add {switch}",
            *(
                f"link add u{index} netns {switch} type veth peer name eth0 netns {node.netns}"
                for index, node in enumerate(nodes)
            ),
        ]
    )
    ip_batch(
        [
            "link add underlay type bridge",
            "link set underlay up",
            *(f"link set u{index} master underlay up" for index in range(len(nodes))),
        ],
        netns=switch,
    )
    for index, node in enumerate(nodes):
        _add_underlay_address(node, underlay_address(index))
        node.vsctl(
            "add-port",
            BRIDGE,
            TUNNEL_PORT,
            "--",
            "set",
            "interface",
            TUNNEL_PORT,
            f"type={fabric.value}",
            "options:remote_ip=flow",
            f"options:key={TUNNEL_KEY}",
            # With options:local_ip Open vSwitch would look up a route to that address, too, which cannot
            # be added by hand.
            f"external_ids:{TUNNEL_ID}={underlay_address(index)}",
        )
    _set_neighbours(nodes)


def _add_underlay_address(node: Node, address: IPv4Address) -> None:
    """Give the node its underlay address where its datapath can route tunnels: on its card, or on a bridge over it."""
    ip_batch(["link set eth0 up"], netns=node.netns)
    if node.datapath is DatapathType.SYSTEM:
        ip_batch([f"addr add {address}/{UNDERLAY.prefixlen} dev eth0"], netns=node.netns)
        _leave_tunnels_untracked(node)
        return
    node.vsctl(
        "add-br",
        UNDERLAY_BRIDGE,
        "--",
        "set",
        "bridge",
        UNDERLAY_BRIDGE,
        f"datapath_type={DatapathType.NETDEV.value}",
        "fail_mode=standalone",
        f'other_config:hwaddr="{underlay_mac(address)}"',
        "--",
        "add-port",
        UNDERLAY_BRIDGE,
        "eth0",
    )
    lines = [f"addr add {address}/{UNDERLAY.prefixlen} dev {UNDERLAY_BRIDGE}", f"link set {UNDERLAY_BRIDGE} up"]
    ip_batch(lines, netns=node.netns)
    node.route_underlay()


def _leave_tunnels_untracked(node: Node) -> None:
    """Load the rules by which a node does not track tunnel packets as connections of its own.

    Without nftables here, or in this kernel, tunnels work as well, and take more of the connection table.
    """
    if shutil.which("nft") is None:
        return
    done = node.execute(["nft", "-f", str(data_file(UNTRACKED_TUNNELS))])
    if done.returncode != 0:
        LOG.warning("node %s tracks tunnel packets: nft: %s", node.name, " ".join(done.stderr.split()))


def _set_neighbours(nodes: Sequence[Node]) -> None:
    """Set the underlay MACs of all other nodes on each node, so that no first packet is lost to an ARP query.

    The kernel keeps packets while it asks, so its datapath loses none.
    """
    for index, node in enumerate(nodes):
        if node.datapath is DatapathType.SYSTEM:
            continue
        for other in range(len(nodes)):
            if other != index:
                address = underlay_address(other)
                node.appctl("tnl/neigh/set", UNDERLAY_BRIDGE, str(address), underlay_mac(address))


def underlay_mac(address: IPv4Address) -> str:
    """The MAC of the bridge that has this underlay address."""
    return ":".join(f"{byte:02x}" for byte in b"\x02\x00" + address.packed)
