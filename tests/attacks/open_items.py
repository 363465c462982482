"""Attacks that come through, and are known to: each with the sentence of the issue that asks for their end.

An attack that is named here and holds after all fails the tests, so that its line is removed. Nothing but a frame
that arrived (or a victim that was hurt) counts as that: when the test itself goes wrong, it fails as ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True)
class Open:
    """Attacks by a pattern of their names (fnmatch), and why they are expected to come through.

    `always`: they do every time; otherwise one that holds is no news.
    """

    pattern: str
    sentence: str
    always: bool = True


OPEN: tuple[Open, ...] = ()


def known(name: str) -> Open | None:
    """The line of an attack, None when it must hold."""
    return next((line for line in OPEN if fnmatchcase(name, line.pattern)), None)
