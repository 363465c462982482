"""The program that drops ethertypes, on plain cables: real frames, from inside a namespace as from a pod's."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from romana_ovs.switch import ethertypes
from romana_ovs.switch.ethertypes import NotFiltered, filter_ports
from romana_ovs_emulate.system import in_netns, inside, ip_batch
from tests.support.netns_sockets import Tap, run, udp_socket
from tests.support.waiting import eventually

pytestmark = pytest.mark.root
POD, NODE, PORT = f"rmn-types-{os.getpid()}-pod", f"rmn-types-{os.getpid()}-node", "port"
MACS = b"\x02\0\0\0\0\1\x02\0\0\0\0\2"
IPV4, ARP, IPV6, VLAN, QINQ, MPLS = 0x0800, 0x0806, 0x86DD, 0x8100, 0x88A8, 0x8847
RULES = Path(__file__).parents[2] / "etc" / "nftables" / "pod-ports.nft"
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


@pytest.fixture
def ends(cable: None) -> Iterator[tuple[Tap, Tap]]:
    """Packet sockets at the pod's end and at the port, as the userspace datapath has one."""
    with contextlib.closing(Tap(POD)) as pod, contextlib.closing(Tap(NODE, PORT)) as port:
        yield pod, port


def frame(kind: int, body: bytes = bytes(50)) -> bytes:
    return MACS + struct.pack("!H", kind) + body


def passed(ends: tuple[Tap, Tap], sent: list[bytes]) -> list[bytes]:
    """Which of these frames come to the port. Cables hand on in order, so one that passes is awaited behind them."""
    pod, port = ends
    port.forget()
    for first in range(0, len(sent), BATCH):
        for one in sent[first : first + BATCH]:
            pod.send(one)
        last = frame(IPV4, b"behind %d" % first)

        def arrived(last: bytes = last) -> bool:
            pod.send(last)  # Again each time: a machine that others keep busy may lose one.
            return last in port.drain()

        eventually(arrived, "the frame behind them")
    return [one for one in port.drain() if b"behind" not in one]


def filtered(*devices: str) -> None:
    in_netns(NODE, lambda: filter_ports(devices or (PORT,)))


def shown() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(NODE, "ip", "-j", "-d", "link", "show", PORT).stdout)[0]
    return found


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
def test_other_frames_are_dropped(ends: tuple[Tap, Tap], name: str) -> None:
    assert len(passed(ends, [REFUSED[name]])) == 1, "without the program it arrives"
    filtered()
    assert passed(ends, [REFUSED[name]]) == []


def test_of_all_ethertypes_two_pass(ends: tuple[Tap, Tap]) -> None:
    filtered()
    kinds = list(range(1 << 16))
    random.Random(8).shuffle(kinds)
    assert sorted(passed(ends, [frame(kind) for kind in kinds])) == [frame(IPV4), frame(ARP)]


def test_frames_of_every_length_pass(ends: tuple[Tap, Tap]) -> None:
    """Cut to the header too: what is in them is for the tables."""
    filtered()
    sent = [frame(kind, bytes(length)) for kind in (IPV4, ARP) for length in (0, 1, 19, 28, 46, 1500)]
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
        done = run(POD, "tc", *words.split())
        assert done.returncode == 0, done.stderr
    with contextlib.closing(Tap(POD, "one")) as inner:
        yield inner, ends[1]


def test_what_tc_redirects_is_dropped_too(redirected: tuple[Tap, Tap]) -> None:
    """Generic XDP does not look at such frames."""
    others = [one for name, one in REFUSED.items() if name not in ONE_TAG and len(one) > 14]  # u32 reads a byte more.
    assert len(passed(redirected, others)) == len(others)
    filtered()
    assert passed(redirected, others) == []


def test_a_stripped_tag_passes_the_filter_if_its_payload_may(redirected: tuple[Tap, Tap]) -> None:
    """The kernel takes a tag off where tc gets the frame; a VLAN interface never puts one in. Tables refuse these."""
    filtered()
    assert len(passed(redirected, [REFUSED[name] for name in ONE_TAG])) == len(ONE_TAG)
    inside = [struct.pack("!HH", 5, kind) + bytes(46) for kind in (IPV6, VLAN, 0x88B5, 0x26)]
    assert passed(redirected, [frame(tag, body) for tag in (VLAN, QINQ) for body in inside]) == []


@pytest.fixture
def bridged(cable: None) -> Iterator[Tap]:
    """What gets past PORT to a bridge, which takes frames where the kernel's datapath of Open vSwitch does."""
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
    with contextlib.closing(Tap(NODE, "wire")) as wire:
        yield wire


@pytest.mark.parametrize("way", ["straight", "redirected"])
def test_the_rules_for_the_kernels_datapath(bridged: Tap, way: str, request: pytest.FixtureRequest) -> None:
    pod, _ = request.getfixturevalue("ends" if way == "straight" else "redirected")
    ends = pod, bridged
    others = [one for one in REFUSED.values() if len(one) > 14 or way == "straight"]
    assert len(passed(ends, others)) == len(others)
    text, count = re.subn(r"devices = {.*?}", f'devices = {{ "{PORT}" }}', RULES.read_text())
    assert count == 1
    for _ in range(2):
        done = subprocess.run(inside(NODE, ["nft", "-f", "-"]), input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert passed(ends, others) == []
    assert passed(ends, [frame(ARP)]) == [frame(ARP)]


def test_it_can_be_attached_again_and_taken_off(ends: tuple[Tap, Tap]) -> None:
    filtered()
    first = shown()["xdp"]["prog"]
    assert first["name"] == "ethertypes"
    filtered()
    assert shown()["xdp"]["prog"]["id"] != first["id"]
    assert passed(ends, [frame(IPV6)]) == []
    assert run(NODE, "ip", "link", "set", PORT, "xdp", "off").returncode == 0
    assert "xdp" not in shown()
    assert passed(ends, [frame(IPV6)]) == [frame(IPV6)]


def test_large_packets_pass_and_none_are_merged(cable: None) -> None:
    ip_batch([f"link set {PORT} mtu 9000"], netns=NODE)
    ip_batch(["link set eth0 mtu 9000", "addr add 192.0.2.1/24 dev eth0"], netns=POD)
    assert run(NODE, "ethtool", "-K", PORT, "gro", "on").returncode == 0
    filtered()
    assert "generic-receive-offload: off" in run(NODE, "ethtool", "-k", PORT).stdout
    ip_batch([f"addr add 192.0.2.2/24 dev {PORT}"], netns=NODE)
    with udp_socket(POD, "192.0.2.1", 1000) as pod, udp_socket(NODE, "192.0.2.2", 1000) as node:
        for text in (b"a" * 8000, b"b" * 40_000):
            pod.sendto(text, ("192.0.2.2", 1000))
            assert node.recv(65535) == text


def test_a_device_that_is_not_there(cable: None) -> None:
    with pytest.raises(NotFiltered, match="^nothing: ethertypes cannot be filtered: no interface with this name$"):
        filtered(PORT, "nothing")


def test_a_device_without_xdp(cable: None) -> None:
    with pytest.raises(NotFiltered, match="^lo: ethertypes cannot be filtered: Operation not supported$"):
        filtered("lo")


def test_a_device_with_a_program_of_another_kind(cable: None) -> None:
    """Generic XDP, as others may have attached it: theirs stays."""
    with ethertypes._loaded(ethertypes._library()) as program:
        generic = 1 << 1
        in_netns(NODE, lambda: _attach_as(generic, program))
    before = shown()["xdp"]["prog"]["id"]
    with pytest.raises(NotFiltered, match=f"^{PORT}: ethertypes cannot be filtered: File exists$"):
        filtered()
    assert shown()["xdp"]["prog"]["id"] == before


def _attach_as(mode: int, program: int) -> None:
    assert ethertypes._library().bpf_xdp_attach(socket.if_nametoindex(PORT), program, mode, None) == 0


def test_a_machine_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ethertypes, "LIBRARY", "libbpf.so.none")
    with pytest.raises(NotFiltered, match="without libbpf.so.none: install libbpf"):
        filter_ports(["eth0"])


def command(*words: str, who: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    argv = ["nsenter", f"--net=/run/netns/{NODE}", "--", *who, sys.executable, "-m", "romana_ovs.switch.ethertypes"]
    return subprocess.run(
        [*argv, *words], capture_output=True, text=True, check=False, cwd=Path(ethertypes.__file__).parents[2]
    )


def test_the_command(ends: tuple[Tap, Tap]) -> None:
    done = command(PORT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert passed(ends, [frame(IPV6)]) == []
    done = command(PORT, "nothing")
    assert done.returncode == 2
    assert done.stderr == "romana-ovs: nothing: ethertypes cannot be filtered: no interface with this name\n"


def test_the_command_of_a_user_who_may_not(cable: None) -> None:
    done = command(PORT, who=("setpriv", "--bounding-set=-all", "--inh-caps=-all"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "romana-ovs: ethertypes cannot be filtered: the kernel takes no BPF program: Operation not permitted\n"
    )
    assert "xdp" not in shown()
