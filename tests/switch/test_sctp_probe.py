"""How it is found out whether a switch tracks SCTP by ports: the packets, and what is made of what comes back.

Only Open vSwitch 3.1 is at hand, which does not in userspace; so what a switch that does would send back stands here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any

import eventlet
import pytest

from romana_ovs import runtime
from romana_ovs.switch import channel, messages
from romana_ovs.switch.channel import Channel, ConnectionLost
from romana_ovs.switch.sctp_probe import crc32c, probe_messages, seen_in, tracks_ports

WHOLE = bytes.fromhex("ffffffff00420500ffffffffffffffff0001000c80000004fffffffd000000000000")
"""What stands before the packet in a packet-in of Open vSwitch 3.1, recorded."""
OTHER_BYTES = bytes.fromhex("0a58000000020a58000000010806" + "00" * 46)


def _packets() -> list[bytes]:
    """The frames that the switch is given."""
    found = []
    for message in probe_messages(7):
        actions = struct.unpack_from("!H", message, 12)[0]
        found.append(message[8 + 8 + 16 + actions :])
    return found


def _sent_back(packet: bytes, *, translated: bool) -> memoryview:
    """The body of the packet-in with a packet, the destination address of which was translated back or was not."""
    changed = packet[:30] + IPv4Address("192.0.2.1").packed + packet[34:]
    return memoryview(WHOLE + (changed if translated else packet))


def test_the_checksum_is_that_of_sctp() -> None:
    assert crc32c(b"123456789") == 0xE3069283


def test_the_packets_are_valid_for_a_tracker_that_checks_them() -> None:
    first, answer, other = _packets()
    for packet, kind in ((first, 1), (answer, 2), (other, 1)):
        ip, sctp = packet[14:34], packet[34:]
        assert packet[12:14] == b"\x08\x00"
        assert sum(struct.unpack("!10H", ip)) % 0xFFFF == 0
        assert struct.unpack_from("!H", ip, 2)[0] == len(ip) + len(sctp)
        assert struct.unpack_from("<I", sctp, 8)[0] == crc32c(sctp[:8] + bytes(4) + sctp[12:])
        tag, (type_, length) = sctp[4:8], struct.unpack_from("!BxH", sctp, 12)
        assert (type_, length) == (kind, len(sctp) - 12)
        # An INIT has no verification tag, its answer has the one that the INIT asked for (RFC 9260, 8.5.1).
        assert tag == (first[50:54] if kind == 2 else bytes(4))
    assert [packet[26:34].hex() for packet in (first, answer, other)] == [
        "c0000201c0000203",
        "c0000203c0000202",
        "c0000203c0000202",
    ]
    assert first[34:38] == answer[36:38] + answer[34:36]
    assert not {other[34:36], other[36:38]} & {first[34:36], first[36:38]}


def test_probe_packets_are_recognized() -> None:
    _, answer, other = _packets()
    assert seen_in(_sent_back(answer, translated=True)) == (True, True)
    assert seen_in(_sent_back(other, translated=False)) == (False, False)
    assert seen_in(memoryview(WHOLE + OTHER_BYTES)) is None
    assert seen_in(memoryview(WHOLE + answer[:30])) is None
    assert seen_in(memoryview(WHOLE[:3])) is None
    # A match of an impossible length: what it says lies behind the end.
    assert seen_in(memoryview(WHOLE[:18] + b"\xff\xff" + WHOLE[20:] + answer)) is None
    assert seen_in(memoryview(WHOLE + answer[:34] + b"\x00\x50\x00\x50" + answer[38:])) is None


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ({True: True, False: False}, True),
        ({True: True, False: True}, False),
        ({True: False, False: False}, None),
        ({True: False, False: True}, None),
        ({True: True}, None),
        ({False: False}, None),
        ({}, None),
    ],
)
def test_only_a_connection_that_was_there_proves_anything(seen: dict[bool, bool], expected: bool | None) -> None:
    assert tracks_ports(seen) is expected


assert runtime.OFP_VERSION == 6, "Ryu's modules can be imported in its own order alone: runtime comes first"


class Switch:
    """The connection to a switch that answers every barrier and then sends packets back as `react` has it."""

    id = 1
    xid = 40

    def __init__(self, react: Callable[[Channel, list[bytes]], None]) -> None:
        self.receiver: Any = None
        self._react = react

    def next_xid(self) -> int:
        self.xid += 1
        return self.xid

    def send(self, data: bytes) -> bool:
        kinds, at = [], 0
        while at < len(data):
            _, kind, length, _ = struct.unpack_from("!BBHI", data, at)
            kinds.append(kind)
            at += length
        assert kinds == [13, 13, 13, messages.BARRIER_REQUEST]
        eventlet.spawn(self._answer)
        return True

    def _answer(self) -> None:
        self.receiver.on_message(messages.BARRIER_REPLY, self.xid, memoryview(b""))
        self._react(self.receiver, _packets())


def _both(*, ports: bool) -> Callable[[Channel, list[bytes]], None]:
    def react(receiver: Channel, packets: list[bytes]) -> None:
        receiver.on_packet_in(memoryview(WHOLE + OTHER_BYTES))
        receiver.on_packet_in(_sent_back(packets[1], translated=True))
        receiver.on_packet_in(_sent_back(packets[2], translated=not ports))

    return react


@pytest.mark.parametrize("ports", [True, False])
def test_a_switch_is_probed_over_its_connection(ports: bool) -> None:
    asked = Channel(Switch(_both(ports=ports)))  # type: ignore[arg-type]
    assert asked.sctp_ports() is ports
    assert asked.packets_in == 1


def test_a_probe_without_packets_back_is_inconclusive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "PROBE_SECONDS", 0.05)
    assert Channel(Switch(lambda *_: None)).sctp_ports() is None  # type: ignore[arg-type]


def test_a_refused_probe_is_inconclusive() -> None:
    refusing = Switch(lambda *_: None)
    asked = Channel(refusing)  # type: ignore[arg-type]

    def answer() -> None:
        refusing.receiver.on_message(messages.ERROR, refusing.xid - 3, memoryview(bytes.fromhex("0002000a")))
        refusing.receiver.on_message(messages.BARRIER_REPLY, refusing.xid, memoryview(b""))

    refusing._answer = answer  # type: ignore[method-assign]
    assert asked.sctp_ports() is None


def test_a_connection_that_ends_meanwhile_is_noticed_soon() -> None:
    asked = Channel(Switch(lambda receiver, _: receiver.on_disconnect()))  # type: ignore[arg-type]
    assert asked.sctp_ports() is None
    with pytest.raises(ConnectionLost):
        asked.sctp_ports()
