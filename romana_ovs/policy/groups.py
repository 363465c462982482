"""Permissions as groups with stable numbers: equal content is one group, on every run and every node.

A group is numbered by the rules behind it, not by the identities that these mean at the moment: a class that is new
to the cluster adds rows to a group and leaves all its others, and the rows of the pods that are in it, as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from operator import attrgetter

from romana_ovs.policy.rules import PortRange
from romana_ovs.policy.selection import Grant
from romana_ovs.policy.view import Allow, ClientGroup, Membership, Origin, ServerGroup

_DIGEST_BYTES = 16
_NUMBER_BYTES = 4

Digest = bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """An `Allow` with the digest of its content and its place in the order of a group."""

    allow: Allow
    digest: Digest
    order: tuple[str, str, str, str, Digest]


@dataclass(frozen=True, slots=True)
class Draft:
    """One pod's group before it has a number: its permissions in canonical order, and a digest of all of it.

    `name` is what its number is made from: in one view, drafts of one name have the same content.
    """

    digest: Digest
    name: Digest
    first: tuple[Allow, ...]
    second: tuple[Allow, ...] = ()
    deferred: bool = False


@dataclass(frozen=True, slots=True)
class Drafts:
    """The two groups of one pod; `client` None: no egress policy selects it."""

    server: Draft
    client: Draft | None


def entry(allow: Allow) -> Entry:
    """`allow` with a digest of its canonical text."""
    digest = blake2b(_text(allow).encode(), digest_size=_DIGEST_BYTES).digest()
    origin = allow.origin
    return Entry(allow, digest, (origin.kind, origin.namespace, origin.name, origin.rule, digest))


def grants_name(kind: str, grants: Iterable[Grant], tenant: str | None) -> Digest:
    """What `grants` say whoever their peers are at the moment; selectors mean pods of `tenant` (None: of all)."""
    hashed = blake2b(kind.encode(), digest_size=_DIGEST_BYTES)
    for grant in grants:
        whose = "no pods" if not grant.scopes else "all" if tenant is None else f"of {tenant}"
        peers = "any" if grant.any_peer else f"{whose} | {' '.join(map(str, grant.cidrs))}"
        hashed.update(f"{_origin_text(grant.origin)}\n{peers}\n{_ports_text(grant.ports)}\n".encode())
    return hashed.digest()


def server_draft(ingress: Iterable[Entry], deferred_egress: Iterable[Entry], names: Iterable[Digest]) -> Draft:
    """The draft of a server group; `names` are those of what it was made from."""
    one, two = _sorted(ingress), _sorted(deferred_egress)
    name = _name(b"server", names)
    digest = _join(name, one, two)
    return Draft(digest, name, tuple(each.allow for each in one), tuple(each.allow for each in two))


def client_draft(accepted: Iterable[Entry], names: Iterable[Digest], *, deferred: bool) -> Draft:
    """The draft of a client group; `deferred`: it has rules that the server's node decides."""
    listed = _sorted(accepted)
    name = _name(b"client, deferred" if deferred else b"client", names)
    return Draft(_join(name, listed), name, tuple(each.allow for each in listed), deferred=deferred)


def numbers(names: Mapping[Digest, Digest]) -> dict[Digest, int]:
    """A number (1 to 2**32-1) for every digest of `names`: the hash of its name, rehashed where two would meet."""
    given: dict[Digest, int] = {}
    taken = {0}
    for digest, name in sorted(names.items(), key=lambda item: (item[1], item[0])):
        number = _number(name)
        attempt = 0
        while number in taken:
            attempt += 1
            number = _number(name + attempt.to_bytes(_NUMBER_BYTES, "big"))
        given[digest] = number
        taken.add(number)
    return given


def server_group(draft: Draft, number: int) -> ServerGroup:
    """The server group that `draft` becomes."""
    return ServerGroup(number, ingress=draft.first, deferred_egress=draft.second)


def client_group(draft: Draft, number: int) -> ClientGroup:
    """The client group that `draft` becomes."""
    return ClientGroup(number, accepted=draft.first, deferred=draft.deferred)


def membership(drafts: Drafts, servers: dict[Digest, int], clients: dict[Digest, int]) -> Membership:
    """The groups of a pod with these drafts, given the numbers of all."""
    client = 0 if drafts.client is None else clients[drafts.client.digest]
    return Membership(servers[drafts.server.digest], client)


def _sorted(entries: Iterable[Entry]) -> list[Entry]:
    return sorted({each.digest: each for each in entries}.values(), key=attrgetter("order"))


def _name(kind: bytes, names: Iterable[Digest]) -> Digest:
    return blake2b(b"".join((kind, *sorted(set(names)))), digest_size=_DIGEST_BYTES).digest()


def _join(name: bytes, *lists: list[Entry]) -> Digest:
    hashed = blake2b(name, digest_size=_DIGEST_BYTES)
    for listed in lists:
        hashed.update(len(listed).to_bytes(_NUMBER_BYTES, "big"))
        hashed.update(b"".join(each.digest for each in listed))
    return hashed.digest()


def _number(digest: Digest) -> int:
    return int.from_bytes(blake2b(digest, digest_size=_NUMBER_BYTES).digest(), "big")


def _text(allow: Allow) -> str:
    peers = "any"
    if allow.identities is not None:
        identities = " ".join(f"{value:x}/{mask:x}" for value, mask in sorted(allow.identities))
        peers = f"{identities} | {' '.join(map(str, allow.cidrs))}"
    return "\n".join((_origin_text(allow.origin), peers, _ports_text(allow.ports)))


def _origin_text(origin: Origin) -> str:
    return "\n".join((origin.kind, origin.namespace, origin.name, origin.rule))


def _ports_text(ports: tuple[PortRange, ...] | None) -> str:
    return "any" if ports is None else " ".join(f"{port.low}-{port.high}/{port.protocol.value}" for port in ports)
