"""Sends frames as fast as it is told to. A program: run in a pod's network namespace, told by one JSON line.

`{"rate", "seconds", "words", "frames": [{"hex", "places": [[offset, word], ...], "checksum": offset}]}`: `rate`
frames a second for `seconds`. Before the list of frames is sent (again), as many random 16-bit `words` are drawn, and
each place of a frame gets the one that it names. With `checksum` (0: none) the Internet checksum at that offset is
kept right, if the places are zero and at even offsets of what it sums. With `ready` that many frames are made
beforehand and sent again and again, many at once. The output is how many frames were sent.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import random
import socket
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

BURST = 20
"""Frames between two looks at the clock."""
BATCH = 50
"""Frames of one system call, of those that are made beforehand."""
MAX_SECONDS = 30.0
MAX_FRAMES = 1_000_000


class _Iovec(ctypes.Structure):
    """`struct iovec`."""

    _fields_ = (("base", ctypes.c_char_p), ("length", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    """`struct msghdr`, recvmsg(2)."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iov", ctypes.POINTER(_Iovec)),
        ("iov_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Mmsghdr(ctypes.Structure):
    """`struct mmsghdr`, sendmmsg(2)."""

    _fields_ = (("header", _Msghdr), ("length", ctypes.c_uint))


class MessageBatch:
    """Frames that are sent by one system call, any number of times: an emulated CPU is too slow for a call a frame."""

    def __init__(self, frames: Sequence[bytes]) -> None:
        self._library = ctypes.CDLL(None, use_errno=True)
        self._count = len(frames)
        self._vectors = (_Iovec * self._count)(*(_Iovec(frame, len(frame)) for frame in frames))
        self._messages = (_Mmsghdr * self._count)()
        for number, message in enumerate(self._messages):
            message.header.iov = ctypes.pointer(self._vectors[number])
            message.header.iov_length = 1

    def send(self, sender: socket.socket) -> int:
        """How many frames were sent, from the first on: 0 when the queue is full. Raises OSError."""
        sent: int = self._library.sendmmsg(sender.fileno(), self._messages, self._count, 0)
        if sent < 0:
            if ctypes.get_errno() == errno.ENOBUFS:
                return 0
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return sent


@dataclass(slots=True)
class Template:
    """A frame with places for random words."""

    frame: bytearray
    places: tuple[tuple[int, int], ...]
    checksum: int
    value: int

    def filled(self, words: list[int]) -> bytearray:
        """The frame with these words in its places; the same object every time."""
        total = ~self.value & 0xFFFF
        for offset, word in self.places:
            struct.pack_into("!H", self.frame, offset, words[word])
            total += words[word]
        if self.checksum:
            while total >> 16:
                total = (total & 0xFFFF) + (total >> 16)
            struct.pack_into("!H", self.frame, self.checksum, ~total & 0xFFFF)
        return self.frame


def template(one: dict[str, Any]) -> Template:
    """A frame of the order."""
    frame = bytearray.fromhex(one["hex"])
    value = struct.unpack_from("!H", frame, one["checksum"])[0] if one["checksum"] else 0
    return Template(frame, tuple(tuple(place) for place in one["places"]), one["checksum"], value)


def main() -> None:
    """Do what the line says."""
    order = json.loads(sys.stdin.readline())
    frames = [template(one) for one in order["frames"]]
    sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sender.bind(("eth0", 0))
    if order.get("ready"):
        print(_send_ready(sender, order, frames))
        return
    sent, words, count = 0, [0] * order["words"], len(frames)
    begun = time.monotonic()
    end = begun + min(order["seconds"], MAX_SECONDS)
    while (now := time.monotonic()) < end and sent < MAX_FRAMES:
        if sent > (now - begun) * order["rate"]:
            time.sleep(0.001)
            continue
        for _ in range(BURST):
            if sent % count == 0:
                words = [random.getrandbits(16) for _ in words]
            sender.send(frames[sent % count].filled(words))
            sent += 1
    print(sent)


def _send_ready(sender: socket.socket, order: dict[str, Any], frames: list[Template]) -> int:
    """How many frames were sent of those that are made beforehand."""
    made = [
        bytes(one.filled([random.getrandbits(16) for _ in range(order["words"])]))
        for one, _ in zip(cycle(frames), range(order["ready"]), strict=False)
    ]
    batches = cycle([MessageBatch(made[first : first + BATCH]) for first in range(0, len(made), BATCH)])
    sent, begun = 0, time.monotonic()
    while (now := time.monotonic()) - begun < order["seconds"]:
        if sent > (now - begun) * order["rate"]:
            time.sleep(0.001)
        else:
            sent += next(batches).send(sender)
    return sent


if __name__ == "__main__":
    main()
