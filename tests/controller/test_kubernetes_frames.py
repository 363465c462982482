"""Frames that several green threads send to the Kubernetes process at once arrive whole."""

from __future__ import annotations

import os
from dataclasses import dataclass

import eventlet

from romana_ovs.controller.kubernetes import Kubernetes
from romana_ovs.flag import Flag
from romana_ovs.kube.api.messages import FrameReader
from romana_ovs.kube.api.source import ApiSource
from romana_ovs.model.settings import Settings

PIECE = 4096


@dataclass(frozen=True)
class Long:
    """A message that no pipe takes at once."""

    sender: int
    text: str = "x" * 300_000


def test_frames_are_not_mixed_while_the_pipe_is_full() -> None:
    incoming, outgoing = os.pipe()
    for end in (incoming, outgoing):
        os.set_blocking(end, False)
    source = Kubernetes(ApiSource("/nowhere"), Settings(), Flag())
    with source._writer(outgoing):
        senders = [eventlet.spawn(source.send, (Long(number),)) for number in range(3)]
        reader, received = FrameReader(), list[Long]()
        with eventlet.Timeout(20):
            while len(received) < len(senders):
                eventlet.sleep(0)
                try:
                    received += (
                        message for message in reader.feed(os.read(incoming, PIECE)) if isinstance(message, Long)
                    )
                except BlockingIOError:
                    continue
    assert sorted(message.sender for message in received) == [0, 1, 2]
    for end in (incoming, outgoing):
        os.close(end)
