"""Defines the components of the Kubernetes process, and the context of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from romana_ovs.kube.api.client import Api
from romana_ovs.kube.api.lease import LeadershipGuard
from romana_ovs.kube.api.messages import Start


@dataclass(frozen=True, slots=True)
class Context:
    """The context of every component. `send` sends a message to the controller, from any thread.

    `guard` has the leadership term of this process, if it leads. LeaderTasks sets it; writes of the leader need it.
    """

    api: Api
    start: Start
    send: Callable[[object], None]
    guard: LeadershipGuard = field(default_factory=LeadershipGuard)


class Component(Protocol):
    """One task of the process. `handles` are the types of its messages."""

    handles: tuple[type, ...]

    def start(self) -> None:
        """Start; returns at once."""

    def handle(self, message: object) -> None:
        """Handle a message from the controller of one of these types; returns at once."""

    def stop(self) -> None:
        """Stop in an orderly way, within a few seconds."""
