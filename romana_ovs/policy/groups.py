"""Forms permission groups with stable numbers: equal permissions are one group, on every run and every node.

A group number depends on the rules, not on the identities that their selectors match at the moment. So a class that is
new to the cluster adds rows to a group, and does not change its other rows or the rows of its pods.
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
class HashedAllow:
    """An `Allow` with the digest of its content and its sort key."""

    allow: Allow
    digest: Digest
    order: tuple[str, str, str, str, Digest]


@dataclass(frozen=True, slots=True)
class GroupSpec:
    """A permission group without its number: its permissions in canonical order, and a digest of them.

    Of a server group `allows` are its ingress, and `deferred_egress` what the deferred rules of its clients admit. Of a
    client group `allows` are the egress that its own node decides; `deferred`: it has deferred rules, too. The number
    is the hash of `key`. Within one view, specs with equal keys have equal content.
    """

    digest: Digest
    key: Digest
    allows: tuple[Allow, ...]
    deferred_egress: tuple[Allow, ...] = ()
    deferred: bool = False


@dataclass(frozen=True, slots=True)
class PodGroups:
    """The two groups of one pod; `client` None: no egress policy selects it."""

    server: GroupSpec
    client: GroupSpec | None


def hashed(allow: Allow) -> HashedAllow:
    """`allow` with a digest of its canonical text."""
    digest = blake2b(_text(allow).encode(), digest_size=_DIGEST_BYTES).digest()
    origin = allow.origin
    return HashedAllow(allow, digest, (origin.kind, origin.namespace, origin.name, origin.rule, digest))


def grants_key(kind: str, grants: Iterable[Grant], tenant: str | None) -> Digest:
    """A digest of `grants` without their present peers; selectors select pods of `tenant` (None: of all)."""
    digest = blake2b(kind.encode(), digest_size=_DIGEST_BYTES)
    for grant in grants:
        whose = "no pods" if not grant.scopes else "all" if tenant is None else f"of {tenant}"
        peers = "any" if grant.any_peer else f"{whose} | {' '.join(map(str, grant.cidrs))}"
        digest.update(f"{_origin_text(grant.origin)}\n{peers}\n{_ports_text(grant.ports)}\n".encode())
    return digest.digest()


def server_spec(
    ingress: Iterable[HashedAllow], deferred_egress: Iterable[HashedAllow], keys: Iterable[Digest]
) -> GroupSpec:
    """The spec of a server group; `keys` are those of its grants."""
    ingress_allows, egress_allows = _sorted(ingress), _sorted(deferred_egress)
    key = _key(b"server", keys)
    digest = _digest(key, ingress_allows, egress_allows)
    return GroupSpec(
        digest, key, tuple(allow.allow for allow in ingress_allows), tuple(allow.allow for allow in egress_allows)
    )


def client_spec(accepted: Iterable[HashedAllow], keys: Iterable[Digest], *, deferred: bool) -> GroupSpec:
    """The spec of a client group; `deferred`: it has rules that the server's node decides."""
    allows = _sorted(accepted)
    key = _key(b"client, deferred" if deferred else b"client", keys)
    return GroupSpec(_digest(key, allows), key, tuple(allow.allow for allow in allows), deferred=deferred)


def numbers(keys: Mapping[Digest, Digest]) -> dict[Digest, int]:
    """A number (1 to 2**32-1) for every digest in `keys`: the hash of its key, rehashed after a collision."""
    given: dict[Digest, int] = {}
    taken = {0}
    for digest, key in sorted(keys.items(), key=lambda item: (item[1], item[0])):
        number = _number(key)
        attempt = 0
        while number in taken:
            attempt += 1
            number = _number(key + attempt.to_bytes(_NUMBER_BYTES, "big"))
        given[digest] = number
        taken.add(number)
    return given


def server_group(spec: GroupSpec, number: int) -> ServerGroup:
    """The server group of `spec`."""
    return ServerGroup(number, ingress=spec.allows, deferred_egress=spec.deferred_egress)


def client_group(spec: GroupSpec, number: int) -> ClientGroup:
    """The client group of `spec`."""
    return ClientGroup(number, accepted=spec.allows, deferred=spec.deferred)


def membership(groups: PodGroups, servers: dict[Digest, int], clients: dict[Digest, int]) -> Membership:
    """The group numbers of a pod."""
    client = 0 if groups.client is None else clients[groups.client.digest]
    return Membership(servers[groups.server.digest], client)


def _sorted(allows: Iterable[HashedAllow]) -> list[HashedAllow]:
    return sorted({allow.digest: allow for allow in allows}.values(), key=attrgetter("order"))


def _key(kind: bytes, keys: Iterable[Digest]) -> Digest:
    return blake2b(b"".join((kind, *sorted(set(keys)))), digest_size=_DIGEST_BYTES).digest()


def _digest(key: bytes, *lists: list[HashedAllow]) -> Digest:
    digest = blake2b(key, digest_size=_DIGEST_BYTES)
    for allows in lists:
        digest.update(len(allows).to_bytes(_NUMBER_BYTES, "big"))
        digest.update(b"".join(allow.digest for allow in allows))
    return digest.digest()


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
