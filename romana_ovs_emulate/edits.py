"""What an edit of the manifests opened and closed, in words, as it is programmed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from romana_ovs.model.cluster import Cluster
from romana_ovs.policy.matrix import Matrix, Opening, difference
from romana_ovs_emulate.controller import Event, Programmed, Refused

SHOWN = 20
"""How many openings (and closings) are listed one by one."""
LATE_SECONDS = 10.0
"""How much later than the controller we may hear of a change, in seconds."""
STAYS = "the last valid version stays in force; a policy that never had one allows nothing"


@dataclass(frozen=True, slots=True)
class Edit:
    """One edit that is in every switch: what it opened and closed by the reference evaluation, and its cost."""

    opened: Sequence[Opening]
    closed: Sequence[Opening]
    programmed: Programmed

    def to_json(self) -> dict[str, object]:
        """As JSON values; `milliseconds` from the file's change to the last switch's barrier."""
        return {
            "opened": [one.to_json() for one in self.opened],
            "closed": [one.to_json() for one in self.closed],
            "milliseconds": self.programmed.milliseconds,
            "sent": dict(self.programmed.sent),
        }

    def lines(self) -> list[str]:
        """The same in a few lines of text."""
        sent = {node: count for node, count in self.programmed.sent.items() if count}
        cost = ", ".join(f"{node} {count}" for node, count in sorted(sent.items())) or "nothing"
        head = f"programmed in {self.programmed.milliseconds:.0f} ms (flow messages: {cost})"
        if not self.opened and not self.closed:
            return [f"{head}; no path opened or closed"]
        return [head, *_listed("opened", self.opened), *_listed("closed", self.closed)]


@dataclass(slots=True)
class _Pending:
    """An edit that the switches have, but whose pods do not all run yet."""

    opened: Sequence[Opening]
    closed: Sequence[Opening]
    programmed: Programmed
    since: float


class Edits:
    """Turns the controller's reports into edits, in whatever threads they come.

    `expected` is the cluster as it is described now, and its reference matrix. Who is told of it apart from the
    controller may be told later: `catch_up` is for every change of it then. `settled` says whether all pods run and
    every switch has all. `clock` is in seconds.
    """

    def __init__(
        self,
        expected: Callable[[], tuple[Cluster, Matrix]],
        *,
        settled: Callable[[], bool],
        edited: Callable[[Edit], None],
        refused: Callable[[Sequence[str]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._expected = expected
        self._settled = settled
        self._edited = edited
        self._refused = refused
        self._clock = clock
        self._before: tuple[Cluster, Matrix] | None = None
        self._pending: _Pending | None = None
        self._early: tuple[Programmed, float] | None = None
        """What was programmed without a change that is known, and when: it may be about one that comes."""
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Report from now on. Raises InputError when the folder cannot be read."""
        self._before = self._expected()

    def take(self, event: Event) -> None:
        """Report the event if it is the end of an edit. Raises InputError when the folder cannot be read."""
        with self._lock:
            self._take(event)

    def catch_up(self) -> None:
        """Report an edit that the controller was quicker to know of. Raises InputError as `take` does."""
        with self._lock:
            early, before = self._early, self._before
            if before is None or early is None or self._expected()[0] is before[0]:
                return
            self._early = None
            if self._clock() - early[1] > LATE_SECONDS:
                return
            self._programmed(early[0], before)
            if self._pending is not None and self._settled():
                self._tell(self._pending)

    def _take(self, event: Event) -> None:
        if self._before is None:
            return
        if isinstance(event, Refused):
            self._refused(event.problems)
        elif isinstance(event, Programmed):
            self._programmed(event, self._before)
        elif self._pending is not None and event.generation >= self._pending.programmed.generation and self._settled():
            self._tell(self._pending)

    def _tell(self, pending: _Pending) -> None:
        self._pending = None
        self._edited(Edit(pending.opened, pending.closed, pending.programmed))

    def _programmed(self, event: Programmed, before: tuple[Cluster, Matrix]) -> None:
        """Begin an edit, or add to the one whose pods are starting, or neither: only ports have changed."""
        now = self._clock()
        after = self._expected()
        if after[0] is not before[0]:
            opened, closed = difference(before[1], after[1])
            self._before = after
            if self._pending is not None:
                opened = sorted({*self._pending.opened, *opened} - {*closed})
                closed = sorted({*self._pending.closed, *closed} - {*opened})
                event = _both(self._pending, event, now)
            self._pending, self._early = _Pending(opened, closed, event, now), None
        elif self._pending is not None:
            self._pending.programmed = _both(self._pending, event, now)
            self._pending.since = now
        else:
            self._early = (event, now)


def _both(pending: _Pending, event: Programmed, now: float) -> Programmed:
    """The cost of an edit up to now."""
    first = pending.programmed
    sent = {node: first.sent.get(node, 0) + event.sent.get(node, 0) for node in {**first.sent, **event.sent}}
    return Programmed(event.generation, first.milliseconds + (now - pending.since) * 1000, sent)


def refusal_lines(problems: Iterable[str]) -> list[str]:
    """What to say of a change that is not followed."""
    return [f"refused: {problem}" for problem in problems] + [STAYS]


def _listed(word: str, openings: Sequence[Opening]) -> list[str]:
    shown = [f"  {word}: {one.source} -> {one.destination} {one.port}" for one in openings[:SHOWN]]
    more = len(openings) - len(shown)
    return [*shown, *([f"  {word}: and {more} more"] if more > 0 else [])]
