"""Sends frames as fast as it is told to. A program: run in a pod's network namespace, told by one JSON line.

`{"rate", "seconds", "words", "frames": [{"hex", "places": [[offset, word], ...], "checksum": offset}]}`: `rate`
frames a second for `seconds`. Before the list of frames is sent (again), as many random 16-bit `words` are drawn, and
each place of a frame gets the one that it names. With `checksum` (0: none) the Internet checksum at that offset is
kept right, if the places are zero and at even offsets of what it sums. The output is how many frames were sent.
"""

from __future__ import annotations

import json
import random
import socket
import struct
import sys
import time
from dataclasses import dataclass
from typing import Any

BURST = 20
"""Frames between two looks at the clock."""
MOST_SECONDS = 30.0
MOST_FRAMES = 1_000_000


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
    sent, words, count = 0, [0] * order["words"], len(frames)
    begun = time.monotonic()
    end = begun + min(order["seconds"], MOST_SECONDS)
    while (now := time.monotonic()) < end and sent < MOST_FRAMES:
        if sent > (now - begun) * order["rate"]:
            time.sleep(0.001)
            continue
        for _ in range(BURST):
            if sent % count == 0:
                words = [random.getrandbits(16) for _ in words]
            sender.send(frames[sent % count].filled(words))
            sent += 1
    print(sent)


if __name__ == "__main__":
    main()
