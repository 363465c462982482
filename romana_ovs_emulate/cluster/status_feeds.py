"""Follows the status sockets of the controllers of all nodes, and joins what they report into one state."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace

from romana_ovs.model.errors import SetupError
from romana_ovs_emulate.cluster.node import ClusterNode
from romana_ovs_emulate.controller import Programmed, State, parse_event
from romana_ovs_emulate.patience import patience

SOCKET = "/run/romana-ovs/status.sock"
PROGRAMMED_SECONDS = patience(30.0)
"""How long a change may take until it is in every switch, in seconds."""


class StatusFeeds:
    """The feeds of `nodes`, from `start` until `close`, each in a thread of its own."""

    def __init__(self, nodes: Sequence[ClusterNode]) -> None:
        """Nothing is connected yet."""
        self._nodes = nodes
        self._sockets: list[socket.socket] = []
        self._states: dict[str, State] = {}
        self._events: list[tuple[str, Programmed]] = []
        self._generations: dict[int, Mapping[str, int]] = {}
        self._changed = threading.Condition()

    def start(self) -> None:
        """Connect, and wait for the first state of each. Raises SetupError."""
        for node in self._nodes:
            feed = socket.socket(socket.AF_UNIX)
            try:
                feed.connect(str(node.path(SOCKET)))
            except OSError as error:
                feed.close()
                raise SetupError(f"the controller of {node.name} has no status socket: {error.strerror}") from error
            self._sockets.append(feed)
            threading.Thread(target=self._follow, args=(node.name, feed), daemon=True).start()
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._states) == len(self._nodes), PROGRAMMED_SECONDS):
                raise SetupError("a controller reports no state")

    def close(self) -> None:
        """End all threads. Idempotent."""
        for feed in self._sockets:
            with contextlib.suppress(OSError):
                feed.shutdown(socket.SHUT_RDWR)
            feed.close()
        self._sockets.clear()

    @property
    def state(self) -> State:
        """The states of all controllers as one; its generation is the sum of theirs."""
        with self._changed:
            states = dict(self._states)
            generations = {name: state.generation for name, state in states.items()}
            generation = sum(generations.values())
            self._generations[generation] = generations
        own = {name: state.nodes[name] for name, state in states.items() if name in state.nodes}
        pods = {key: pod for name, state in states.items() for key, pod in state.pods.items() if pod.node == name}
        return State(
            generation=generation,
            nodes={name: replace(node, synced_generation=generation) for name, node in own.items()},
            pods=pods,
            problems=tuple(sorted({problem for state in states.values() for problem in state.problems})),
            packet_ins=sum(state.packet_ins for state in states.values()),
            pending=any(state.pending for state in states.values()),
        )

    def programmed_after(self, generation: int) -> Programmed:
        """Wait until every switch has more than it had at `generation` of the state, and all of it. Raises SetupError.

        Returns the longest time from an event to its barrier, and the messages sent to each node.
        """
        before = self._generations[generation]
        with self._changed:
            if not self._changed.wait_for(lambda: self._is_programmed(before), PROGRAMMED_SECONDS):
                raise SetupError(f"the change is not in every switch after {PROGRAMMED_SECONDS:.0f} s")
            events = [(name, event) for name, event in self._events if event.generation > before[name]]
        sent = dict.fromkeys(before, 0)
        for name, event in events:
            sent[name] += sum(event.sent.values())
        return Programmed(generation, max((event.milliseconds for _, event in events), default=0.0), sent)

    def _is_programmed(self, before: Mapping[str, int]) -> bool:
        return any(event.generation > before[name] for name, event in self._events) and all(
            state.generation > before[name] and state.settled([name]) for name, state in self._states.items()
        )

    def _follow(self, name: str, feed: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), feed.makefile("rb") as lines:
            for line in lines:
                event = parse_event(line)
                with self._changed:
                    if isinstance(event, State):
                        self._states[name] = event
                    elif isinstance(event, Programmed):
                        self._events.append((name, event))
                    self._changed.notify_all()
