"""Renders the path of a simulated packet as lines of Markdown."""

from __future__ import annotations

from collections.abc import Iterable

from romana_ovs.pipeline.fields import CT_STATE_BITS
from romana_ovs.pipeline.listing import readable
from romana_ovs.simulator.conntrack import Tracked
from romana_ovs.simulator.interpret import Event, Tracking, Visit
from romana_ovs.simulator.network import Hop


def trace(hops: Iterable[Hop]) -> list[str]:
    """For each bridge the flows that the packet matched, what conntrack did, and where it left."""
    lines: list[str] = []
    for hop in hops:
        lines += [f"On {hop.place.node}, in by port {hop.place.port}:", ""]
        lines += [f"{number}. {_event(event)}" for number, event in enumerate(hop.events, start=1)]
        lines.append("")
    return lines


def _event(event: Event) -> str:
    if isinstance(event, Visit):
        if event.flow is None:
            return f"{event.table}: no flow takes it, so it is dropped."
        return f"`{readable(event.flow)}` ({event.flow.origin})"
    if isinstance(event, Tracking):
        doing = "remembered by" if event.committed else "looked up in"
        return f"{doing} conntrack: {_tracked(event.result)}" + (f"; on in {event.back}" if event.back else "")
    return f"out of port {event.port}, source MAC `{event.packet.eth_src.to_bytes(6, 'big').hex(':')}`"


def _tracked(result: Tracked) -> str:
    state = "".join(f"+{word}" for word, bit in CT_STATE_BITS.items() if result.state & bit)
    return f"`{state}`, zone {result.zone:#x}, mark {result.mark:#x}"
