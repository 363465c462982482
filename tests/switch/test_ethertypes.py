"""The programs that drop ethertypes, on plain cables: real frames, from inside a namespace as from a pod's.

The userspace datapath takes frames as a packet socket does, the kernel's where a bridge of the kernel does.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from romana_ovs.model.bridge import INGRESS_HOOK, DatapathType, IngressHook
from romana_ovs.switch import bpf, ethertypes
from romana_ovs.switch.ethertypes import NotFiltered, filter_hooks, filter_ports, unfilter_ports
from romana_ovs_emulate.system import in_netns, ip_batch
from tests.support.netns_sockets import Tap, run, udp_socket
from tests.support.waiting import eventually

pytestmark = pytest.mark.root
POD, NODE, PORT = f"rmn-types-{os.getpid()}-pod", f"rmn-types-{os.getpid()}-node", "port"
MACS = b"\x02\0\0\0\0\1\x02\0\0\0\0\2"
IPV4, ARP, IPV6, VLAN, QINQ, MPLS = 0x0800, 0x0806, 0x86DD, 0x8100, 0x88A8, 0x8847
SYSTEM, NETDEV = DatapathType.SYSTEM, DatapathType.NETDEV
ALL = ("u32", "match", "u32", "0", "0")
DROP = ("action", "mirred", "egress", "redirect", "dev", "lo")
"""Every frame, to a device that is down: also in kernels without the classifier matchall and the action drop."""
BATCH = 100
"""Frames between two that are awaited: few enough for the queue of a cable."""


@pytest.fixture
def cable() -> Iterator[None]:
    """A pod's interface `eth0`, and PORT at its other end."""
    ip_batch([f"netns add {POD}", f"netns add {NODE}"])
    try:
        ip_batch([f"link add {PORT} netns {NODE} type veth peer name eth0 netns {POD}"])
        for netns, device in ((POD, "eth0"), (NODE, PORT)):
            ip_batch([f"link set {device} addrgenmode none up"], netns=netns)
        yield
    finally:
        ip_batch([f"netns del {POD}", f"netns del {NODE}"])


@pytest.fixture(params=[SYSTEM, NETDEV], ids=lambda one: one.value)
def datapath(request: pytest.FixtureRequest) -> DatapathType:
    """The datapath that takes the frames."""
    chosen: DatapathType = request.param
    return chosen


on_system = pytest.mark.parametrize("datapath", [SYSTEM], ids=lambda one: one.value)
on_netdev = pytest.mark.parametrize("datapath", [NETDEV], ids=lambda one: one.value)


def bridge_port() -> None:
    """Join PORT and the device `out`, whose other end is `wire`, by a bridge of the kernel."""
    ip_batch(
        [
            "link add bridge type bridge",
            "link add out type veth peer name wire",
            *(f"link set {name} addrgenmode none up" for name in ("bridge", "out", "wire")),
            f"link set {PORT} master bridge",
            "link set out master bridge",
        ],
        netns=NODE,
    )
    # Where the kernel has these, they drop what is no whole packet.
    for name in ("iptables", "ip6tables"):
        run(NODE, "sysctl", "-w", f"net.bridge.bridge-nf-call-{name}=0")


@pytest.fixture
def ends(cable: None, datapath: DatapathType) -> Iterator[tuple[Tap, Tap]]:
    """Packet sockets at the pod's end, and where frames arrive that the datapath takes."""
    if datapath is SYSTEM:
        bridge_port()
    arrivals = "wire" if datapath is SYSTEM else PORT
    with contextlib.closing(Tap(POD)) as pod, contextlib.closing(Tap(NODE, arrivals)) as port:
        # A bridge loses what comes while its ports come up.
        assert passed((pod, port), []) == []
        yield pod, port


def frame(kind: int, body: bytes = bytes(50)) -> bytes:
    return MACS + struct.pack("!H", kind) + body


def passed(ends: tuple[Tap, Tap], sent: list[bytes]) -> list[bytes]:
    """Which of these frames arrive. Cables hand on in order, so one that passes is awaited behind them."""
    pod, port = ends
    port.forget()
    for first in range(0, len(sent) or 1, BATCH):
        for one in sent[first : first + BATCH]:
            pod.send(one)
        last = frame(IPV4, b"behind %d" % first)

        def arrived(last: bytes = last) -> bool:
            pod.send(last)  # Again each time: a machine that others keep busy may lose one.
            return last in port.drain()

        eventually(arrived, "the frame behind them")
    return [one for one in port.drain() if one.startswith(MACS) and b"behind" not in one]


def filtered(datapath: DatapathType, *devices: str) -> None:
    in_netns(NODE, lambda: filter_ports(devices or (PORT,), datapath))


def hooks() -> frozenset[IngressHook]:
    return in_netns(NODE, lambda: filter_hooks([PORT, "nothing"]))[PORT]


def shown() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(NODE, "ip", "-j", "-d", "link", "show", PORT).stdout)[0]
    return found


def tc(*words: str, netns: str = NODE) -> str:
    done = run(netns, "tc", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


WRAPPED = struct.pack("!HH", 5, IPV4) + bytes(46)
REFUSED = {
    "IPv6": frame(IPV6),
    "VLAN": frame(VLAN, WRAPPED),
    "priority tag": frame(VLAN, b"\0\0" + WRAPPED[2:]),
    "802.1ad": frame(QINQ, WRAPPED),
    "two tags": frame(QINQ, struct.pack("!HH", 5, VLAN) + WRAPPED),
    "tagged ARP": frame(VLAN, struct.pack("!HH", 5, ARP) + bytes(46)),
    "MPLS": frame(MPLS, bytes(54)),
    "LLC": frame(0x26, b"\x42\x42\x03" + bytes(47)),
    "SNAP with IPv4": frame(58, b"\xaa\xaa\x03\0\0\0\x08\0" + bytes(50)),
    "nothing but a header": frame(0x88B5, b""),
    "the type in the wrong order": frame(0x0008),
    "a type that is IPv4 in its first byte": frame(0x08FF),
    "as large as can be": frame(0x88B5, bytes(1500)),
}
ONE_TAG = ("VLAN", "priority tag", "802.1ad", "tagged ARP")


@pytest.mark.parametrize("name", REFUSED)
def test_other_frames_are_dropped(ends: tuple[Tap, Tap], datapath: DatapathType, name: str) -> None:
    assert len(passed(ends, [REFUSED[name]])) == 1, "without the program it arrives"
    filtered(datapath)
    assert passed(ends, [REFUSED[name]]) == []


def test_of_all_ethertypes_two_pass(ends: tuple[Tap, Tap], datapath: DatapathType) -> None:
    filtered(datapath)
    kinds = list(range(1 << 16))
    random.Random(8).shuffle(kinds)
    assert sorted(passed(ends, [frame(kind) for kind in kinds])) == [frame(IPV4), frame(ARP)]


def test_frames_of_every_length_pass(ends: tuple[Tap, Tap], datapath: DatapathType) -> None:
    """Cut to the header too: what is in them is for the tables."""
    filtered(datapath)
    lengths = (0, 1, 19, 28, 46, 1500)
    # A bridge of the kernel drops what is shorter than an ARP packet.
    of_arp = [length for length in lengths if datapath is NETDEV or length >= 28]
    sent = [frame(kind, bytes(length)) for kind, chosen in ((IPV4, lengths), (ARP, of_arp)) for length in chosen]
    assert passed(ends, sent) == sent
    with pytest.raises(OSError, match="Invalid argument"):
        ends[0].send(frame(IPV4)[:13])


@pytest.fixture
def redirected(ends: tuple[Tap, Tap]) -> Iterator[tuple[Tap, Tap]]:
    """The same where tc in the pod redirects to eth0 what another interface sends, as root in a pod can have it."""
    ip_batch(
        [
            "link add one type veth peer name two",
            "link set one addrgenmode none up",
            "link set two addrgenmode none up",
        ],
        netns=POD,
    )
    redirect = "filter add dev two ingress protocol all u32 match u32 0 0 action mirred egress redirect dev eth0"
    for words in ("qdisc add dev two clsact", redirect):
        tc(*words.split(), netns=POD)
    with contextlib.closing(Tap(POD, "one")) as inner:
        yield inner, ends[1]


def test_what_tc_redirects_is_dropped_too(redirected: tuple[Tap, Tap], datapath: DatapathType) -> None:
    """Generic XDP does not look at such frames. The driver's does not see a tag beside the frame, tc does."""
    unseen = ONE_TAG if datapath is NETDEV else ()
    others = [one for name, one in REFUSED.items() if name not in unseen and len(one) > 14]  # u32 reads a byte more.
    assert len(passed(redirected, others)) == len(others)
    filtered(datapath)
    assert passed(redirected, others) == []


@on_netdev
def test_a_stripped_tag_passes_xdp_if_its_payload_may(redirected: tuple[Tap, Tap], datapath: DatapathType) -> None:
    """The kernel takes a tag off where tc gets the frame; a VLAN interface never puts one in. Tables refuse these."""
    filtered(datapath)
    assert len(passed(redirected, [REFUSED[name] for name in ONE_TAG])) == len(ONE_TAG)
    bodies = [struct.pack("!HH", 5, kind) + bytes(46) for kind in (IPV6, VLAN, 0x88B5, 0x26)]
    assert passed(redirected, [frame(tag, body) for tag in (VLAN, QINQ) for body in bodies]) == []


@pytest.mark.parametrize("offload", ["on", "off"])
def test_what_a_vlan_interface_sends_is_dropped(ends: tuple[Tap, Tap], datapath: DatapathType, offload: str) -> None:
    """Its tag is beside the frame or, without the offload, in it. XDP does not see the former."""
    if run(POD, "ip", "link", "add", "link", "eth0", "name", "tagged", "type", "vlan", "id", "5").returncode:
        pytest.skip("this kernel has no VLAN interfaces")
    ip_batch(["link set tagged addrgenmode none up"], netns=POD)
    assert run(POD, "ethtool", "-K", "eth0", "txvlan", offload).returncode == 0
    with contextlib.closing(Tap(POD, "tagged")) as inner:
        sent = [frame(IPV4, b"tagged"), frame(ARP, b"tagged" + bytes(40))]

        def arrived() -> int:
            ends[1].forget()
            for one in sent:
                inner.send(one)
            ends[0].send(frame(IPV4, b"behind"))
            eventually(lambda: ends[1].has(b"behind"), "the frame behind them")
            return sum(b"tagged" in one for one in ends[1].drain())

        assert arrived() == 2
        filtered(datapath)
        assert arrived() == (2 if datapath is NETDEV and offload == "on" else 0)


def test_it_can_be_attached_again_and_removed(ends: tuple[Tap, Tap], datapath: DatapathType) -> None:
    assert hooks() == frozenset()
    for _ in range(3):
        filtered(datapath)
        assert hooks() == {INGRESS_HOOK[datapath]}
        assert passed(ends, [frame(IPV6)]) == []
    for _ in range(2):
        in_netns(NODE, lambda: unfilter_ports([PORT]))
        assert hooks() == frozenset() and "xdp" not in shown()
        assert tc("filter", "show", "dev", PORT, "ingress") == ""
        assert passed(ends, [frame(IPV6)]) == [frame(IPV6)]


def test_programs_are_attached_once(ends: tuple[Tap, Tap], datapath: DatapathType) -> None:
    """In place of each other, as when a bridge gets the other datapath, or an earlier version has attached XDP."""
    for before in (NETDEV, SYSTEM):
        filtered(before)
        filtered(datapath)
        assert hooks() == {INGRESS_HOOK[datapath]}
        shows = tc("filter", "show", "dev", PORT, "ingress").count("name ethertypes") or shown()["xdp"]["prog"]["name"]
        assert shows == (1 if datapath is SYSTEM else "ethertypes")
        assert passed(ends, [frame(IPV6)]) == []


@on_system
@pytest.mark.parametrize("qdisc", ["clsact", "ingress"])
def test_filters_of_others_stay(ends: tuple[Tap, Tap], datapath: DatapathType, qdisc: str) -> None:
    """Such as those of the CNI plugin bandwidth; what ours passes comes to them."""
    tc("qdisc", "add", "dev", PORT, qdisc)
    tc("filter", "add", "dev", PORT, "ingress", "pref", "9", "protocol", "arp", *ALL, *DROP)
    filtered(datapath)
    assert passed(ends, [frame(IPV6), frame(ARP), frame(IPV4)]) == [frame(IPV4)]
    in_netns(NODE, lambda: unfilter_ports([PORT]))
    assert passed(ends, [frame(IPV6), frame(ARP), frame(IPV4)]) == [frame(IPV6), frame(IPV4)]


@on_system
def test_a_filter_that_others_have_there(ends: tuple[Tap, Tap], datapath: DatapathType) -> None:
    """Of another kind, with our priority."""
    tc("qdisc", "add", "dev", PORT, "clsact")
    tc("filter", "add", "dev", PORT, "ingress", "pref", str(bpf.PRIORITY), *ALL, *DROP)
    with pytest.raises(NotFiltered, match=f"^{PORT}: ethertypes cannot be filtered: Invalid argument$"):
        filtered(datapath)
    assert hooks() == frozenset()


def test_segments_stay_large_in_front_of_the_kernels_datapath(cable: None, datapath: DatapathType) -> None:
    filtered(datapath)
    state = "on" if datapath is SYSTEM else "off"
    assert f"tcp-segmentation-offload: {state}" in run(POD, "ethtool", "-k", "eth0").stdout
    filtered(SYSTEM)
    assert "tcp-segmentation-offload: on" in run(POD, "ethtool", "-k", "eth0").stdout


def test_large_packets_pass_and_none_are_merged(cable: None, datapath: DatapathType) -> None:
    ip_batch([f"link set {PORT} mtu 9000"], netns=NODE)
    ip_batch(["link set eth0 mtu 9000", "addr add 192.0.2.1/24 dev eth0"], netns=POD)
    assert run(NODE, "ethtool", "-K", PORT, "gro", "on").returncode == 0
    filtered(datapath)
    assert datapath is SYSTEM or "generic-receive-offload: off" in run(NODE, "ethtool", "-k", PORT).stdout
    ip_batch([f"addr add 192.0.2.2/24 dev {PORT}"], netns=NODE)
    with udp_socket(POD, "192.0.2.1", 1000) as pod, udp_socket(NODE, "192.0.2.2", 1000) as node:
        for text in (b"a" * 8000, b"b" * 40_000):
            pod.sendto(text, ("192.0.2.2", 1000))
            assert node.recv(65535) == text


def test_a_device_that_is_not_there(cable: None, datapath: DatapathType) -> None:
    with pytest.raises(NotFiltered, match="^nothing: ethertypes cannot be filtered: no interface with this name$"):
        filtered(datapath, PORT, "nothing")


def test_a_device_without_xdp(cable: None) -> None:
    with pytest.raises(NotFiltered, match="^lo: ethertypes cannot be filtered: Operation not supported$"):
        filtered(NETDEV, "lo")


def test_an_xdp_program_of_others_stays(cable: None) -> None:
    """A generic one prevents ours; the filter of the kernel's datapath leaves it alone."""
    in_netns(NODE, _attach_generic_xdp)
    before = shown()["xdp"]["prog"]["id"]
    with pytest.raises(NotFiltered, match=f"^{PORT}: ethertypes cannot be filtered: File exists$"):
        filtered(NETDEV)
    filtered(SYSTEM)
    in_netns(NODE, lambda: unfilter_ports([PORT]))
    assert shown()["xdp"]["prog"]["id"] == before


def _attach_generic_xdp() -> None:
    library, generic = bpf.LibBpf(), 1 << 1
    program = library.load(bpf.ProgramType.XDP, b"others", ethertypes.XDP_PROGRAM)
    index = socket.if_nametoindex(PORT)
    assert library._library.bpf_xdp_attach(index, program, generic, None) == 0
    os.close(program)


def test_a_machine_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpf, "LIBRARY", "libbpf.so.none")
    for work in (lambda: filter_ports(["eth0"], NETDEV), lambda: filter_hooks(["eth0"])):
        with pytest.raises(NotFiltered, match="without libbpf.so.none: install libbpf"):
            work()


def command(*words: str, who: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    argv = ["nsenter", f"--net=/run/netns/{NODE}", "--", *who, sys.executable, "-m", "romana_ovs.switch.ethertypes"]
    return subprocess.run(
        [*argv, *words], capture_output=True, text=True, check=False, cwd=Path(ethertypes.__file__).parents[2]
    )


def test_the_command(ends: tuple[Tap, Tap], datapath: DatapathType) -> None:
    """What it attaches outlasts it."""
    done = command(*(["--datapath", "system"] if datapath is SYSTEM else []), PORT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert hooks() == {INGRESS_HOOK[datapath]} and passed(ends, [frame(IPV6)]) == []
    done = command(PORT, "nothing")
    assert done.returncode == 2
    assert done.stderr == "romana-ovs: nothing: ethertypes cannot be filtered: no interface with this name\n"
    done = command("--remove", PORT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert hooks() == frozenset()


def test_the_command_of_a_user_who_may_not(cable: None) -> None:
    done = command(PORT, who=("setpriv", "--bounding-set=-all", "--inh-caps=-all"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "romana-ovs: ethertypes cannot be filtered: the kernel takes no BPF program: Operation not permitted\n"
    )
    assert hooks() == frozenset()
