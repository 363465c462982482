"""What the parts of the Kubernetes process have in common: what each is given, and what each can do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from romana_ovs.kube.api.client import Api
from romana_ovs.kube.api.lease import Fence
from romana_ovs.kube.api.messages import Start


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a part has to work with. `send` takes any message for the controller, from any thread.

    `fence` says whether we lead: Writers keeps it, and whoever writes what only the leader may write asks it.
    """

    api: Api
    start: Start
    send: Callable[[object], None]
    fence: Fence = field(default_factory=Fence)


class Part(Protocol):
    """One job of the process. `wants` are the kinds of messages that are for it."""

    wants: tuple[type, ...]

    def start(self) -> None:
        """Begin; returns at once."""

    def take(self, message: object) -> None:
        """A message from the controller, of a kind that it wants; returns at once."""

    def end(self) -> None:
        """Nobody asks any more: come to an orderly end, within a few seconds."""
