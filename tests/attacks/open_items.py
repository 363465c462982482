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


LOST = "2: connections inside a node and to outside survive too, or are reset, never a hang"
OPEN: tuple[Open, ...] = (
    *(Open(f"*: collusion: ICMP errors about {one} (other node)", "1: colluding pods of two tenants exchange nothing")
      for one in ("UDP", "TCP", "SCTP")),
    Open("*: revoked: ICMP errors *", "1: errors stop with the permission that they depend on"),
    Open("*: restart of node1: inside node1", LOST),
    Open("*: restart of node2: inside node2", LOST),
    Open("*: restart of node1: from node1 to outside", LOST),
    Open("*: restart of *: ICMP errors (blue/quiet*", "2: no ICMP error passes without state"),
    Open("*: restart of node1: * (blue/quiet1 of *", "2: judged by today's policy before the first packet"),
    Open("*: restart of node2: * (blue/quiet2 of *", "2: judged by today's policy before the first packet"),
    Open("*: restart of node1: * (blue/heir1)", "2: and by who has the address now"),
    Open("*: restart of node2: * (blue/heir2)", "2: and by who has the address now"),
    Open("*: restart of node2: ICMP errors: about nothing (*, other node)", "2: no ICMP error passes without state"),
    Open("*: restart of node2: ICMP errors: about own refused packets (*, other node)",
         "2: no ICMP error passes without state"),
    *(Open(f"*: ordinary start: ICMP errors: {about} (*, other node)", "2: an ordinary start marks nobody as old",
           always=False) for about in ("about nothing", "about own refused packets")),
    *(Open(f"*: connection table: {one}", "3: one pod cannot keep another tenant from opening connections")
      for one in ("UDP to itself", "TCP to itself, both ends", "* to its own tenant, same node")),
    Open("*: first fragments without the rest *", "3: one pod's first fragments do not starve another's datagrams"),
    *(Open(f"*: flood: {one} (*", "4: megaflows do not grow with what a sender can choose")
      for one in ("destination MACs", "source MACs", "ARP targets", "tags", "ethertypes", "destination addresses",
                  "identities")),
    Open("*: flood of what is allowed: destination MACs *", "4: megaflows do not grow with what a sender can choose"),
    Open("*: SCTP server to other ports of its client: *",
         "6: where the switch does not track its ports, a server cannot open associations to ports of its clients"),
)


def known(name: str) -> Open | None:
    """The line of an attack, None when it must hold."""
    return next((line for line in OPEN if fnmatchcase(name, line.pattern)), None)
