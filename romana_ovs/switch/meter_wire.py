"""Encodes meters as OpenFlow 1.5 messages, and decodes those of a switch. Source: OpenFlow 1.5.1 section 7.3.4.5."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from romana_ovs.model.errors import SwitchError
from romana_ovs.pipeline.meters import METERS, Meter
from romana_ovs.switch.wire import MULTIPART_REQUEST, READ_BACK, message
from romana_ovs.sync.meters import MeterChange

METER_DESC = 10
_METER_MOD = 29
_ALL_METERS = 0xFFFFFFFF
_PACKETS, _BURST, _STATS = 2, 4, 8
_FLAGS = _PACKETS | _BURST | _STATS
_DROP = 1
_COMMANDS = {MeterChange.ADD: 0, MeterChange.MODIFY: 1, MeterChange.DELETE: 2}

_MOD = struct.Struct("!HHI")
_BAND = struct.Struct("!HHII4x")
_REQUEST = struct.Struct("!HH4xI4x")
_DESC = struct.Struct("!HHI")


def meter_mod(change: MeterChange, meter: Meter, xid: int) -> bytes:
    """The meter-mod for `change` of `meter`."""
    head = _MOD.pack(_COMMANDS[change], _FLAGS, meter.number)
    band = _BAND.pack(_DROP, _BAND.size, meter.rate, meter.burst) if change is not MeterChange.DELETE else b""
    return message(_METER_MOD, xid, head + band)


def meters_request(xid: int) -> bytes:
    """The request for every meter."""
    return message(MULTIPART_REQUEST, xid, _REQUEST.pack(METER_DESC, 0, _ALL_METERS))


def read_meters(body: memoryview) -> Iterator[Meter]:
    """Our meters in the entries of one multipart reply. Raises SwitchError when a length is impossible.

    A meter with a number of ours but in another form is decoded with rate 0, so that it differs from any desired one.
    """
    at = 0
    while at < len(body):
        if at + _DESC.size > len(body):
            raise SwitchError("a meter description from the switch is cut short")
        length, flags, number = _DESC.unpack_from(body, at)
        if length < _DESC.size or at + length > len(body):
            raise SwitchError(f"a meter description from the switch has the impossible length {length}")
        if number in METERS:
            yield _meter(number, flags, body[at + _DESC.size : at + length])
        at += length


def _meter(number: int, flags: int, bands: memoryview) -> Meter:
    if flags == _FLAGS and len(bands) == _BAND.size:
        kind, length, rate, burst = _BAND.unpack(bands)
        if (kind, length) == (_DROP, _BAND.size):
            return Meter(number, rate, burst, READ_BACK)
    return Meter(number, 0, 0, READ_BACK)
