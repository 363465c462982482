"""How fast an open connection is cut: both ends push without pause, and when did each last hear the other?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from romana_ovs.model.errors import SetupError
from romana_ovs_emulate.agents import Agent
from romana_ovs_emulate.pods import RunningPod

ESTABLISH_SECONDS = 5.0
SILENCE_SECONDS = 0.5
"""Nothing for this long, from ends that push every 20 ms, is silence."""
GIVE_UP_SECONDS = 5.0
POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Cut:
    """How long each end went on hearing the other after the change, in milliseconds; None: it never stopped."""

    client: float | None
    server: float | None

    def within(self, milliseconds: float) -> bool:
        """Whether both directions were cut in that time."""
        return all(end is not None and end <= milliseconds for end in (self.client, self.server))


@dataclass(frozen=True, slots=True)
class OpenConnection:
    """A stream on which both ends have heard each other."""

    client: Agent
    server: Agent

    def await_cut(self, changed: float) -> Cut:
        """When both directions fell silent, counted from `changed` (CLOCK_MONOTONIC seconds). Raises SetupError."""
        deadline = changed + GIVE_UP_SECONDS
        while True:
            now = time.monotonic()
            last = [_last(self.client, "client"), _last(self.server, "server")]
            silent = [now - heard > SILENCE_SECONDS for heard in last]
            if (all(silent) and now - changed > SILENCE_SECONDS) or now > deadline:
                ends = [
                    max(0.0, heard - changed) * 1000 if quiet else None
                    for heard, quiet in zip(last, silent, strict=True)
                ]
                return Cut(*ends)
            time.sleep(POLL_SECONDS)


@contextmanager
def open_connection(client: RunningPod, server: RunningPod, port: int, protocol: str) -> Iterator[OpenConnection]:
    """A stream from `client` to a port of `server`, on which both have heard each other. Raises SetupError."""
    client.agent.close_streams()
    server.agent.close_streams()
    client.agent.stream(server.place.address, port, protocol)
    deadline = time.monotonic() + ESTABLISH_SECONDS
    while not (_last(client.agent, "client") and _last(server.agent, "server")):
        if time.monotonic() > deadline:
            raise SetupError(f"no connection from {client.place.pod} to {server.place.pod} {port}/{protocol}")
        time.sleep(POLL_SECONDS)
    try:
        yield OpenConnection(client.agent, server.agent)
    finally:
        client.agent.close_streams()
        server.agent.close_streams()


def _last(agent: Agent, role: str) -> float:
    """When this end last heard the other, 0 when it never did."""
    return max((stream["last"] for stream in agent.streams() if stream["role"] == role), default=0.0)
