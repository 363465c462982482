"""Forms permission groups: pods to which the same rules apply, under a number that is stable but for hash collisions.

Rules are the same when policy, place in it, peers and ports are: equal rules of two policies make two groups. After a
collision of hashes a number depends on the other groups of the node, too. Otherwise it is equal in every run and on
every node. It depends on the rules, not on the identities that their selectors match at the moment. So a class that is
new to the cluster adds flows to a group, and does not change its other flows or the flows of its pods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from operator import attrgetter
from typing import TypeVar

from romana_ovs.policy.rules import PortRange
from romana_ovs.policy.selection import UnresolvedAllow
from romana_ovs.policy.view import Allow, ClientGroup, Membership, Origin, ServerGroup

_DIGEST_BYTES = 16
_NUMBER_BYTES = 4

Digest = bytes
Group = TypeVar("Group")


@dataclass(frozen=True, slots=True)
class HashedAllow:
    """An `Allow` with the digest of its content and its sort key."""

    allow: Allow
    digest: Digest
    order: tuple[str, str, str, str, Digest]


@dataclass(frozen=True, slots=True)
class GroupSpec:
    """A permission group without its number: permissions in canonical order, and a digest of them (`content_digest`).

    Of a server group `allows` are its ingress, and `deferred_egress` what the deferred rules of its clients admit. Of a
    client group `allows` are the egress that its own node decides; `deferred`: it has deferred rules, too. The number
    is the hash of `rules_digest`, which leaves out the identities that selectors match at the moment. Within one view,
    specs with equal `rules_digest` have equal content.
    """

    content_digest: Digest
    rules_digest: Digest
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


def unresolved_digest(kind: str, allows: Iterable[UnresolvedAllow], tenant: str | None) -> Digest:
    """A digest of `allows` without their present peers; selectors select pods of `tenant` (None: of all)."""
    digest = blake2b(kind.encode(), digest_size=_DIGEST_BYTES)
    for allow in allows:
        whose = "no pods" if not allow.scopes else "all" if tenant is None else f"of {tenant}"
        peers = "any" if allow.any_peer else f"{whose} | {' '.join(map(str, allow.cidrs))}"
        digest.update(f"{_origin_text(allow.origin)}\n{peers}\n{_ports_text(allow.ports)}\n".encode())
    return digest.digest()


def server_spec(
    ingress: Iterable[HashedAllow], deferred_egress: Iterable[HashedAllow], rule_digests: Iterable[Digest]
) -> GroupSpec:
    """The spec of a server group; `rule_digests` are those of the rules of all policies that it is made of."""
    ingress_allows, egress_allows = _sorted(ingress), _sorted(deferred_egress)
    rules_digest = _rules_digest(b"server", rule_digests)
    content_digest = _content_digest(rules_digest, ingress_allows, egress_allows)
    return GroupSpec(
        content_digest,
        rules_digest,
        tuple(allow.allow for allow in ingress_allows),
        tuple(allow.allow for allow in egress_allows),
    )


def client_spec(local_egress: Iterable[HashedAllow], rule_digests: Iterable[Digest], *, deferred: bool) -> GroupSpec:
    """The spec of a client group; `deferred`: it has rules that the server's node decides."""
    allows = _sorted(local_egress)
    rules_digest = _rules_digest(b"client, deferred" if deferred else b"client", rule_digests)
    content_digest = _content_digest(rules_digest, allows)
    return GroupSpec(content_digest, rules_digest, tuple(allow.allow for allow in allows), deferred=deferred)


def numbers(rules_digests: Mapping[Digest, Digest]) -> dict[Digest, int]:
    """A number (1 to 2**32-1) for each content digest: the hash of its rules' digest, rehashed after a collision."""
    given: dict[Digest, int] = {}
    taken = {0}
    for digest, rules_digest in sorted(rules_digests.items(), key=lambda item: (item[1], item[0])):
        number = _number(rules_digest)
        attempt = 0
        while number in taken:
            attempt += 1
            number = _number(rules_digest + attempt.to_bytes(_NUMBER_BYTES, "big"))
        given[digest] = number
        taken.add(number)
    return given


def server_group(spec: GroupSpec, number: int) -> ServerGroup:
    """The server group of `spec`."""
    return ServerGroup(number, ingress=spec.allows, deferred_egress=spec.deferred_egress)


def client_group(spec: GroupSpec, number: int) -> ClientGroup:
    """The client group of `spec`."""
    return ClientGroup(number, local_egress=spec.allows, deferred=spec.deferred)


def membership(groups: PodGroups, servers: dict[Digest, int], clients: dict[Digest, int]) -> Membership:
    """The group numbers of a pod."""
    client = 0 if groups.client is None else clients[groups.client.content_digest]
    return Membership(servers[groups.server.content_digest], client)


def reuse_or_make(
    specs: Mapping[Digest, GroupSpec],
    numbers: Mapping[Digest, int],
    *,
    known: Mapping[tuple[Digest, int], Group],
    make: Callable[[GroupSpec, int], Group],
) -> dict[tuple[Digest, int], Group]:
    """The groups of all specs by digest and number; known ones are the same objects as before."""
    specs_by_key = {(digest, numbers[digest]): spec for digest, spec in specs.items()}
    return {key: known[key] if key in known else make(spec, key[1]) for key, spec in specs_by_key.items()}


def _sorted(allows: Iterable[HashedAllow]) -> list[HashedAllow]:
    return sorted({allow.digest: allow for allow in allows}.values(), key=attrgetter("order"))


def _rules_digest(kind: bytes, rule_digests: Iterable[Digest]) -> Digest:
    return blake2b(b"".join((kind, *sorted(set(rule_digests)))), digest_size=_DIGEST_BYTES).digest()


def _content_digest(rules_digest: Digest, *lists: list[HashedAllow]) -> Digest:
    digest = blake2b(rules_digest, digest_size=_DIGEST_BYTES)
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
