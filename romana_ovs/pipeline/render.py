"""`docs/pipeline.md` as text, made from the declarations and from compiled and interpreted flows."""

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
)
from romana_ovs.pipeline.registers import (
    CONNTRACK_BITS,
    DIRECTION,
    EGRESS,
    NEXT_HOP_MAC,
    REGISTERS,
    WIRE_ANSWERED,
    WIRE_DIRECTION,
    WIRE_EGRESS,
    WIRE_ID,
    WIRE_QUESTION,
    WIRE_REST,
    WIRE_REST_VALUE,
    Register,
)
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
    """The worked example: what it is, its compiled flows by node, and packets through them."""

    introduction: str
    flows: Mapping[str, Sequence[Flow]]
    journeys: tuple[Journey, ...] = ()


def document(example: Example) -> str:
    """The whole of docs/pipeline.md."""
    parts = [_INTRODUCTION, _overview(), *_tables(example), _registers(), _conntrack(), _meters()]
    parts += [_wire(), _QUESTIONS, _LOST, _ERRORS, _cookies()]
    return "\n".join([*parts, _worked(example)])


_INTRODUCTION = """\
# The pipeline

Rendered from the declarations in `romana_ovs/pipeline/` (`tables.py`, `registers.py`, `priorities.py`,
`cookies.py`) and from the demonstration's own compiled tables. Do not edit: `make docs` writes it, and the
tests fail when it is stale.

Behind a flow stands after `#` what it matches and writes of registers, by name. A table lists the parts of
registers that flows of the demonstration use there.

A packet enters the first table and goes forward. One that no flow takes is dropped; there is no NORMAL
action and nothing is sent to the controller.
"""


_QUESTIONS = """\
## Clients that have become others

The server's node judges replies by the identity that the client had when it last sent. A client that was relabelled,
or that a rule has come to tell from others, may never send again. So the client's node compares, in table ClientServer,
the identity that its entry remembers with the one that the client has. Where they differ:

- A datagram (UDP, and every protocol without ports but ICMP) is not delivered. It goes back as a *question*: with its
  ends swapped, as an original of the client as it is now, through the tables of both nodes. Both remember the client
  anew, and no pod ever sees it. What is still allowed goes on after the first datagram (faster pushes: after those
  under way within a round trip between the nodes), and nothing arrives of what is not; other nodes are sent no
  flow-mod, and nothing goes to the controller.
- TCP and SCTP are passed on: the client acknowledges, and with that the server's node decides, within a round trip.
- An ICMP echo reply is dropped; the client's next request is judged.

What the server's node refuses of TCP and UDP it sends to the client's node as a question (direction *reply*), for it
may have judged by what the client no longer is: then the same happens as above, otherwise the question is dropped.

A question that the server's node refuses clears no mark, as a client's own packet would: the client may be of a class
that this node hears of only in a moment. It is remembered with that identity, and the replies are refused by it.

While classes are split, between the step in which pods take their new numbers and the one in which rules come into
force that tell them from the old ones, a reply judged by the old number is right: it is delivered and asked about at
once, so that a push that goes on loses nothing.

What is left to the client's next packet: fragments and SCTP that the server's node refuses by what the client was,
and everything, should the question itself be lost between the nodes.
"""

_LOST = """\
## Connections that were lost

Open vSwitch's userspace datapath loses its connections when it is restarted; the kernel's keeps them. Afterwards no
packet passes because it is old: it passes if policy admits it now, at both ends. UDP, SCTP and ICMP wait for their
client. TCP without SYN goes on between ends that were there before the loss, in whichever direction policy admits, for
2 h 15 min after it:

- On one node, and between a pod and outside: where policy admits the segment as its client's, which makes an entry;
  else where it admits it as a reply, which makes none.
- Between nodes the segment is an *orphan*. The other node decides it as a client's if it lost its connections too.
  Where that is refused, or an entry says that it is a reply, it goes back to the sender's node as a *question*, with
  its ends swapped; that node judges it as its client's and returns it as an *answered* reply, which the client's node
  judges and delivers.
- An entry that an orphan made is *loose*: which end is the client is a guess, until the other node's entry confirms it
  or turns it round. Where policy admits both directions, a server that speaks first may be taken for the client for
  good: then the connection ends with the permission of that direction.

Which ports were there before is noted in the database (`external_ids:romana-programmed` of an Interface, and
`romana-connections-lost` of the Bridge), so a restart of the controller at the same time makes no difference, an
ordinary start has no survivors, and a new pod gets nothing that was meant for the one that had its address before.
"""

_ERRORS = """## ICMP errors

An error is judged as a packet of the connection that it quotes, in its direction, by the connection's own addresses
and ports, on both nodes, each its part. It has to come from an end of the connection, or from where a router on its
way would send it: from outside for connections with outside, or from the node itself for all of its pods. Between
nodes both must agree which end is the client. What one node alone remembers, as the other refused it, passes nothing.
"""


def _overview() -> str:
    lines = ["## Tables", "", "| number | table | what it is for | leads to |", "|---|---|---|---|"]
    lines += [
        f"| {TABLE_IDS[table.name]} | [{table.name}](#{table.name.lower()}) | {table.purpose} | {_led(table)} |"
        for table in TABLES
    ]
    return "\n".join([*lines, ""])


def _led(table: Table) -> str:
    return ", ".join(table.leads_to) or "out, or nowhere"


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
            f"- leads to: {_led(table)}",
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
    held = [each for each in declared if each in used or len(declared) == 1]
    return f" ({', '.join(held)})" if held else ""


def _registers() -> str:
    head = ["## Registers", "", "All registers are 0 when a packet comes in, and go with it through conntrack.", ""]
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
            "Each tenant with connections on a bridge has a zone there, and what is no single tenant's has one",
            f"too. In its number the upper {16 - INDEX_BITS} bits are the bridge's (1 plus its host number modulo",
            f"{SLOTS}), the lower {INDEX_BITS} the first segment of the tenant, or 0. The zone is the same in both",
            "directions: that of the tenant of the one pod that is here; where both are here, of the one that is",
            "not shared; where a shared tenant's pod here has to do with a pod elsewhere, of the tenant there,",
            "which the segment in its address tells (an address that is not from the plan tells nothing: then it",
            "is the shared tenant's own). The common zone is for what is left: neither end is a pod here, or both",
            "are and both are shared, or a shared tenant's pod has to do with another node itself. What a pod",
            "sends itself is dropped before it.",
            "",
            "Segments are taken together in blocks of a tenant's usual range (4, or fewer with fewer than 6",
            "segment bits), and each block is one zone. Of a tenant with more than that, all local pods use the",
            "first zone; on a node with a pod of a shared tenant, the first zone may then have half of the",
            "tenant's connections, and the others the other half in equal parts. With 15 segment bits, two blocks",
            "that are 16,384 segments apart share a zone.",
            "",
            "What a committed entry remembers:",
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
            "A local pod's packets that would make a new entry in its node's conntrack table for a connection that "
            "leaves the node pass a meter first (`LIMITED` in table "
            "[ConntrackCommit](#conntrackcommit)), because another node may yet drop them. "
            "Later packets of a connection pass none, whether or not somebody answers.",
            "",
            f"The meter of a pod has the number `{METERS.start:#x}` plus the pod's OpenFlow port; meters of other "
            f"numbers than `{METERS.start:#x}` to `{METERS.stop - 1:#x}` are none of ours. It lets `new_connections` "
            f"packets a second pass (`romana.conf`), {BURST_SECONDS} seconds' worth of them at once. "
            "`ovs-ofctl -O OpenFlow15 meter-stats BRIDGE` counts what was dropped.",
            "",
            f"A second meter of each pod (`{arp_meter_number(0):#x}` plus its port) is for its ARP requests, "
            f"{ARP_RATE} a second, and a third (`{fragment_meter_number(0):#x}`) for its fragments, `fragments` "
            f"a second and {FRAGMENT_BURST_SECONDS} seconds' worth of them at once: conntrack keeps pieces until their "
            "datagram is whole, and has room for so many of all pods.",
            "",
        ]
    )


def _wire() -> str:
    bits = (
        (
            WIRE_REST,
            f"always `{WIRE_REST_VALUE:#05x}`: first byte `0a`, so it is a local unicast MAC and never `0a:58`",
        ),
        (WIRE_ANSWERED, "1 for the answer of a question about TCP, see [below](#connections-that-were-lost)"),
        (
            WIRE_QUESTION,
            "1 for a question about a client's identity, see [below](#clients-that-have-become-others); of an orphan: "
            "a reply at most",
        ),
        (WIRE_EGRESS, "egress mark: " + ", ".join(f"{value} {name}" for name, value in EGRESS.values)),
        (WIRE_DIRECTION, "direction mark: " + ", ".join(f"{value} {name}" for name, value in DIRECTION.values)),
        (WIRE_ID, "identity of the sender: segment (16 bits) and class (16 bits)"),
    )
    lines = [
        "## Between nodes",
        "",
        "On a link or in a tunnel the inner source MAC carries what the sender's node knows:",
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
            f"Bits {MAGIC_SHIFT} to 63 are `{MAGIC:#x}` in every flow of ours. "
            f"Bits {FEATURE_SHIFT} to {MAGIC_SHIFT - 1} say what it is for ({features}). "
            "The rest is a hash of its origin, the policy and rule it exists for.",
            "",
        ]
    )


def _worked(example: Example) -> str:
    parts = ["## Worked example", "", example.introduction, ""]
    for node, flows in example.flows.items():
        parts += [
            f"### The tables of {node}",
            "",
            f"{len(flows)} flows, each after the origin it exists for.",
            "",
            "```",
        ]
        parts += [*_listed(flows), "```", ""]
    for journey in example.journeys:
        parts += [f"### {journey.title}", "", *journey.steps, ""]
    return "\n".join(parts)


def _listed(flows: Sequence[Flow]) -> list[str]:
    lines: list[str] = []
    for origin, group in groupby(ordered(flows), key=lambda item: str(item.origin)):
        lines += [f"# {origin}", *map(readable, group)]
    return lines
