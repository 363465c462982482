"""How much one policy may ask for: whoever may write policies must not be able to keep the controller from its work.

etcd takes objects of 1.5 MiB, which is room for tens of thousands of addresses; computing their tables takes seconds,
in which switches would wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from romana_ovs.kube.decode.validation import Validator
from romana_ovs.model.objects import IpBlock, KubernetesPolicy, Policy, PolicyPeer, PolicyPort

MOST_TERMS = 5000
"""Peers and ports of one direction of one policy, as many as its tables will need: half a second's work."""
_RANGE_TERMS = 16
"""Masked matches that a range of ports may take, in the middle; 30 at most. And what a name may stand for in a pod."""


def check_budget(policy: Policy, notes: Validator) -> None:
    """Note that `policy` asks for too much."""
    for path, total in _directions(policy):
        if total > MOST_TERMS:
            reason = f"asks for {total} peers and ports, of which one policy may have {MOST_TERMS}: make several of it"
            notes.wrong(path, reason)


def terms_of(policy: Policy) -> int:
    """What `policy` asks for in all of its directions; what allows nothing asks for nothing."""
    return sum(total for _, total in _directions(policy))


def _directions(policy: Policy) -> Iterator[tuple[str, int]]:
    """The path of each list of rules, and how many peers and ports are in it. A rule without any is one."""
    if isinstance(policy, KubernetesPolicy):
        for path, rules in (("spec.ingress", policy.ingress), ("spec.egress", policy.egress)):
            yield path, sum(max(1, _peers(rule.peers) + _ports(rule.ports)) for rule in rules)
    else:
        yield "spec.allowIncoming", sum(max(1, len(rule.sources) + _ports(rule.ports)) for rule in policy.rules)


def _peers(peers: Iterable[PolicyPeer]) -> int:
    return sum(1 if peer.ip_block is None else _networks(peer.ip_block) for peer in peers)


def _networks(block: IpBlock) -> int:
    """Most networks that can be left of `block`: an exception splits one of them once for each bit it is longer."""
    return 1 + sum(hole.prefixlen - block.cidr.prefixlen for hole in block.excepts)


def _ports(ports: Iterable[PolicyPort]) -> int:
    return sum(_RANGE_TERMS if _is_many(port) else 1 for port in ports)


def _is_many(port: PolicyPort) -> bool:
    return isinstance(port.port, str) or (port.end is not None and port.end != port.port)
