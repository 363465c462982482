"""Encodes OpenFlow 1.5 messages other than flows: bundles, barriers, switch configuration, conntrack flush.

Sources: OpenFlow 1.5.1 sections 7.3.2 and 7.3.9; nicira-ext.h for NXT_CT_FLUSH (Open vSwitch 3.1 and later).
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

from romana_ovs.switch.wire import message

HELLO, ERROR, ECHO_REQUEST, ECHO_REPLY, EXPERIMENTER = 0, 1, 2, 3, 4
FEATURES_REPLY, GET_CONFIG_REPLY, SET_CONFIG, PACKET_IN, FLOW_REMOVED, PORT_STATUS = 6, 8, 9, 10, 11, 12
MULTIPART_REPLY, BARRIER_REQUEST, BARRIER_REPLY = 19, 20, 21
BUNDLE_CONTROL, BUNDLE_ADD = 33, 34

OPEN, COMMIT, DISCARD = 0, 4, 6
ATOMIC_ORDERED = 3
FRAGMENTS_NX_MATCH = 3
"""ofp_config_flags as Open vSwitch extends them: `set-frags nx-match` (docs/dataplane.md, fragments)."""

NICIRA = 0x2320
CT_FLUSH = 32
MISS_SEND_LENGTH = 128
"""Bytes, OpenFlow's default. A controller of type `service` gets no packets with 0; table misses are dropped anyway."""
_CT_ORIGINAL, _CT_ZONE = 0, 2
_TUPLE_SOURCE, _TUPLE_DESTINATION = 0, 1

_BUNDLE = struct.Struct("!IHH")
_BUNDLE_ADD = struct.Struct("!I2xH")
_CONFIG = struct.Struct("!HH")
_EXPERIMENT = struct.Struct("!II")
_PROPERTY = struct.Struct("!HH")


def barrier(xid: int) -> bytes:
    """A barrier request; its reply confirms all earlier messages."""
    return message(BARRIER_REQUEST, xid)


def set_config(xid: int) -> bytes:
    """Sets that later fragments match as fragments, and that packets to the controller get there."""
    return message(SET_CONFIG, xid, _CONFIG.pack(FRAGMENTS_NX_MATCH, MISS_SEND_LENGTH))


def bundle_control(bundle: int, kind: int, xid: int) -> bytes:
    """Open, commit or discard an atomic, ordered bundle."""
    return message(BUNDLE_CONTROL, xid, _BUNDLE.pack(bundle, kind, ATOMIC_ORDERED))


def bundled(bundle: int, inner: bytes, xid: int) -> bytes:
    """A message (which has the same xid, as the switch demands) put into a bundle."""
    return message(BUNDLE_ADD, xid, _BUNDLE_ADD.pack(bundle, ATOMIC_ORDERED) + inner)


def flush_connections(zone: int | None, address: IPv4Address, xid: int) -> bytes:
    """Two messages that flush every connection in `zone` (None: in all zones) from and to `address`."""
    return b"".join(
        message(EXPERIMENTER, xid, _EXPERIMENT.pack(NICIRA, CT_FLUSH) + bytes(8) + _flush_body(zone, address, end))
        for end in (_TUPLE_SOURCE, _TUPLE_DESTINATION)
    )


def _flush_body(zone: int | None, address: IPv4Address, end: int) -> bytes:
    mapped = bytes(10) + b"\xff\xff" + address.packed
    address_property = _PROPERTY.pack(end, _PROPERTY.size + len(mapped)) + mapped
    nested = bytes(4) + address_property + bytes(-len(address_property) % 8)
    original = _PROPERTY.pack(_CT_ORIGINAL, _PROPERTY.size + len(nested)) + nested
    return original + (_PROPERTY.pack(_CT_ZONE, 8) + struct.pack("!H2x", zone) if zone is not None else b"")
