"""Connection limits on a real Open vSwitch: set, enforced, reported, and set again after a restart."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from itertools import product
from pathlib import Path

import pytest

from romana_ovs.controller.conntrack_limits import (
    REPORT_AFTER_SECONDS,
    BridgeZones,
    ConntrackLimits,
    DatapathRef,
)
from romana_ovs.flag import Flag
from romana_ovs.pipeline.compile import compile_node
from romana_ovs.pipeline.listing import unmetered
from romana_ovs.pipeline.tables import TABLE_IDS
from romana_ovs.pipeline.zones import COMMON, ZoneShare, common_zone
from romana_ovs.policy.view import RemoteHost
from romana_ovs.simulator.packet import ACK, Addresses, Packet, echo, sctp, tcp, udp
from romana_ovs_emulate.fabric import Fabric
from romana_ovs_emulate.system import inside, run
from tests.integration.dummy_interfaces import DummyOvs
from tests.integration.dummy_switch import dummy_switch
from tests.integration.wire import frame
from tests.support.controller_process import Controller
from tests.support.frames import udp as udp_frame
from tests.support.live_cluster import LiveCluster, live_cluster
from tests.support.manifests import TWO_NODES, placed_pod
from tests.support.private_ovs import Ovs, needs_ovs
from tests.support.simulated_network import PLAN, UPLINK_PORT, SimNetwork, SimPod
from tests.support.waiting import eventually

pytestmark = [pytest.mark.root, needs_ovs]

ENDS = Addresses.of(int(IPv4Address("10.0.0.1")), int(IPv4Address("10.0.0.2")))
ZONE = common_zone(0)
NEW, KNOWN, INVALID = (f"0a:00:00:00:00:0{number}" for number in (1, 2, 3))
FLOWS = f"""
table=0,ip,actions=ct(zone=5,table=1)
table=1,ip,ct_state=-inv+trk,in_port=1,actions=ct(commit,zone=5,table=2)
table=1,ip,ct_state=+rpl+trk,in_port=2,actions=output:1
table=1,ip,ct_state=+inv+trk,actions=set_field:{INVALID}->eth_src,output:2
table=2,ip,ct_state=+new+trk,actions=set_field:{NEW}->eth_src,output:2
table=2,ip,ct_state=-new+trk,actions=set_field:{KNOWN}->eth_src,output:2
"""


@pytest.fixture
def dummy() -> Iterator[DummyOvs]:
    """A switch that tracks all in zone 5 and commits what comes in by port 1; its time stands still."""
    with DummyOvs((1, 2)) as ovs:
        ovs.program(FLOWS)
        ovs.appctl("time/stop")
        yield ovs


def _source(ovs: DummyOvs, packet: Packet) -> str:
    """The source MAC with which a packet from port 1 leaves by port 2: what it was tracked as, once committed."""
    ((port, data),) = ovs.send(1, frame(packet))
    assert port == 2
    return data[6:12].hex(":")


def test_at_its_limit_a_zone_passes_packets_and_forgets_them(dummy: DummyOvs) -> None:
    """What the tables must reckon with on userspace's datapath: a commit over the limit is no drop, and no entry.

    So the packet goes on, tracked as new, and so do those that answer it, and a later one of its own.
    """
    dummy.appctl("dpctl/ct-set-limits", "zone=5,limit=2")
    first, second, third = (udp(ENDS, port, 53) for port in (1000, 1001, 1002))
    for packet in (first, second):
        assert _source(dummy, packet) == NEW
        assert dummy.send(2, frame(packet.reply()))
    for _ in range(2):
        assert _source(dummy, third) == NEW
        assert not dummy.send(2, frame(third.reply()))
    assert _source(dummy, first) == KNOWN
    assert len(dummy.appctl("dpctl/dump-conntrack", "zone=5").split()) == 2
    assert "zone=5,limit=2,count=2" in dummy.appctl("dpctl/ct-get-limits")
    # A higher limit keeps the count; and one that ends makes room for another.
    dummy.appctl("dpctl/ct-set-limits", "zone=5,limit=3")
    assert _source(dummy, third) == NEW
    assert dummy.send(2, frame(third.reply()))
    assert "zone=5,limit=3,count=3" in dummy.appctl("dpctl/ct-get-limits")


IDLE = {
    "udp or sctp, unanswered": 60,
    "udp or sctp, answered": 30,
    "icmp, unanswered": 60,
    "icmp, answered": 30,
    "syn": 30,
    "syn and ack": 30,
    "established": 86400,
    "one end has finished": 900,
    "both have": 45,
    "closed": 30,
    "reset": 30,
}
"""Seconds, on userspace's datapath of Open vSwitch 3.1; docs/cli.md says them too."""


def _idle(ovs: DummyOvs) -> int:
    """Seconds that the one entry has left."""
    (found,) = re.findall(r"timeout=(\d+)", ovs.appctl("dpctl/dump-conntrack", "-s", "zone=5"))
    return int(found)


def _idle_times(ovs: DummyOvs) -> dict[str, int]:
    """What each kind of connection has left after its last packet."""
    found = {}
    for name, packet in (("udp or sctp", udp(ENDS, 1, 2)), ("udp or sctp", sctp(ENDS, 1, 2)), ("icmp", echo(ENDS))):
        ovs.appctl("dpctl/flush-conntrack")
        ovs.send(1, frame(packet))
        found[f"{name}, unanswered"] = _idle(ovs)
        ovs.send(2, frame(packet.reply()))
        found[f"{name}, answered"] = _idle(ovs)
    syn = tcp(ENDS, 1000, 80)
    steps = (
        ("syn", 1, 0x02),
        ("syn and ack", 2, 0x12),
        ("established", 1, ACK),
        ("one end has finished", 1, 0x11),
        ("both have", 2, 0x11),
        ("closed", 1, ACK),
    )
    for last, path in ((None, steps), ("reset", (*steps[:3], ("reset", 2, 0x14)))):
        ovs.appctl("dpctl/flush-conntrack")
        for name, port, flags in path:
            ovs.send(port, frame((syn if port == 1 else syn.reply()).with_flags(flags)))
            if last in (None, name):
                found[name] = _idle(ovs)
    return found


def test_idle_times_are_as_documented(dummy: DummyOvs) -> None:
    assert _idle_times(dummy) == IDLE


def test_idle_times_of_a_zone_can_be_set(dummy: DummyOvs) -> None:
    """`ovs-vsctl add-zone-tp` has effect on userspace's datapath too, once the database has a row for the datapath.

    Open vSwitch 3.3 to 3.7.1 takes no notice of the first policy of a zone, only of what replaces it.
    """
    database = f"--db=unix:{dummy.directory}/db.sock"
    row = ("--id=@dp", "create", "Datapath", 'datapath_version=""', "--", "set", "Open_vSwitch", ".")
    dummy.run("ovs-vsctl", database, "--", *row, "datapaths:dummy=@dp")
    policy = {
        "udp_first": 7,
        "udp_multiple": 9,
        "icmp_first": 4,
        "icmp_reply": 5,
        "tcp_syn_sent": 6,
        "tcp_established": 3600,
        "tcp_fin_wait": 13,
    }
    zone = ("add-zone-tp", "dummy", "zone=5")
    dummy.run("ovs-vsctl", database, *zone, "udp_first=8")
    dummy.run("ovs-vsctl", database, "--may-exist", *zone, *(f"{k}={v}" for k, v in policy.items()))
    assert _idle_times(dummy) == {
        **IDLE,
        "udp or sctp, unanswered": 7,
        "udp or sctp, answered": 9,
        "icmp, unanswered": 4,
        "icmp, answered": 5,
        "syn": 6,
        "established": 3600,
        "one end has finished": 13,
    }


def _open(ovs: Ovs, zone: int, ports: range) -> None:
    """Commit a connection for each port."""
    for port in ports:
        packet = frame(udp(ENDS, port, 53)).hex()
        ovs.ofctl("br-int", "packet-out", f"in_port=controller,packet={packet},actions=ct(commit,zone={zone})")


def _limits(ovs: Ovs) -> dict[int, tuple[int, int]]:
    shown = ovs.appctl("dpctl/ct-get-limits")
    return {int(z): (int(n), int(c)) for z, n, c in re.findall(r"zone=(\d+),limit=(\d+),count=(\d+)", shown)}


def test_a_tenant_with_a_full_zone_is_named_and_affects_no_other() -> None:
    with Ovs() as ovs:
        ovs.bridge("br-int")
        flag = Flag()
        limits = ConntrackLimits(10, flag)
        zones = BridgeZones(
            DatapathRef(ovs.remote, "netdev"),
            {ZONE: ZoneShare(COMMON), 0x2001: ZoneShare("red"), 0x2002: ZoneShare("blue")},
        )
        limits.set_zones({"node1": zones}, ["node1"])
        assert not limits.check()
        assert _limits(ovs) == {ZONE: (1_500_000, 0), 0x2001: (10, 0), 0x2002: (10, 0)}
        _open(ovs, 0x2001, range(1000, 1015))
        _open(ovs, 0x2002, range(1000, 1005))
        _open(ovs, ZONE, range(1000, 1015))
        flag.clear()
        assert not limits.check()
        assert flag.wait(0.0), "somebody came to be at a limit"
        assert _limits(ovs) == {ZONE: (1_500_000, 15), 0x2001: (10, 10), 0x2002: (10, 5)}
        assert dict(limits.tenants_at_limit) == {"node1": ("red",)}
        (said,) = limits.problems
        assert said.startswith("node node1: tenant red has as many connections as it may have there (10, tenant_conn")
        ovs.appctl("dpctl/flush-conntrack", f"zone={0x2001}")
        limits.check()
        assert limits.problems == ()
        assert flag.wait(0.0), "nobody is at a limit any more"
        limits.set_zones(
            {"node1": BridgeZones(zones.datapath, {ZONE: ZoneShare(COMMON), 0x2002: ZoneShare("blue")})}, ["node1"]
        )
        limits.check()
        assert _limits(ovs) == {ZONE: (1_500_000, 15), 0x2002: (10, 5)}
        # A table that is smaller than the setting fits: another process, with all to be done again.
        ovs.kill_switch()
        assert limits.check()
        ovs.start_switch()
        ovs.appctl("dpctl/ct-set-maxconns", "20")
        assert not limits.check()
        assert _limits(ovs) == {ZONE: (10, 0), 0x2002: (5, 0)}


def test_limits_in_the_database_keep_ours_out_and_are_a_problem() -> None:
    """From 3.3 on: with a limit of any zone in the database, ovs-vswitchd takes those of the database only."""
    with Ovs() as ovs:
        if "set-zone-limit" not in ovs.vsctl("--help"):
            pytest.skip("this Open vSwitch has no limits of zones in its database")
        ovs.bridge("br-int")
        row = ("--id=@dp", "create", "Datapath", 'datapath_version=""', "--", "set", "Open_vSwitch", ".")
        ovs.vsctl("--", *row, "datapaths:netdev=@dp")
        ovs.vsctl("set-zone-limit", "netdev", "77", "5")
        now = [0.0]
        limits = ConntrackLimits(10, Flag(), clock=lambda: now[0])
        zones = BridgeZones(DatapathRef(ovs.remote, "netdev"), {ZONE: ZoneShare(COMMON)})
        limits.set_zones({"node1": zones}, ["node1"])
        assert limits.check()
        now[0] = REPORT_AFTER_SECONDS
        limits.check()
        (problem,) = limits.problems
        assert problem.startswith("tenants' connections are not limited (tenant_connections): ")
        assert "the zone limits are set via database" in problem
        ovs.vsctl("del-zone-limit", "netdev", "77")
        assert not limits.check()
        assert limits.problems == ()
        assert _limits(ovs) == {ZONE: (1_500_000, 0)}


def test_zone_limits_are_set_again_after_a_switch_crash() -> None:
    with Ovs() as ovs, Controller((ovs.remote,)) as controller:
        controller.write("nodes.yaml", TWO_NODES)
        controller.write("pods.yaml", placed_pod("x"))
        ovs.bridge("br-int", node="node1", controller=controller.openflow)
        ovs.appctl("dpctl/ct-set-maxconns", "20")
        controller.start()
        ovs.port("br-int", "px", iface_id="a/x", ofport=1)
        controller.settled()
        eventually(lambda: sorted(_limits(ovs).values()) == [(5, 0), (10, 0)], "the zones have their limits")
        assert _limits(ovs)[ZONE] == (10, 0)
        (own,) = _limits(ovs).keys() - {ZONE}
        assert f"set_field:{own << 16:#x}/0xffff0000->reg11" in "".join(ovs.flows("br-int"))
        _open(ovs, ZONE, range(1000, 1012))
        state = controller.until(lambda state: state["nodes"]["node1"]["full"], "it is named")
        assert state["nodes"]["node1"]["full"] == [COMMON]
        assert len([text for text in state["problems"] if "are as many as there may be (10)" in text]) == 1
        ovs.kill_switch()
        controller.until(lambda state: not state["nodes"]["node1"]["connected"], "the death is noticed")
        ovs.start_switch()
        eventually(lambda: _limits(ovs) == {ZONE: (1_500_000, 0), own: (250_000, 0)}, "the zones have limits again")
        controller.until(lambda state: not state["problems"] and not state["nodes"]["node1"]["full"], "all is well")
        controller.settled()
        assert controller.log.count("are as many as there may be") == 1
        assert controller.log.count("can open connections again") == 1


def test_thousands_of_zones_need_one_command_each_way() -> None:
    """As many as a node with a pod of a shared tenant has at most, each tenant elsewhere having its own."""
    with Ovs() as ovs:
        ovs.bridge("br-int")
        limits = ConntrackLimits(10, Flag())
        shares = {ZONE: ZoneShare(COMMON), **{ZONE + index: ZoneShare(f"t{index}") for index in range(1, 4096)}}
        limits.set_zones({"node1": BridgeZones(DatapathRef(ovs.remote, "netdev"), shares)}, ["node1"])
        assert not limits.check()
        assert not limits.check()
        assert limits.problems == ()
        found = _limits(ovs)
        assert len(found) == 4096 and set(found.values()) == {(10, 0), (1_500_000, 0)}
        _open(ovs, ZONE + 4095, range(1000, 1012))
        assert not limits.check()
        assert dict(limits.tenants_at_limit) == {"node1": ("t4095",)}


def test_a_name_servers_datapath_flows_do_not_grow_with_clients() -> None:
    """Its zones take one for each tenant on each node, and no more for more pods."""
    shared, segments, remote = 4, (8, 12), (2, 3)
    clients = [SimPod(f"c{segment}", 2, segment, segment=segment) for segment in segments]
    lab = SimNetwork.of(SimPod("s", 1, 1, segment=shared), *clients, shared=frozenset({str(shared)}))
    ways = tuple(RemoteHost(number, f"n{number}", UPLINK_PORT) for number in remote)
    flows = compile_node(replace(lab.view(1), hosts=ways), lab.permissions(1)).flows.values()
    server = lab.pods["s"]
    with dummy_switch({"server": 1, "uplink": UPLINK_PORT}) as switch:
        switch.load([unmetered(flow).text(TABLE_IDS) for flow in flows])

        def served(ends: range) -> int:
            """The datapath's flows once so many pods of each tenant on each node were answered."""
            for client, host, end in product(clients, remote, ends):
                address = PLAN.address(client.segment, host, end)
                wire = f"{0x0A01 << 32 | client.identity:012x}"
                mac = ":".join(wire[at : at + 2] for at in range(0, 12, 2))
                asked = switch.send("uplink", udp_frame(address, server.address, (4000, 53), eth_src=mac))
                own = PLAN.mac(server.address)
                answered = switch.send("server", udp_frame(server.address, address, (53, 4000), eth_src=own))
                assert list(asked) == ["server"] and list(answered) == ["uplink"]
            return len(switch.run("ovs-appctl", "dpctl/dump-flows").splitlines())

        served(range(3, 5))
        few = served(range(5, 6))
        assert served(range(6, 16)) == few


LIMIT, TRIED = 40, 120
OPENING = """
import json, socket, sys
address, count = json.loads(sys.argv[1])
held = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
for one in held:
    one.settimeout(0.02)
    one.sendto(b"x", (address, 80))
    try:
        one.recv(100)
    except TimeoutError:
        pass
"""
"""Datagrams to a server from as many ports, each of which is a connection of its own. Each waits a little for its
answer, so that no queue of the switch's is ever full."""


@pytest.mark.parametrize("fabric", Fabric)
def test_a_tenant_cannot_exhaust_a_shared_tenants_connections(
    fabric: Fabric, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Pods of tenant red on node2 open all that they can at the name server on node1; blue's still reach it."""
    conf = tmp_path_factory.mktemp("c") / "romana.conf"
    conf.write_text(f"[romana]\ntenant_connections = {LIMIT}\n")
    pods = placed_pod("dns", "node1", "kube-system") + "".join(
        placed_pod(name, "node2", namespace) for namespace in ("red", "blue") for name in ("one", "two")
    )
    folder = tmp_path_factory.mktemp("m")
    with live_cluster(folder, ("node1", "node2"), fabric=fabric, manifests={"pods": pods}, settings=(conf,)) as cluster:
        server, node = cluster.pod("kube-system/dns"), cluster.node("node1")

        def counts() -> list[tuple[int, int]]:
            shown = node.appctl("dpctl/ct-get-limits")
            return sorted((int(n), int(c)) for n, c in re.findall(r"zone=\d+,limit=(\d+),count=(\d+)", shown))

        # The shared tenant, red, blue; the common zone has half of the table.
        eventually(lambda: [n for n, _ in counts()] == [LIMIT] * 3 + [1_500_000], "all tenants have limits")
        for name in ("one", "two"):
            red = cluster.pod(f"red/{name}")
            order = json.dumps([server.place.address, TRIED])
            run(inside(red.netns, [sys.executable, "-c", OPENING, order]))
        assert counts()[:3] == [(LIMIT, 0), (LIMIT, 0), (LIMIT, LIMIT)], "red has all that it may have, and it is red's"
        assert not _connects(cluster, "red/one"), "red opens no more"
        assert _connects(cluster, "blue/one") and _connects(cluster, "blue/two")
        told = "node node1: tenant red has as many connections as it may have there"
        cluster.await_state(lambda state: any(text.startswith(told) for text in state.problems), "red is named")
        assert not any("tenant blue" in text or "kube-system" in text for text in cluster.emulation.state.problems)


def _connects(cluster: LiveCluster, client: str) -> bool:
    """Whether a pod opens a TCP connection to the name server and is answered on it."""
    address = cluster.pod("kube-system/dns").place.address
    (answer,) = cluster.pod(client).agent.probe([(address, 80, "tcp", "kube-system/dns")])
    return answer.open


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder that no switch process runs in."""
    folder = Path(tempfile.mkdtemp(prefix="rdb-"))
    yield folder
    shutil.rmtree(folder)


def test_without_a_control_socket_all_else_goes_on(elsewhere: Path) -> None:
    with Ovs() as ovs:
        (elsewhere / "db.sock").symlink_to(f"{ovs.folder}/db.sock")
        with Controller((f"unix:{elsewhere}/db.sock",)) as controller:
            controller.write("nodes.yaml", TWO_NODES)
            controller.write("pods.yaml", placed_pod("x"))
            controller.start()
            ovs.bridge("br-int", node="node1", controller=controller.openflow)
            ovs.port("br-int", "px", iface_id="a/x", ofport=1)
            controller.settled()
            said = f"tenants' connections are not limited (tenant_connections): {elsewhere}/ovs-vswitchd.pid"
            state = controller.until(lambda state: state["problems"], "it is said")
            assert [text[: len(said)] for text in state["problems"]] == [said]
            assert _limits(ovs) == {}
            controller.after_change(lambda: controller.write("more.yaml", placed_pod("y")))
            assert controller.log.count(said) == 1
