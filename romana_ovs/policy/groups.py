"""Permissions as groups with stable numbers: equal content is one group, on every run and every node."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from operator import attrgetter

from romana_ovs.policy.view import Allow, ClientGroup, Membership, ServerGroup

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
    """One pod's group before it has a number: its permissions in canonical order, and a digest of all of it."""

    digest: Digest
    first: tuple[Allow, ...]
    second: tuple[Allow, ...] = ()
    open: bool = False


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


def server_draft(ingress: Iterable[Entry], open_egress: Iterable[Entry]) -> Draft:
    """The draft of a server group."""
    one, two = _sorted(ingress), _sorted(open_egress)
    digest = _join(b"server", one, two)
    return Draft(digest, tuple(each.allow for each in one), tuple(each.allow for each in two))


def client_draft(accepted: Iterable[Entry], *, leaves_open: bool) -> Draft:
    """The draft of a client group; `leaves_open`: the destination's node may admit more."""
    listed = _sorted(accepted)
    digest = _join(b"client, open" if leaves_open else b"client", listed)
    return Draft(digest, tuple(each.allow for each in listed), open=leaves_open)


def numbers(digests: Iterable[Digest]) -> dict[Digest, int]:
    """A number (1 to 2**32-1) for every distinct digest: its hash, rehashed where two would meet."""
    given: dict[Digest, int] = {}
    taken = {0}
    for digest in sorted(set(digests)):
        number = _number(digest)
        attempt = 0
        while number in taken:
            attempt += 1
            number = _number(digest + attempt.to_bytes(_NUMBER_BYTES, "big"))
        given[digest] = number
        taken.add(number)
    return given


def server_group(draft: Draft, number: int) -> ServerGroup:
    """The server group that `draft` becomes."""
    return ServerGroup(number, ingress=draft.first, open_egress=draft.second)


def client_group(draft: Draft, number: int) -> ClientGroup:
    """The client group that `draft` becomes."""
    return ClientGroup(number, accepted=draft.first, open=draft.open)


def membership(drafts: Drafts, servers: dict[Digest, int], clients: dict[Digest, int]) -> Membership:
    """The groups of a pod with these drafts, given the numbers of all."""
    client = 0 if drafts.client is None else clients[drafts.client.digest]
    return Membership(servers[drafts.server.digest], client)


def _sorted(entries: Iterable[Entry]) -> list[Entry]:
    return sorted({each.digest: each for each in entries}.values(), key=attrgetter("order"))


def _join(kind: bytes, *lists: list[Entry]) -> Digest:
    hashed = blake2b(kind, digest_size=_DIGEST_BYTES)
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
    ports = "any"
    if allow.ports is not None:
        ports = " ".join(f"{port.low}-{port.high}/{port.protocol.value}" for port in allow.ports)
    origin = allow.origin
    return "\n".join((origin.kind, origin.namespace, origin.name, origin.rule, peers, ports))
