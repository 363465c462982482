"""Topologies for `mn --custom`: bare Mininet switches and hosts that a romana-ovs controller takes for nodes and pods.

    romana-ovs controller --config-file romana.conf &
    mn --custom mininet/romana_topo.py --topo romana,2,2 --switch romana --controller romana

The switches are on Open vSwitch's userspace datapath; with `--topo romana,2,2,datapath=kernel` on the kernel's.
The switches are node1, node2, ... in a line. The hosts are pods of namespace `default`, by default pod1, pod2, ...
placed round-robin as the controller places pods without a node: with `--topo romana,2,5` pod1, pod3 and pod5 are on
node1. A host has no address until it is given the one that the controller chose (`romana-ovs ipam` and the status
socket tell it): `py pod1.become("10.0.64.0", "0a:58:0a:00:40:00")`. `demo_two_switches.py` does so for all.
"""

from __future__ import annotations

from typing import Any

from mininet.node import Host, OVSSwitch, RemoteController
from mininet.topo import Topo

NAMESPACE = "default"
LINK_ID = "romana-link"
POD_ID = "iface-id"
NODE_ID = "romana-node"
NEXT_HOP, NEXT_HOP_LLADDR = "169.254.1.1", "0a:58:00:00:00:01"
"""The next hop of every pod: an address that nobody has, and the MAC by which the switch takes all packets."""


class RomanaSwitch(OVSSwitch):
    """A switch that romana-ovs drives: secure, OpenFlow 1.5, its ports named by what is behind them.

    On the userspace datapath, unless `datapath="kernel"`. Everything stands in the one transaction that creates the
    bridge, so that it never forwards by itself.
    """

    def __init__(self, name: str, **options: Any) -> None:
        wanted = {"failMode": "secure", "datapath": "user", "protocols": "OpenFlow15", **options}
        super().__init__(name, **wanted)

    def bridgeOpts(self) -> str:
        """Options of the bridge: those of Mininet, and the node that it belongs to."""
        return f"{super().bridgeOpts()} external_ids:{NODE_ID}={self.name}"

    def intfOpts(self, intf: Any) -> str:
        """Options of one interface: those of Mininet, and the pod or the node at its other end."""
        options = super().intfOpts(intf)
        ends = [end for end in (intf.link.intf1, intf.link.intf2) if end is not intf] if intf.link else []
        if not ends:
            return options
        other = ends[0].node
        if isinstance(other, OVSSwitch):
            return f"{options} -- set Interface {intf} external_ids:{LINK_ID}={other.name}"
        pod = getattr(other, "pod", f"{NAMESPACE}/{other.name}")
        return f"{options} -- set Interface {intf} external_ids:{POD_ID}={pod}"


class RomanaController(RemoteController):
    """The romana-ovs controller where it listens by default; `--controller romana,ip=ADDRESS,port=N` elsewhere."""

    def __init__(self, name: str, ip: str = "127.0.0.1", port: int = 6653, **options: Any) -> None:
        super().__init__(name, ip=ip, port=port, **options)

    def checkListening(self) -> None:
        """Nothing: Mininet's own check talks to it by telnet and stumbles over OpenFlow's binary greeting."""


class PodHost(Host):
    """A host that is a pod: it sends everything to one next hop, and fills in checksums."""

    def config(self, pod: str | None = None, **options: Any) -> dict[str, Any]:
        """Mininet's own configuration, without its address; `pod` is `namespace/name` (default: by its name)."""
        self.pod = pod or f"{NAMESPACE}/{self.name}"
        result: dict[str, Any] = super().config(**{**options, "ip": None})
        for name in self.intfNames():
            self.cmd(f"ethtool -K {name} tx off; ip addr flush dev {name}; ip link set {name} addrgenmode none")
        return result

    def become(self, address: str, mac: str) -> None:
        """Take the address and MAC that the controller chose for this pod."""
        name = self.defaultIntf().name
        self.cmd(f"ip link set {name} down; ip link set {name} address {mac}; ip link set {name} up")
        self.cmd(f"ip addr add {address}/32 dev {name}")
        self.cmd(f"ip neigh replace {NEXT_HOP} lladdr {NEXT_HOP_LLADDR} dev {name} nud permanent")
        self.cmd(f"ip route replace default via {NEXT_HOP} dev {name} onlink")


class RomanaTopo(Topo):
    """`nodes` switches in a line and `pods` hosts on them, round-robin."""

    def build(self, nodes: int = 2, pods: int = 4, names: tuple[str, ...] = (), datapath: str = "user") -> None:
        """`names` (`namespace/name`) are the pods, in place of `default/pod1` and so on.

        `datapath` is that of Mininet's switches: `user` or `kernel`.
        """
        listed = names or tuple(f"{NAMESPACE}/pod{number}" for number in range(1, pods + 1))
        switches = [
            self.addSwitch(f"node{number}", cls=RomanaSwitch, dpid=f"{number:016x}", datapath=datapath)
            for number in range(1, nodes + 1)
        ]
        for left, right in zip(switches, switches[1:], strict=False):
            self.addLink(left, right)
        for number, pod in enumerate(sorted(listed)):
            host = self.addHost(f"pod{number + 1}", cls=PodHost, pod=pod, inNamespace=True)
            self.addLink(host, switches[number % nodes])


topos = {"romana": RomanaTopo}
switches = {"romana": RomanaSwitch}
controllers = {"romana": RomanaController}
hosts = {"romana": PodHost}
