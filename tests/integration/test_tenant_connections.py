"""Limits of connections on a real Open vSwitch: what it does at one; that it is set, watched, told of, set again."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from romana_ovs.controller.limits import COMMON, Limits, Place, Zones
from romana_ovs.pipeline.packet import ACK, Addresses, Packet, echo, sctp, tcp, udp
from romana_ovs.pipeline.zones import common_zone
from tests.integration.dummy import DummyOvs
from tests.integration.ovs import Ovs, eventually, needs_ovs
from tests.integration.running import NODES, Controller, pod
from tests.integration.wire import frame

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
    "udp or sctp, unanswered": 60, "udp or sctp, answered": 30, "icmp, unanswered": 60, "icmp, answered": 30,
    "syn": 30, "syn and ack": 30, "established": 86400, "one end has finished": 900, "both have": 45,
    "closed": 30, "reset": 30,
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
        ("syn", 1, 0x02), ("syn and ack", 2, 0x12), ("established", 1, ACK), ("one end has finished", 1, 0x11),
        ("both have", 2, 0x11), ("closed", 1, ACK),
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
    """`ovs-vsctl add-zone-tp` has effect on userspace's datapath too, once the database has a row for the datapath."""
    database = f"--db=unix:{dummy.directory}/db.sock"
    row = ("--id=@dp", "create", "Datapath", 'datapath_version=""', "--", "set", "Open_vSwitch", ".")
    dummy.run("ovs-vsctl", database, "--", *row, "datapaths:dummy=@dp")
    policy = {"udp_first": 7, "udp_multiple": 9, "icmp_first": 4, "icmp_reply": 5, "tcp_syn_sent": 6,
              "tcp_established": 3600, "tcp_fin_wait": 13}
    dummy.run("ovs-vsctl", database, "add-zone-tp", "dummy", "zone=5", *(f"{k}={v}" for k, v in policy.items()))
    assert _idle_times(dummy) == {
        **IDLE, "udp or sctp, unanswered": 7, "udp or sctp, answered": 9, "icmp, unanswered": 4, "icmp, answered": 5,
        "syn": 6, "established": 3600, "one end has finished": 13,
    }


def _open(ovs: Ovs, zone: int, ports: range) -> None:
    """Commit a connection for each port."""
    for port in ports:
        packet = frame(udp(ENDS, port, 53)).hex()
        ovs.ofctl("br-int", "packet-out", f"in_port=controller,packet={packet},actions=ct(commit,zone={zone})")


def _limits(ovs: Ovs) -> dict[int, tuple[int, int]]:
    shown = ovs.appctl("dpctl/ct-get-limits")
    return {int(z): (int(n), int(c)) for z, n, c in re.findall(r"zone=(\d+),limit=(\d+),count=(\d+)", shown)}


def test_the_tenant_that_fills_its_zone_is_named_and_others_open_theirs() -> None:
    with Ovs() as ovs:
        ovs.bridge("br-int")
        news: list[int] = []
        limits = Limits(10, lambda: news.append(1))
        zones = Zones(Place(ovs.remote, "netdev"), {ZONE: COMMON, 0x2001: "red", 0x2002: "blue"})
        limits.follow({"node1": zones}, ["node1"])
        assert not limits.work()
        assert _limits(ovs) == {ZONE: (1_500_000, 0), 0x2001: (10, 0), 0x2002: (10, 0)}
        _open(ovs, 0x2001, range(1000, 1015))
        _open(ovs, 0x2002, range(1000, 1005))
        _open(ovs, ZONE, range(1000, 1015))
        assert not limits.work()
        assert _limits(ovs) == {ZONE: (1_500_000, 15), 0x2001: (10, 10), 0x2002: (10, 5)}
        assert dict(limits.full) == {"node1": ("red",)}
        (said,) = limits.problems
        assert said.startswith("node node1: tenant red has as many connections as it may have there (10, tenant_conn")
        ovs.appctl("dpctl/flush-conntrack", f"zone={0x2001}")
        limits.work()
        assert limits.problems == ()
        assert len(news) == 2
        limits.follow({"node1": Zones(zones.place, {ZONE: COMMON, 0x2002: "blue"})}, ["node1"])
        limits.work()
        assert _limits(ovs) == {ZONE: (1_500_000, 15), 0x2002: (10, 5)}
        # A table that is smaller than the setting fits: another process, with all to be done again.
        ovs.kill_switch()
        assert limits.work()
        ovs.start_switch()
        ovs.appctl("dpctl/ct-set-maxconns", "20")
        assert not limits.work()
        assert _limits(ovs) == {ZONE: (10, 0), 0x2002: (5, 0)}


def test_the_controller_limits_what_its_bridges_track_also_after_the_switch_died() -> None:
    with Ovs() as ovs, Controller((ovs.remote,)) as controller:
        controller.write("nodes.yaml", NODES)
        controller.write("pods.yaml", pod("x"))
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
            controller.write("nodes.yaml", NODES)
            controller.write("pods.yaml", pod("x"))
            controller.start()
            ovs.bridge("br-int", node="node1", controller=controller.openflow)
            ovs.port("br-int", "px", iface_id="a/x", ofport=1)
            controller.settled()
            said = f"tenants' connections are not limited (tenant_connections): {elsewhere}/ovs-vswitchd.pid"
            state = controller.until(lambda state: state["problems"], "it is said")
            assert [text[: len(said)] for text in state["problems"]] == [said]
            assert _limits(ovs) == {}
            controller.after_change(lambda: controller.write("more.yaml", pod("y")))
            assert controller.log.count(said) == 1
