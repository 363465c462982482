"""What several green threads tell the Kubernetes process at once arrives whole."""

from __future__ import annotations

# mypy: ignore-errors
import os
from dataclasses import dataclass

import eventlet

from romana_ovs.controller.kubernetes import Kubernetes
from romana_ovs.kube.api.messages import FrameReader
from romana_ovs.kube.api.source import ApiSource
from romana_ovs.model.settings import Settings

PIECE = 4096


@dataclass(frozen=True)
class Long:
    """A message that no pipe takes at once."""

    sender: int
    text: str = "x" * 300_000


class Silent:
    """A listener that no message is for."""

    def on_cluster(self, loaded, noticed):
        pass

    def on_health(self):
        pass

    def on_messages(self, messages):
        pass

    def on_process_started(self):
        pass


def test_frames_do_not_get_into_each_other_while_the_pipe_is_full() -> None:
    incoming, outgoing = os.pipe()
    for end in (incoming, outgoing):
        os.set_blocking(end, False)
    source = Kubernetes(ApiSource("/nowhere"), Settings(), Silent())
    with source._delivering(outgoing):
        tellers = [eventlet.spawn(source.send, Long(number)) for number in range(3)]
        reader, found = FrameReader(), []
        with eventlet.Timeout(20):
            while len(found) < len(tellers):
                eventlet.sleep(0)
                try:
                    found += reader.feed(os.read(incoming, PIECE))
                except BlockingIOError:
                    continue
    assert sorted(message.sender for message in found) == [0, 1, 2]
    for end in (incoming, outgoing):
        os.close(end)
