"""Permissions as flows: plain rows where few, conjunctions where peers times ports would be many.

A permission is peers times ports. Addresses and ports stand in other fields of a reply than of an original, and in
conntrack's fields for an ICMP error about either, so those conditions come three times, each with what it is for;
identities are those of client and server always.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from ipaddress import IPv4Network

from romana_ovs.model.identity import ALL_BITS, IdentityMatch
from romana_ovs.model.objects import Protocol
from romana_ovs.pipeline.actions import Action, Conjunction
from romana_ovs.pipeline.compile.conjunctions import Alternative, Pair, Product, fitted, joined
from romana_ovs.pipeline.compile.ports import ALL_PORTS, masks
from romana_ovs.pipeline.compile.words import BACKWARD, DIRECT, FORWARD, identified, state
from romana_ovs.pipeline.cookies import Feature
from romana_ovs.pipeline.fields import FRAG_ANY, FRAG_LATER
from romana_ovs.pipeline.flow import Flow
from romana_ovs.pipeline.registers import CLIENT_ID, RELATED
from romana_ovs.pipeline.tables import Condition, flow
from romana_ovs.policy.rules import PortRange
from romana_ovs.policy.view import Allow, Origin

ABOUT: Alternative = (RELATED.match(1), state("+trk+rel-inv"))
"""An ICMP error: its connection's ends and ports are those that conntrack remembers."""
_KINDS = (FORWARD, BACKWARD, ABOUT[0])
PEER_AND_PORT = 2
"""Clauses of a conjunction."""
_DIRECTIONS = 4
"""Of peers times ports at least one in so many can be met by one packet."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where permissions are written: what every row matches too, where a permitted packet goes on, and
    which address of an original is the peer's (`nw_src` where servers are asked, `nw_dst` where clients are)."""

    allow: IntEnum
    conjunction: IntEnum
    clause: IntEnum
    base: Alternative
    permitted: tuple[Action, ...]
    peer_address: str

    @property
    def seed(self) -> str:
        """Text that tells this place from every other of the same node."""
        return f"{type(self.allow).__name__} {self.base}"


def permissions(place: Place, allows: Sequence[Allow]) -> tuple[Flow, ...]:
    """The flows of all `allows` at `place`; a packet that none of them permits finds no row."""
    asked = ((allow.ports, _peers(allow, place.peer_address), allow.origin) for allow in allows)
    plain: dict[Pair, Origin] = {}
    large: list[Product] = []
    for product in joined(asked, _ports):
        rows = _rows(product)
        if rows is None:
            large.append(product)
            continue
        for peer, port in rows:
            plain.setdefault((peer, port), product.peers[peer])
    conjoined, apart = fitted(large)
    for pair, origin in apart.items():
        if _consistent(*pair):
            plain.setdefault(pair, origin)
    return (
        *(_row(place.allow, place, (*peer, *port), place.permitted, why) for (peer, port), why in plain.items()),
        *_conjunctions(place, conjoined),
    )


def _rows(product: Product) -> list[Pair] | None:
    """The peers and ports of a product that is best written as plain rows, None for one that is not."""
    few = min(len(product.peers), len(product.ports)) < PEER_AND_PORT
    clauses = len(product.peers) + len(product.ports) + 1
    if not few and len(product.peers) * len(product.ports) > _DIRECTIONS * clauses:
        return None
    rows = [pair for pair in ((peer, port) for peer in product.peers for port in product.ports) if _consistent(*pair)]
    # Two peers on one port stay plain: a third makes a conjunction of them.
    return rows if few or len(rows) <= clauses + 1 else None


def _conjunctions(place: Place, products: Iterable[Product]) -> Iterator[Flow]:
    numbers: set[int] = set()
    members: dict[Alternative, list[Conjunction]] = {}
    origins: dict[Alternative, Origin] = {}
    for product in products:
        number = _number(place, product.text, numbers)
        yield _row(place.conjunction, place, (("conj_id", number),), place.permitted, product.origin)
        for clause, side in enumerate((product.peers, product.ports), start=1):
            for alternative, origin in side.items():
                members.setdefault(alternative, []).append(Conjunction(number, clause, PEER_AND_PORT))
                origins.setdefault(alternative, origin)
    for alternative, clauses in members.items():
        # Flows of one match must be one flow: a second would replace the first.
        yield _row(place.clause, place, alternative, sorted_clauses(clauses), origins[alternative])


def sorted_clauses(members: Iterable[Conjunction]) -> tuple[Conjunction, ...]:
    """The clauses of one match in one order, whatever order their rules came in."""
    return tuple(sorted(set(members), key=lambda item: (item.number, item.clause)))


def _row(priority: IntEnum, place: Place, conditions: Alternative, actions: Sequence[Action], origin: Origin) -> Flow:
    return flow(priority, (*place.base, *conditions), actions, feature=Feature.POLICY, origin=origin)


def _number(place: Place, ports: str, taken: set[int]) -> int:
    """A conjunction number that follows from place and ports alone, so that it survives restarts.

    Peers are left out of it: one more of them is to be one more clause, not all clauses anew.
    """
    text = f"{place.seed} {ports}"
    for salt in range(len(taken) + 1):
        digest = blake2b(f"{salt} {text}".encode(), digest_size=4).digest()
        number = int.from_bytes(digest, "big") or 1
        if number not in taken:
            taken.add(number)
            return number
    return max(taken) % ALL_BITS + 1


def _peers(allow: Allow, address: str) -> list[Alternative]:
    if allow.identities is None and not allow.cidrs:
        return [()]
    peers: list[Alternative] = [(identified(CLIENT_ID, match),) for match in _minimal(allow.identities or ())]
    other = "nw_src" if address == "nw_dst" else "nw_dst"
    for cidr in allow.cidrs:
        if cidr.prefixlen == 0:
            return [()]
        peers += [
            (FORWARD, DIRECT, _within(address, cidr)),
            (BACKWARD, DIRECT, _within(other, cidr)),
            (*ABOUT, _within(f"ct_{address}", cidr)),
        ]
    return peers


def _minimal(matches: Iterable[IdentityMatch]) -> list[IdentityMatch]:
    """The matches that no wider one among them covers, in order."""
    ordered = sorted(set(matches), key=lambda item: (item.mask.bit_count(), item.value))
    kept: dict[int, set[int]] = {}
    for item in ordered:
        covered = any(mask & ~item.mask == 0 and item.value & mask in values for mask, values in kept.items())
        if not covered:
            kept.setdefault(item.mask, set()).add(item.value)
    return [IdentityMatch(value, mask) for mask, values in kept.items() for value in sorted(values)]


def _within(field: str, cidr: IPv4Network) -> Condition:
    return (field, int(cidr.network_address), int(cidr.netmask))


def _ports(ports: Sequence[PortRange] | None) -> list[Alternative]:
    if ports is None:
        return [()]
    alternatives: list[Alternative] = []
    for protocol in Protocol:
        ranges = _merged([(item.low, item.high) for item in ports if item.protocol is protocol])
        if not ranges:
            continue
        number: Condition = ("nw_proto", protocol.number)
        if any(low <= 1 and high == ALL_PORTS for low, high in ranges):
            alternatives += [(number,), (*ABOUT, ("ct_nw_proto", protocol.number))]
            continue
        for low, high in ranges:
            for value, mask in masks(low, high):
                alternatives.append((FORWARD, number, (f"{protocol.value}_dst", value, mask)))
                alternatives.append((BACKWARD, number, (f"{protocol.value}_src", value, mask)))
                alternatives.append((*ABOUT, ("ct_nw_proto", protocol.number), ("ct_tp_dst", value, mask)))
        # No ports in a later fragment: it goes on only with an admitted first one, by way of conntrack.
        alternatives.append((number, ("nw_frag", FRAG_ANY | FRAG_LATER, FRAG_ANY | FRAG_LATER)))
    return alternatives


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return merged


def _consistent(peer: Alternative, port: Alternative) -> bool:
    """Whether one packet can meet both: not an original's address with a reply's port, for instance."""
    kinds = [{kind for kind in _KINDS if kind in alternative} for alternative in (peer, port)]
    return not (kinds[0] and kinds[1]) or kinds[0] == kinds[1]
