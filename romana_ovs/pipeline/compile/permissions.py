"""Compiles permissions to flows: plain flows if they are few, else conjunctions of peers and ports.

Addresses and ports are in other fields in a reply than in an original, and in conntrack's fields in an ICMP error
about either. So one port takes four matches: of originals, of replies, of ICMP errors, and of later fragments, which
have no ports. One address block takes three. Identities are always those of client and server: one match each.
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
from romana_ovs.pipeline.compile.conditions import DIRECT, FROM_CLIENT, FROM_SERVER, ct_state_match, identified
from romana_ovs.pipeline.compile.conjunctions import Alternative, Pair, Product, bounded_products, products_of
from romana_ovs.pipeline.compile.port_masks import MAX_PORT, masks
from romana_ovs.pipeline.cookies import Feature
from romana_ovs.pipeline.fields import FRAG_ANY, FRAG_LATER
from romana_ovs.pipeline.flow import Flow
from romana_ovs.pipeline.registers import CLIENT_ID, RELATED
from romana_ovs.pipeline.tables import Condition, flow
from romana_ovs.policy.rules import PortRange
from romana_ovs.policy.view import Allow, Origin

ICMP_ERROR: Alternative = (RELATED.match(1), ct_state_match("+trk+rel-inv"))
"""An ICMP error: addresses and ports of its connection are in conntrack's fields."""
_KINDS = (FROM_CLIENT, FROM_SERVER, ICMP_ERROR[0])
PEER_AND_PORT = 2
"""The dimensions of a conjunction."""
_PAIRS_PER_CONSISTENT_PAIR = 4
"""At least one pair of peer and port in so many can match a packet; an original's address and a reply's port cannot."""


@dataclass(frozen=True, slots=True)
class RuleTable:
    """Where permissions are written: priorities, what every flow matches too, and the actions of permitted packets.

    `table` is the name of the OpenFlow table. `peer_address` is the peer's field in an original: `nw_src` for rules of
    servers, `nw_dst` for rules of clients.
    """

    table: str
    allow: IntEnum
    conjunction: IntEnum
    clause: IntEnum
    base: Alternative
    permitted: tuple[Action, ...]
    peer_address: str

    @property
    def conj_id_salt(self) -> str:
        """Text that differs between the rule tables of a node, for the hashes that are their `conj_id` numbers."""
        return f"{self.table} {self.base}"


def permission_flows(table: RuleTable, allows: Sequence[Allow]) -> tuple[Flow, ...]:
    """The flows of all `allows` in `table`; a packet that none of them permits matches none of these."""
    requested = ((allow.ports, _peers(allow, table.peer_address), allow.origin) for allow in allows)
    plain: dict[Pair, Origin] = {}
    large: list[Product] = []
    for product in products_of(requested, _ports):
        pairs = _plain_pairs(product)
        if pairs is None:
            large.append(product)
            continue
        for peer, port in pairs:
            plain.setdefault((peer, port), product.peers[peer])
    conjoined, apart = bounded_products(large)
    for pair, origin in apart.items():
        if _consistent(*pair):
            plain.setdefault(pair, origin)
    return (
        *(_row(table.allow, table, (*peer, *port), table.permitted, rule) for (peer, port), rule in plain.items()),
        *_conjunctions(table, conjoined),
    )


def _plain_pairs(product: Product) -> list[Pair] | None:
    """The pairs of a product that takes fewer flows as plain flows; None if a conjunction is better."""
    few = min(len(product.peers), len(product.ports)) < PEER_AND_PORT
    # A conjunction takes one flow for each alternative, and one that matches its conj_id.
    conjunction_flows = len(product.peers) + len(product.ports) + 1
    if not few and len(product.peers) * len(product.ports) > _PAIRS_PER_CONSISTENT_PAIR * conjunction_flows:
        return None
    pairs = [pair for pair in ((peer, port) for peer in product.peers for port in product.ports) if _consistent(*pair)]
    # One more is allowed: two identities on one port (2 x 4 pairs, 2 + 4 + 1 flows of a conjunction) stay plain flows.
    return pairs if few or len(pairs) <= conjunction_flows + 1 else None


def _conjunctions(table: RuleTable, products: Iterable[Product]) -> Iterator[Flow]:
    numbers: set[int] = set()
    actions: dict[Alternative, list[Conjunction]] = {}
    origins: dict[Alternative, Origin] = {}
    for product in products:
        number = _conj_id(table, product.text, numbers)
        yield _row(table.conjunction, table, (("conj_id", number),), table.permitted, product.origin)
        for dimension, side in enumerate((product.peers, product.ports), start=1):
            for alternative, origin in side.items():
                actions.setdefault(alternative, []).append(Conjunction(number, dimension, PEER_AND_PORT))
                origins.setdefault(alternative, origin)
    for alternative, conjunctions in actions.items():
        # OpenFlow flows with equal match and priority are one flow: a second would overwrite the first.
        yield _row(table.clause, table, alternative, sorted_clauses(conjunctions), origins[alternative])


def sorted_clauses(actions: Iterable[Conjunction]) -> tuple[Conjunction, ...]:
    """The conjunction actions of one match in a fixed order, whatever the order of their rules."""
    return tuple(sorted(set(actions), key=lambda item: (item.number, item.clause)))


def _row(
    priority: IntEnum, table: RuleTable, conditions: Alternative, actions: Sequence[Action], origin: Origin
) -> Flow:
    return flow(priority, (*table.base, *conditions), actions, feature=Feature.POLICY, origin=origin)


def _conj_id(table: RuleTable, ports: str, taken: set[int]) -> int:
    """A conj_id that is a hash of table and ports, so that it survives restarts; rehashed if it is in `taken`.

    It does not depend on the peers: one more peer is one more flow, and no other flow changes.
    """
    text = f"{table.conj_id_salt} {ports}"
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
    reply_address = "nw_src" if address == "nw_dst" else "nw_dst"
    for cidr in allow.cidrs:
        if cidr.prefixlen == 0:
            return [()]
        peers += [
            (FROM_CLIENT, DIRECT, _within(address, cidr)),
            (FROM_SERVER, DIRECT, _within(reply_address, cidr)),
            (*ICMP_ERROR, _within(f"ct_{address}", cidr)),
        ]
    return peers


def _minimal(matches: Iterable[IdentityMatch]) -> list[IdentityMatch]:
    """The matches that no wider one covers, in order."""
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
        if any(low <= 1 and high == MAX_PORT for low, high in ranges):
            alternatives += [(number,), (*ICMP_ERROR, ("ct_nw_proto", protocol.number))]
            continue
        for low, high in ranges:
            for value, mask in masks(low, high):
                alternatives.append((FROM_CLIENT, number, (f"{protocol.value}_dst", value, mask)))
                alternatives.append((FROM_SERVER, number, (f"{protocol.value}_src", value, mask)))
                alternatives.append((*ICMP_ERROR, ("ct_nw_proto", protocol.number), ("ct_tp_dst", value, mask)))
        # A later fragment has no ports: conntrack passes it only with an admitted first one.
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
    """Whether one packet can match both: not an original's address with a reply's port, for instance."""
    kinds = [{kind for kind in _KINDS if kind in alternative} for alternative in (peer, port)]
    return not (kinds[0] and kinds[1]) or kinds[0] == kinds[1]
