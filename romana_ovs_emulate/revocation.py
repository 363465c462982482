"""Measures how fast an open connection is cut: both ends push continuously and record when they last received data."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from romana_ovs.model.errors import SetupError
from romana_ovs_emulate.agent_client import AgentClient
from romana_ovs_emulate.patience import patience
from romana_ovs_emulate.pods import RunningPod

ESTABLISH_SECONDS = patience(5.0)
SILENCE_SECONDS = patience(0.5)
"""A direction is cut when nothing arrives for this long, in seconds; ends push every 20 ms."""
GIVE_UP_SECONDS = patience(5.0)
POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class RevocationTimes:
    """How long after the change each end still received data, in milliseconds; None: it never stopped."""

    client: float | None
    server: float | None

    def within(self, milliseconds: float) -> bool:
        """Whether both directions were cut in that time."""
        return all(end is not None and end <= milliseconds for end in (self.client, self.server))


@dataclass(frozen=True, slots=True)
class OpenConnection:
    """A stream on which both ends have received data."""

    client: AgentClient
    server: AgentClient

    def await_revocation(self, changed: float) -> RevocationTimes:
        """When both directions stopped, counted from `changed` (CLOCK_MONOTONIC seconds). Raises SetupError."""
        deadline = changed + GIVE_UP_SECONDS
        while True:
            now = time.monotonic()
            last = [_last_received(self.client, "client"), _last_received(self.server, "server")]
            stopped = [now - at > SILENCE_SECONDS for at in last]
            if (all(stopped) and now - changed > SILENCE_SECONDS) or now > deadline:
                ends = [
                    max(0.0, at - changed) * 1000 if is_stopped else None
                    for at, is_stopped in zip(last, stopped, strict=True)
                ]
                return RevocationTimes(*ends)
            time.sleep(POLL_SECONDS)


@contextmanager
def open_connection(client: RunningPod, server: RunningPod, port: int, protocol: str) -> Iterator[OpenConnection]:
    """A stream from `client` to a port of `server`, on which both have received data. Raises SetupError."""
    client.agent.close_streams()
    server.agent.close_streams()
    client.agent.stream(server.place.address, port, protocol)
    deadline = time.monotonic() + ESTABLISH_SECONDS
    while not (_last_received(client.agent, "client") and _last_received(server.agent, "server")):
        if time.monotonic() > deadline:
            raise SetupError(f"no connection from {client.place.pod} to {server.place.pod} {port}/{protocol}")
        time.sleep(POLL_SECONDS)
    try:
        yield OpenConnection(client.agent, server.agent)
    finally:
        client.agent.close_streams()
        server.agent.close_streams()


def _last_received(agent: AgentClient, role: str) -> float:
    """When this end last received data, 0 when it never did."""
    return max((stream["last"] for stream in agent.streams() if stream["role"] == role), default=0.0)
