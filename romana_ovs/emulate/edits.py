"""What an edit of the manifests opened and closed, in words, as it is programmed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from romana_ovs.emulate.controller import Event, Programmed, Refused
from romana_ovs.policy.matrix import Matrix, Opening, difference

SHOWN = 20
"""How many openings (and closings) are listed one by one."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One edit that is in every switch: what it opened and closed by the reference evaluation, and its cost."""

    opened: Sequence[Opening]
    closed: Sequence[Opening]
    programmed: Programmed

    def to_json(self) -> dict[str, object]:
        """As JSON values; `milliseconds` from the file's change to the last switch's barrier."""
        return {
            "opened": [one.to_json() for one in self.opened], "closed": [one.to_json() for one in self.closed],
            "milliseconds": self.programmed.milliseconds, "sent": dict(self.programmed.sent),
        }

    def lines(self) -> list[str]:
        """The same in a few lines of text."""
        sent = {node: count for node, count in self.programmed.sent.items() if count}
        cost = ", ".join(f"{node} {count}" for node, count in sorted(sent.items())) or "nothing"
        head = f"programmed in {self.programmed.milliseconds:.0f} ms (flow messages: {cost})"
        if not self.opened and not self.closed:
            return [f"{head}; no path opened or closed"]
        return [head, *_listed("opened", self.opened), *_listed("closed", self.closed)]


class Edits:
    """Turns the controller's reports into edits; `expected` is the reference matrix of the folder as it is now."""

    def __init__(
        self, expected: Callable[[], Matrix], *, edited: Callable[[Edit], None],
        refused: Callable[[Sequence[str]], None],
    ) -> None:
        self._expected = expected
        self._edited = edited
        self._refused = refused
        self._before: Matrix | None = None

    def begin(self) -> None:
        """Report from now on. Raises InputError when the folder cannot be read."""
        self._before = self._expected()

    def take(self, event: Event) -> None:
        """Report the event if it is the end of an edit. Raises InputError when the folder cannot be read."""
        if self._before is None:
            return
        if isinstance(event, Programmed):
            after = self._expected()
            opened, closed = difference(self._before, after)
            self._before = after
            self._edited(Edit(opened, closed, event))
        elif isinstance(event, Refused):
            self._refused(event.problems)


def refusal_lines(problems: Iterable[str]) -> list[str]:
    """What to say of a change that is not followed."""
    return [f"refused: {problem}" for problem in problems] + ["the version before it stays in force"]


def _listed(word: str, openings: Sequence[Opening]) -> list[str]:
    shown = [f"  {word}: {one.source} -> {one.destination} {one.port}" for one in openings[:SHOWN]]
    more = len(openings) - len(shown)
    return [*shown, *([f"  {word}: and {more} more"] if more > 0 else [])]
