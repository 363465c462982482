"""Attacks that come through, and are known to: each with the sentence of the issue that asks for their end.

The first words are the number of that sentence in the issue's list. An attack that is named here and holds after all
fails the tests, so that its line is removed. Nothing but NotHeldError (a frame that arrived, a victim that was hurt)
counts as coming through: when the test itself goes wrong, it fails as ever.
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


OPEN: tuple[Open, ...] = (
    # The victim's own egress is open, so what comes may be the reply of a connection that was lost.
    *(Open(f"*: restart of *: {one}* (closed by policy, *", "2: goes on in whichever direction policy admits",
           always=False) for one in ("connections: ", "ICMP errors: about own refused packets")),
    Open("*: first fragments without the rest *", "3: one pod's first fragments do not starve another's datagrams"),
    *(Open(f"*: flood: {one} (*", "4: megaflows do not grow with what a sender can choose")
      for one in ("destination addresses", "identities")),
    Open("*: SCTP server to other ports of its client: *",
         "6: where the switch does not track its ports, a server cannot open associations to ports of its clients"),
)


def known(name: str) -> Open | None:
    """The line of an attack, None when it must hold."""
    return next((line for line in OPEN if fnmatchcase(name, line.pattern)), None)
