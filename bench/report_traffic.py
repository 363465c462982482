"""Renders the figures of traffic between pods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.markdown import table

RATIOS = ("ratio to NORMAL", "of conntrack alone", "ours to conntrack alone", "with the filter of ethertypes")
RATIO_NAMES = ("romana", "tracked", "romana to tracked", "filtered")

Found = dict[str, Any]


def section(found: Found) -> str:
    """The section, with rates and ratios."""
    head = ("", "romana-ovs", "one NORMAL flow", "conntrack, then NORMAL", *RATIOS)
    kinds = (
        ("throughput", "TCP, one stream", 1e6, "Mbit/s"),
        ("per processor", "TCP, by time of the switch process", 1e6, "Mbit per s of processor"),
        ("datagrams", "UDP, 64 bytes", 1.0, "/s"),
        ("connections", "new TCP connections", 1.0, "/s"),
    )
    rows = []
    for name, what, unit, word in kinds:
        middle, ratio = found[name]["median"], found[name]["ratio"]
        shown = [f"{middle[kind] / unit:,.0f} {word}" for kind in ("romana", "normal", "tracked")]
        rows.append((what, *shown, *(_spread(ratio[kind]) for kind in RATIO_NAMES)))
    return f"""
## Traffic between two local pods

{table(head, rows)}

{_lookups(found["lookups"])}

Client and server are network namespaces behind one bridge with the {found["flows"]:,} flows of a full node, TCP/80
from tier 0 to tier 1, sent by {found["sender"]}. {found["rounds"]} turns of {found["seconds"]:g} s for each set of
tables, there and back; a ratio is the median of the turns, each against its own NORMAL, with its quartiles. Where
other programs share the cores the first row swings by more than what is measured; the second, bits by processor time
of the switch process, swings less. UDP counts what reaches the server's pod, of one flow that was answered once. *With
the filter of ethertypes* is romana-ovs again, with the program that pods' ports have in production (XDP or tc).
A connection is made, carries a byte there and one back, and is reset.

An established packet takes two look-ups in the datapath, both hits in its exact-match cache, one `ct` and one
rewritten source MAC, whatever the number of flows: `SpoofGuard` to `ConntrackZone` are one megaflow that ends in
conntrack, and all the rest, up to the port, is another. There is no second `ct`. The third set of tables is the least
that knows connections at all: one `ct`, then NORMAL. What it loses against NORMAL is what tracking costs in the
datapath; the userspace one verifies every TCP checksum and looks the packet up a second time: where the ratio is below
the aim, that is where the rest goes, and no table can be without it that lets replies through and cuts them when a
permission goes.

Ratios of the kernel's datapath, where it is not the one measured here: [results-kernel.md](results-kernel.md).
"""


def ratios(found: Found) -> str:
    """The ratios to NORMAL and the look-ups, without rates: those of an emulated processor mean nothing."""
    names = {"throughput": "TCP, one stream", "datagrams": "UDP, 64 bytes", "connections": "new TCP connections"}
    kinds = (*RATIO_NAMES, "filtered to tracked")
    rows = [(what, *(_spread(found[name]["ratio"][kind]) for kind in kinds)) for name, what in names.items()]
    head = ("", *RATIOS, "with it, to conntrack alone")
    between = f"Between two nodes by {found['fabric']}:\n\n" if found["fabric"] else ""
    return f"{between}{table(head, rows)}\n\n{_lookups(found['lookups'])}"


def _lookups(found: Found) -> str:
    """What one TCP stream left in the datapath, by set of tables."""
    names = {"romana": "romana-ovs", "normal": "one NORMAL flow", "tracked": "conntrack, then NORMAL"}
    rows = (
        (what, found[name]["megaflows"], f"{found[name]['recirculations']:.2f}", found[name]["masks"] or "")
        for name, what in names.items()
    )
    return table(("one TCP stream", "megaflows", "recirculations per packet", "masks"), rows)


def _spread(ratio: Sequence[float]) -> str:
    low, middle, high = ratio
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"
