"""Counts the datapath flows of 1,000 five-tuples between two tiers: `python -m bench.megaflows PODS TUPLES`.

Prints JSON.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

from bench.pods import PORT, Bench, ask, bench, serving

SIDE = 5
"""Client pods, and server pods."""
FIRST_PORT = 20_000
FIRST_DENIED = 1_000
NORMAL = "priority=0,actions=NORMAL"


def measure(pods: int, tuples: int) -> dict[str, Any]:
    """Megaflows by what the traffic was."""
    with bench(pods, SIDE, SIDE) as found, serving(found.servers):
        found.program(found.tables)
        return {
            "tuples": tuples,
            "side": SIDE,
            "one pair": _many(found, 1, tuples),
            "all pairs": _many(found, SIDE, tuples // SIDE**2),
            "denied": _denied(found, tuples),
            "normal one pair": _normal(found, 1, tuples),
            "normal all pairs": _normal(found, SIDE, tuples // SIDE**2),
        }


def _many(found: Bench, side: int, ports: int) -> dict[str, int]:
    """After connections of `ports` source ports between each of `side` clients and as many servers."""
    found.forget()
    targets = ",".join(place.address for place in found.servers[:side])
    opened = 0
    for place in found.clients[:side]:
        opened += ask(place, "open", place.address, targets, str(PORT), str(FIRST_PORT), str(ports))["opened"]
    return {"connections": opened, **_counted(found)}


def _denied(found: Bench, ports: int) -> dict[str, int]:
    """After connections to ports that no rule admits."""
    found.forget()
    told = ask(found.clients[0], "sweep", found.servers[0].address, str(FIRST_DENIED), str(ports))
    return {"connections": told["tried"], "answered": told["answered"], **_counted(found)}


def _normal(found: Bench, side: int, ports: int) -> dict[str, int]:
    found.program((NORMAL,))
    told = _many(found, side, ports)
    found.program(found.tables)
    return told


def _counted(found: Bench) -> dict[str, int]:
    """Megaflows for IP by dump, and all by the switch's own count."""
    shown = re.search(r"\(current (\d+)\)", found.node.appctl("upcall/show"))
    return {"megaflows": len(found.megaflows()), "current": int(shown.group(1)) if shown else 0}


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), int(sys.argv[2]))))
