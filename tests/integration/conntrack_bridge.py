"""One bridge for packets by hand: node 1 with pods A and B; R is behind a plain link, O outside, behind the node.

B admits R and O on TCP 80, UDP 53 and SCTP 80; A admits nobody, unless a test says otherwise.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.model.cluster import SegmentKey
from romana_ovs.model.identity import OUTSIDE, IdentityMatch, identity, whole_segments
from romana_ovs.model.labels import NO_LABELS
from romana_ovs.model.objects import PodKey, Protocol
from romana_ovs.model.settings import Settings
from romana_ovs.pipeline.compile import compile_node
from romana_ovs.pipeline.listing import unmetered
from romana_ovs.pipeline.registers import MIDSTREAM, ORIGINAL, REPLY, UNSELECTED
from romana_ovs.pipeline.tables import TABLE_IDS
from romana_ovs.policy.rules import PortRange
from romana_ovs.policy.view import (
    Allow,
    Gateway,
    LocalPod,
    Membership,
    NodePermissions,
    NodeView,
    Origin,
    RemoteHost,
    ServerGroup,
    TenantAllow,
    Uplink,
)
from tests.integration.dummy_switch import DummySwitch
from tests.support import frames
from tests.support.frames import ACK, SYN

PLAN = AddressPlan.of(Settings())
ADDRESS = {
    "A": PLAN.address(1, 1, 1),
    "B": PLAN.address(2, 1, 1),
    "R": PLAN.address(3, 2, 1),
    "O": IPv4Address("192.0.2.9"),
}
IDENTITY = {"A": identity(1, 1), "B": identity(2, 1), "R": identity(3, 1), "O": OUTSIDE}
PORT = {"A": "pa", "B": "pb", "R": "uplink", "O": "br0"}
GATEWAY_MAC = "0a:58:0a:00:00:41"
ORIGIN = Origin("NetworkPolicy", "d", "p", "ingress[0]")
SERVED = (PortRange(Protocol.TCP, 80, 80), PortRange(Protocol.UDP, 53, 53), PortRange(Protocol.SCTP, 80, 80))
SIGNED = (ORIGINAL, REPLY, MIDSTREAM)
REVALIDATION, REVALIDATED = 1 << 4, 1 << 5
"""In the byte of marks."""


def admits(*names: str) -> Allow:
    """A permission for these peers on the served ports."""
    pods = frozenset(IdentityMatch(IDENTITY[name]) for name in names if name != "O")
    cidrs = (IPv4Network("192.0.2.0/24"),) if "O" in names else ()
    return Allow(ORIGIN, identities=pods, cidrs=cidrs, ports=SERVED)


def tables(
    *, a_admits: tuple[Allow, ...] = (), b_admits: tuple[Allow, ...] | None = None, pre_restart: bool = False
) -> list[str]:
    """Node 1's flows as text."""
    pods = tuple(
        LocalPod(
            PodKey(f"d/{name.lower()}"),
            "d",
            NO_LABELS,
            SegmentKey("t", name),
            IDENTITY[name],
            ADDRESS[name],
            PLAN.mac(ADDRESS[name]),
            port,
            pre_restart=pre_restart,
        )
        for name, port in (("A", 1), ("B", 2))
    )
    tenant = whole_segments(0, 4)
    view = NodeView(
        Settings(),
        "node1",
        1,
        pods,
        {"t": (tenant,)},
        {},
        {},
        {},
        (),
        gateway=Gateway(0xFFFE, GATEWAY_MAC, (PLAN.gateway(1),), pre_restart),
        uplinks=(Uplink(9),),
        hosts=(RemoteHost(2, "node2", 9),),
    )
    permissions = NodePermissions(
        members={PodKey("d/a"): Membership(11), PodKey("d/b"): Membership(12)},
        servers=(
            ServerGroup(11, a_admits, ()),
            ServerGroup(12, (admits("R", "O", "A"),) if b_admits is None else b_admits, (admits("R"),)),
        ),
        clients=(),
        tenancy=(TenantAllow(tenant, tenant, ORIGIN),),
    )
    return [unmetered(flow).text(TABLE_IDS) for flow in compile_node(view, permissions).flows.values()]


def wire_mac(name: str, direction: int, egress: int = UNSELECTED) -> str:
    """The source MAC of a packet of `name` between nodes."""
    number = 0x0A << 40 | (egress << 2 | direction) << 32 | IDENTITY[name]
    return ":".join(f"{number >> shift & 0xFF:02x}" for shift in range(40, -8, -8))


class Net:
    """Packets by name, and who got them."""

    def __init__(self, switch: DummySwitch) -> None:
        self.switch = switch
        self.asked = False

    def mac(self, name: str, direction: int, egress: int) -> str:
        """The source MAC that the bridge sees of `name`."""
        if name == "R":
            return wire_mac(name, direction, egress)
        return GATEWAY_MAC if name == "O" else PLAN.mac(ADDRESS[name])

    def deliver(self, sender: str, *packets: bytes) -> str:
        """Name of the receiver, or an empty string. `asked`: whether a revalidation packet went to R's node instead."""
        out = self.switch.send(PORT[sender], *packets)
        revalidations = [frame for frame in out.get("uplink", []) if frame[7] & REVALIDATION]
        self.asked = bool(revalidations)
        out["uplink"] = [frame for frame in out.get("uplink", []) if frame not in revalidations]
        return "".join(name for name, port in PORT.items() if out.get(port))

    def tcp(
        self,
        sender: str,
        receiver: str,
        ports: tuple[int, int],
        flags: int,
        *,
        mark: int = ORIGINAL,
        egress: int = UNSELECTED,
        seq: int = 1000,
        ack: int = 0,
        broken: bool = False,
        data: bytes = b"",
    ) -> str:
        """Send one segment."""
        return self.deliver(
            sender,
            frames.tcp(
                ADDRESS[sender],
                ADDRESS[receiver],
                ports,
                flags,
                eth_src=self.mac(sender, mark, egress),
                seq=seq,
                ack=ack,
                broken=broken,
                data=data,
            ),
        )

    def udp(
        self, sender: str, receiver: str, ports: tuple[int, int], *, mark: int = ORIGINAL, egress: int = UNSELECTED
    ) -> str:
        """Send one datagram."""
        eth_src = self.mac(sender, mark, egress)
        return self.deliver(sender, frames.udp(ADDRESS[sender], ADDRESS[receiver], ports, eth_src=eth_src))

    def handshake(self, client: str, server: str, ports: tuple[int, int]) -> None:
        """A TCP connection that is expected to open."""
        back = (ports[1], ports[0])
        assert self.tcp(client, server, ports, SYN) == server
        assert self.tcp(server, client, back, SYN | ACK, mark=REPLY, seq=5000, ack=1001) == client
        assert self.tcp(client, server, ports, ACK, seq=1001, ack=5001) == server

    def entries(self) -> list[str]:
        """Lines of the bridge's conntrack zones."""
        return [line for line in self.switch.conntrack().splitlines() if "zone=" in line]
