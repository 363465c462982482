"""SCTP packets as RFC 9260 writes them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from romana_ovs_emulate.agent import sctp

PORTS = st.integers(0, 0xFFFF)
TAGS = st.integers(0, 0xFFFFFFFF)


def test_the_checksum_is_the_published_one() -> None:
    assert sctp.crc32c(b"123456789") == 0xE3069283
    assert sctp.crc32c(bytes(32)) == 0x8A9136AA, "RFC 3720 appendix B.4: 32 bytes of zeroes"


@given(PORTS, PORTS, TAGS, st.sampled_from([sctp.INIT, sctp.INIT_ACK]), TAGS, st.binary(max_size=80))
def test_what_is_encoded_is_decoded(
    source: int, destination: int, tag: int, kind: int, initiate: int, cookie: bytes
) -> None:
    message = sctp.Message(source, destination, tag, kind, initiate, cookie)
    assert sctp.decode(sctp.encode(message)) == message
    assert len(sctp.encode(message)) % 4 == 0


@given(st.integers(0, 31), st.integers(1, 255))
def test_a_damaged_packet_is_none(place: int, change: int) -> None:
    packet = bytearray(sctp.encode(sctp.Message(1, 2, 3, sctp.INIT, 4)))
    packet[place] ^= change
    assert sctp.decode(bytes(packet)) is None


@given(st.binary(max_size=60))
def test_anything_else_is_none_or_a_message(data: bytes) -> None:
    assert sctp.decode(data) is None


def test_the_payload_follows_ip_options() -> None:
    assert sctp.payload(b"\x46" + bytes(23) + b"rest") == b"rest"
