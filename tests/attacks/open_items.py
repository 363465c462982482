"""Attacks that come through, and are known to: each with the property that it breaks (docs/security.md tells users).

An attack that is named here for the switches of the run, and holds after all, fails the tests, so that its line is
removed. Nothing but NotHeldError (a frame that arrived, a victim that was hurt) counts as coming through: when the test
itself goes wrong, it fails as ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from romana_ovs_emulate.controller import State


@dataclass(frozen=True, slots=True)
class Open:
    """Attacks by a pattern of their names (fnmatch), where they are expected to come through, and why."""

    pattern: str
    sentence: str
    where: Callable[[State], bool]


OPEN: tuple[Open, ...] = (
    Open(
        "*: SCTP server to other ports of its client: *",
        "where the switch does not track SCTP ports (before 3.2) docs, check and conditions say what is open",
        lambda state: any(node.sctp_ports is False for node in state.nodes.values()),
    ),
)


def known(name: str) -> Open | None:
    """The line of an attack, None when it must hold."""
    return next((line for line in OPEN if fnmatchcase(name, line.pattern)), None)
