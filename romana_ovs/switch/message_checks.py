"""Checks the lengths in OpenFlow messages before Ryu parses them.

Ryu 4.34 and its forks loop forever, with growing memory, on a hello element, action, instruction, bucket or multipart
body of length zero (docs/hazards.md D12). So only messages that this controller needs reach Ryu, with every length
checked; others are refused or not parsed.
"""

from __future__ import annotations

import struct

from romana_ovs.model.errors import SwitchError
from romana_ovs.switch import messages
from romana_ovs.switch.wire import HEADER, VERSION

OLDEST_VERSION, NEWEST_VERSION = 1, 6
PORT_DESC = 13
MAX_HELLO = 256
"""Bytes; a hello with a version bitmap has 16."""

_ELEMENT = struct.Struct("!HH")
_PORT_HEAD = 40
_FEATURES_BODY = 24
_MULTIPART_HEAD = 8
_ERROR_HEAD = 4


def check_header(version: int, kind: int, length: int) -> None:
    """Raises SwitchError unless this header may start a message from a switch."""
    if length < HEADER.size:
        raise SwitchError(f"a message claims to be {length} bytes long")
    if kind == messages.HELLO:
        if version < OLDEST_VERSION or length > MAX_HELLO:
            raise SwitchError(f"a hello of version {version} and {length} bytes")
    elif version != VERSION and not (kind == messages.ERROR and OLDEST_VERSION <= version <= NEWEST_VERSION):
        raise SwitchError(f"a message of OpenFlow version {version:#x}; only 1.5 ({VERSION:#x}) is supported")


def check_hello(body: memoryview) -> None:
    """Raises SwitchError unless the elements of a hello fill it exactly."""
    _walk(body, "hello element")


def check_features(body: memoryview) -> None:
    """Raises SwitchError unless a features reply has its fixed size."""
    if len(body) != _FEATURES_BODY:
        raise SwitchError(f"a features reply of {len(body)} bytes")


def check_error(body: memoryview) -> None:
    """Raises SwitchError when an error message is too short for its type and code."""
    if len(body) < _ERROR_HEAD:
        raise SwitchError(f"an error of {len(body)} bytes")


def multipart_type(body: memoryview) -> int:
    """The type of a multipart reply. Raises SwitchError when it is too short."""
    if len(body) < _MULTIPART_HEAD:
        raise SwitchError(f"a multipart reply of {len(body)} bytes")
    return int.from_bytes(body[:2], "big")


def check_ports(body: memoryview) -> None:
    """Raises SwitchError unless the ports of a port description, and their properties, fill it exactly."""
    at = _MULTIPART_HEAD
    while at < len(body):
        if at + _PORT_HEAD > len(body):
            raise SwitchError("a port description is cut short")
        length = int.from_bytes(body[at + 4 : at + 6], "big")
        if length < _PORT_HEAD or at + length > len(body):
            raise SwitchError(f"a port description has the impossible length {length}")
        _walk(body[at + _PORT_HEAD : at + length], "port property")
        at += length


def _walk(data: memoryview, what: str) -> None:
    at = 0
    while at < len(data):
        if at + _ELEMENT.size > len(data):
            raise SwitchError(f"a {what} is cut short")
        _, length = _ELEMENT.unpack_from(data, at)
        if length < _ELEMENT.size or at + length > len(data):
            raise SwitchError(f"a {what} has the impossible length {length}")
        at += length + -length % 8
