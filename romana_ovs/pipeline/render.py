"""Renders docs/pipeline.md from the declarations and from a worked example."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from romana_ovs.pipeline.cookies import FEATURE_SHIFT, MAGIC, MAGIC_SHIFT, Feature
from romana_ovs.pipeline.flow import Flow
from romana_ovs.pipeline.listing import ordered, readable
from romana_ovs.pipeline.meters import (
    ARP_RATE,
    BURST_SECONDS,
    FRAGMENT_BURST_SECONDS,
    METERS,
    arp_meter_number,
    fragment_meter_number,
    tenant_fragment_meter_number,
)
from romana_ovs.pipeline.registers import (
    CONNTRACK_BITS,
    DIRECTION,
    EGRESS,
    NEXT_HOP_MAC,
    REGISTERS,
    WIRE_DIRECTION,
    WIRE_EGRESS,
    WIRE_FIXED,
    WIRE_FIXED_VALUE,
    WIRE_ID,
    WIRE_REVALIDATED,
    WIRE_REVALIDATION,
    Register,
)
from romana_ovs.pipeline.render_text import CHANGED_CLIENTS, ICMP_ERRORS, INTRODUCTION, PICKUP
from romana_ovs.pipeline.symbols import matches, writes
from romana_ovs.pipeline.tables import TABLE_IDS, TABLES, Table
from romana_ovs.pipeline.zones import INDEX_BITS, SLOTS


@dataclass(frozen=True, slots=True)
class Journey:
    """A packet followed through the simulated switches of an example, as lines of text (`simulator/trace.py`)."""

    title: str
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """The worked example: its introduction, its compiled flows by node, and packets through them."""

    introduction: str
    flows: Mapping[str, Sequence[Flow]]
    journeys: tuple[Journey, ...] = ()


def document(example: Example) -> str:
    """The whole of docs/pipeline.md."""
    parts = [INTRODUCTION, _overview(), *_tables(example), _registers(), _conntrack(), _meters()]
    parts += [_wire(), CHANGED_CLIENTS, PICKUP, ICMP_ERRORS, _cookies()]
    return "\n".join([*parts, _worked_example(example)])


def _overview() -> str:
    lines = ["## Tables", "", "| number | table | purpose | leads to |", "|---|---|---|---|"]
    lines += [
        f"| {TABLE_IDS[table.name]} | [{table.name}](#{table.name.lower()}) | {table.purpose} | {_next_tables(table)} |"
        for table in TABLES
    ]
    return "\n".join([*lines, ""])


def _next_tables(table: Table) -> str:
    return ", ".join(table.leads_to) or "output, or drop"


def _tables(example: Example) -> list[str]:
    """A section for each table, with the parts of registers that flows of the example use there."""
    flows = [item for own in example.flows.values() for item in own]
    return [_table(table, [item for item in flows if item.table == table.name]) for table in TABLES]


def _table(table: Table, flows: Sequence[Flow]) -> str:
    read = {register.name for item in flows for register, _ in matches(item)}
    written = {register.name for item in flows for register, _ in writes(item)}
    bands = ", ".join(f"`{item.name}` {item.value}" for item in sorted(table.priorities, reverse=True))
    return "\n".join(
        [
            f"### {table.name}",
            "",
            f"{table.purpose}",
            "",
            f"- matches: {_fields(table.matches, read)}",
            f"- writes: {_fields(table.writes, written)}",
            f"- leads to: {_next_tables(table)}",
            f"- priorities: {bands}",
            "",
        ]
    )


def _fields(names: frozenset[str], used: Collection[str]) -> str:
    """The names of fields, registers behind the others and each with the names of its bits that are `used`."""
    order = sorted(names, key=lambda name: (name.startswith("reg"), len(name) if name.startswith("reg") else 0, name))
    return ", ".join(f"`{name}`{_meanings(name, used)}" for name in order) or "nothing"


def _meanings(name: str, used: Collection[str]) -> str:
    declared = [register.name for register in REGISTERS if register.bits.field == name]
    shown = [meaning for meaning in declared if meaning in used or len(declared) == 1]
    return f" ({', '.join(shown)})" if shown else ""


def _registers() -> str:
    head = [
        "## Registers",
        "",
        "All registers are 0 when a packet comes in, and keep their values through conntrack.",
        "",
    ]
    return "\n".join([*head, *_register_table(REGISTERS), ""])


def _register_table(registers: Iterable[Register]) -> list[str]:
    lines = ["| name | bits | meaning | written in | last read in | values |", "|---|---|---|---|---|---|"]
    for register in registers:
        values = ", ".join(f"{value} {name}" for name, value in register.values)
        lines.append(
            f"| {register.name} | `{register.bits}` | {register.purpose} | {register.written} "
            f"| {register.read} | {values} |"
        )
    return lines


def _conntrack() -> str:
    return "\n".join(
        [
            "## Connection tracking",
            "",
            "Each tenant with connections on a bridge has a conntrack zone there, and there is a common zone. In its",
            f"number the upper {16 - INDEX_BITS} bits are the bridge's (1 plus its host number modulo {SLOTS}), the",
            f"lower {INDEX_BITS} the first segment of the tenant, or 0. The zone is the same in both directions:",
            "",
            "- One end is a local pod: the zone of its tenant.",
            "- Both ends are local pods: the zone of the tenant that is not shared.",
            "- A local pod of a shared tenant and a pod elsewhere: the zone of the other pod's tenant, by the segment",
            "  in its address. A foreign address shows no segment; then it is the shared tenant's own zone.",
            "- Otherwise the common zone: neither end is a local pod, or both are and both tenants are shared, or the",
            "  other end of a shared tenant's pod is another node itself.",
            "",
            "Packets that a pod sends to itself are dropped before conntrack.",
            "",
            "Segments form blocks of a tenant's usual range (4, or fewer with fewer than 6 segment bits), and each",
            "block is one zone. If a tenant has more than one block, all of its local pods use the first zone. On a",
            "node with a pod of a shared tenant, that first zone then has half of the tenant's limit, and the others",
            "the other half in equal parts. With 15 segment bits, two blocks that are 16,384 segments apart share a",
            "zone.",
            "",
            "Contents of a committed entry:",
            "",
            *_register_table(CONNTRACK_BITS),
            "",
        ]
    )


def _meters() -> str:
    return "\n".join(
        [
            "## Meters",
            "",
            "Packets of a local pod that make a new conntrack entry for a connection that leaves the node pass a meter "
            "first (`METERED` in table "
            "[ConntrackCommit](#conntrackcommit)), because another node may yet drop them. "
            "Later packets of a connection pass none, answered or not.",
            "",
            f"The meter of a pod has the number `{METERS.start:#x}` plus the pod's OpenFlow port; meters with other "
            f"numbers than `{METERS.start:#x}` to `{METERS.stop - 1:#x}` are not ours. It lets `new_connections` "
            f"packets a second pass (`romana.conf`), {BURST_SECONDS} seconds' worth of them at once. "
            "`ovs-ofctl -O OpenFlow15 meter-stats BRIDGE` counts what was dropped.",
            "",
            f"A second meter of each pod (`{arp_meter_number(0):#x}` plus its port) limits its ARP requests, "
            f"{ARP_RATE} a second, and a third (`{fragment_meter_number(0):#x}`) its fragments, `fragments` "
            f"a second and {FRAGMENT_BURST_SECONDS} seconds' worth of them at once: conntrack keeps them until their "
            "datagram is complete, and all pods share the room for them. "
            f"A meter of each tenant with pods here (`{tenant_fragment_meter_number(0):#x}` plus its conntrack zone) "
            "does the same for all of them together (`tenant_fragments`).",
            "",
        ]
    )


def _wire() -> str:
    bits = (
        (
            WIRE_FIXED,
            f"always `{WIRE_FIXED_VALUE:#05x}`: first byte `0a`, so it is a local unicast MAC and never `0a:58`",
        ),
        (
            WIRE_REVALIDATED,
            "1 for a revalidated TCP reply, see [below](#connections-lost-with-a-restart-of-open-vswitch)",
        ),
        (
            WIRE_REVALIDATION,
            "1 for a revalidation packet, see [below](#clients-whose-identity-changed); with midstream: a reply only",
        ),
        (WIRE_EGRESS, "egress mark: " + ", ".join(f"{value} {name}" for name, value in EGRESS.values)),
        (WIRE_DIRECTION, "direction mark: " + ", ".join(f"{value} {name}" for name, value in DIRECTION.values)),
        (WIRE_ID, "identity of the sender: segment (16 bits) and class (16 bits)"),
    )
    lines = [
        "## Between nodes",
        "",
        "On a link or in a tunnel the inner source MAC carries marks of the sender's node:",
    ]
    lines += ["", "| bits | meaning |", "|---|---|", *(f"| `{where}` | {meaning} |" for where, meaning in bits), ""]
    lines.append(f"On delivery to a pod or node the source MAC becomes `{_mac(NEXT_HOP_MAC)}`.")
    return "\n".join([*lines, ""])


def _mac(value: int) -> str:
    return value.to_bytes(6, "big").hex(":")


def _cookies() -> str:
    features = ", ".join(f"{feature.value} {feature.name.lower().replace('_', ' ')}" for feature in Feature)
    return "\n".join(
        [
            "## Cookies",
            "",
            f"Bits {MAGIC_SHIFT} to 63 are `{MAGIC:#x}` in all of our flows. "
            f"Bits {FEATURE_SHIFT} to {MAGIC_SHIFT - 1} are the feature ({features}). "
            "The rest is a hash of the origin, the policy and rule of the flow.",
            "",
        ]
    )


def _worked_example(example: Example) -> str:
    parts = ["## Worked example", "", example.introduction, ""]
    for node, flows in example.flows.items():
        parts += [
            f"### The tables of {node}",
            "",
            f"{len(flows)} flows, each below its origin.",
            "",
            "```",
        ]
        parts += [*_listing(flows), "```", ""]
    for journey in example.journeys:
        parts += [f"### {journey.title}", "", *journey.steps, ""]
    return "\n".join(parts)


def _listing(flows: Sequence[Flow]) -> list[str]:
    lines: list[str] = []
    for origin, group in groupby(ordered(flows), key=lambda item: str(item.origin)):
        lines += [f"# {origin}", *map(readable, group)]
    return lines
