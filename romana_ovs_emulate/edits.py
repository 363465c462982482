"""Reports what each edit of the manifests opened and closed, once it is programmed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from romana_ovs.model.cluster import Cluster
from romana_ovs.policy.matrix import Matrix, PodPath, difference
from romana_ovs_emulate.controller import Event, Programmed, Refused, State

LISTED_PATHS = 20
"""How many opened, and how many closed, paths are listed."""
LATE_SECONDS = 10.0
"""How much later than the controller `Edits` may learn of a change, in seconds."""
LAST_VALID_NOTE = "the last valid version stays in force; a policy that never had one allows nothing"


@dataclass(frozen=True, slots=True)
class Edit:
    """One edit that every switch has: the paths that it opened and closed by the reference evaluation, and its cost."""

    opened: Sequence[PodPath]
    closed: Sequence[PodPath]
    programmed: Programmed

    def to_json(self) -> dict[str, object]:
        """As JSON values; `milliseconds` from the change of the file to the barrier of the last switch."""
        return {
            "opened": [one.to_json() for one in self.opened],
            "closed": [one.to_json() for one in self.closed],
            "milliseconds": self.programmed.milliseconds,
            "sent": dict(self.programmed.sent),
        }

    def lines(self) -> list[str]:
        """As lines of text."""
        sent = {node: count for node, count in self.programmed.sent.items() if count}
        cost = ", ".join(f"{node} {count}" for node, count in sorted(sent.items())) or "nothing"
        head = f"programmed in {self.programmed.milliseconds:.0f} ms (flow messages: {cost})"
        if not self.opened and not self.closed:
            return [f"{head}; no path opened or closed"]
        return [head, *_listed("opened", self.opened), *_listed("closed", self.closed)]


@dataclass(slots=True)
class _Pending:
    """An edit that every switch has, but whose pods do not all run yet."""

    opened: Sequence[PodPath]
    closed: Sequence[PodPath]
    programmed: Programmed
    since: float


class Edits:
    """Turns the controller's events into edits; its methods may be called from any thread.

    `expected` returns the present cluster and its reference matrix. A source that learns of changes independently of
    the controller, maybe later, calls `catch_up` after each. `settled` says whether all pods run and every switch is
    up to date. `clock` is in seconds.
    """

    def __init__(
        self,
        expected: Callable[[], tuple[Cluster, Matrix]],
        *,
        settled: Callable[[], bool],
        on_edit: Callable[[Edit], None],
        on_refusal: Callable[[Sequence[str]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._expected = expected
        self._settled = settled
        self._on_edit = on_edit
        self._on_refusal = on_refusal
        self._clock = clock
        self._before: tuple[Cluster, Matrix] | None = None
        self._pending: _Pending | None = None
        self._unmatched: tuple[Programmed, float] | None = None
        """The last event without a known change, and when it came: the change may become known later."""
        self._generation = -1
        """The generation of the last state."""
        self._lock = threading.Lock()

    def start(self) -> None:
        """Report edits from now on. Raises InputError when the folder cannot be read."""
        self._before = self._expected()

    def on_event(self, event: Event) -> None:
        """Report an edit if this event completes it. Raises InputError when the folder cannot be read."""
        with self._lock:
            self._on_event(event)

    def catch_up(self) -> None:
        """Report an edit that the controller has programmed already. Raises InputError as `on_event` does."""
        with self._lock:
            unmatched, before = self._unmatched, self._before
            if before is None or unmatched is None or self._expected()[0] is before[0]:
                return
            self._unmatched = None
            if self._clock() - unmatched[1] > LATE_SECONDS:
                return
            self._programmed(unmatched[0], before)
            self._report_if_settled()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, State):
            self._generation = event.generation
        if self._before is None:
            return
        if isinstance(event, Refused):
            self._on_refusal(event.problems)
            return
        if isinstance(event, Programmed):
            self._programmed(event, self._before)
        self._report_if_settled()

    def _report_if_settled(self) -> None:
        """Report the pending edit once the state shows it, which may come before the event of the change or after."""
        pending = self._pending
        if pending is not None and self._generation >= pending.programmed.generation and self._settled():
            self._pending = None
            self._on_edit(Edit(pending.opened, pending.closed, pending.programmed))

    def _programmed(self, event: Programmed, before: tuple[Cluster, Matrix]) -> None:
        """Begin an edit, or add to the pending one.

        Do nothing when the cluster is unchanged (only ports of pods changed).
        """
        now = self._clock()
        after = self._expected()
        if after[0] is not before[0]:
            opened, closed = difference(before[1], after[1])
            self._before = after
            if self._pending is not None:
                opened = sorted({*self._pending.opened, *opened} - {*closed})
                closed = sorted({*self._pending.closed, *closed} - {*opened})
                event = _combined(self._pending, event, now)
            self._pending, self._unmatched = _Pending(opened, closed, event, now), None
        elif self._pending is not None:
            self._pending.programmed = _combined(self._pending, event, now)
            self._pending.since = now
        else:
            self._unmatched = (event, now)


def _combined(pending: _Pending, event: Programmed, now: float) -> Programmed:
    """The costs of a pending edit and of a further event together."""
    first = pending.programmed
    sent = {node: first.sent.get(node, 0) + event.sent.get(node, 0) for node in {**first.sent, **event.sent}}
    return Programmed(event.generation, first.milliseconds + (now - pending.since) * 1000, sent)


def refusal_lines(problems: Iterable[str]) -> list[str]:
    """The lines of text about an invalid change."""
    return [f"refused: {problem}" for problem in problems] + [LAST_VALID_NOTE]


def _listed(word: str, paths: Sequence[PodPath]) -> list[str]:
    shown = [f"  {word}: {one.source} -> {one.destination} {one.port}" for one in paths[:LISTED_PATHS]]
    more = len(paths) - len(shown)
    return [*shown, *([f"  {word}: and {more} more"] if more > 0 else [])]
