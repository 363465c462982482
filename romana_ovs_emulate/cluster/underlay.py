"""Makes the network between nodes: a namespace with a switch, where the control plane runs, too.

It stands in for the data centre: what pods reach there is outside the cluster.
"""

from __future__ import annotations

from romana_ovs_emulate.nodes import UNDERLAY
from romana_ovs_emulate.runs import Run
from romana_ovs_emulate.system import inside, ip_batch, run

NAME = "underlay"
BRIDGE = "underlay"
CARD = "eth0"
"""The network card of a node."""
CONTROL_PLANE = UNDERLAY[-2]
"""The address of the API server, and of all that is outside."""


def create(owner: Run) -> str:
    """Create the namespace with its switch and address; returns the namespace's name. Raises SetupError."""
    netns = owner.netns(NAME)
    owner.ip_batch([f"netns add {netns}"])
    ip_batch(
        [
            "link set lo up",
            f"link add {BRIDGE} type bridge",
            f"link set {BRIDGE} up",
            f"addr add {CONTROL_PLANE}/{UNDERLAY.prefixlen} dev {BRIDGE}",
        ],
        netns=netns,
    )
    return netns


def connect(netns: str, node_netns: str, index: int) -> None:
    """Join the card of the node at `index` (from 0) to the switch. Raises SetupError."""
    port = f"u{index}"
    ip_batch([f"link add {port} type veth peer name {CARD} netns {node_netns}"], netns=netns)
    ip_batch([f"link set {port} master {BRIDGE} up"], netns=netns)
    # Open vSwitch in userspace takes packets as they are: without it, those of processes here have no checksum.
    run(inside(netns, ["ethtool", "-K", port, "tx", "off"]))


def disconnect(netns: str, index: int) -> None:
    """Remove the cable of a node: its end here outlives the node's namespace for a while. Raises SetupError."""
    ip_batch([f"link del u{index}"], netns=netns)
