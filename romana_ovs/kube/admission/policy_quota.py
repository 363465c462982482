"""What counts of the policies of a namespace, which together may ask for so many peers and ports and no more.

The oldest count first: what exists goes on, whatever is added to it. One that has no room any more isolates what it
selects and allows nothing, like one that was never valid.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from romana_ovs.kube.decode.limits import terms_of
from romana_ovs.kube.decode.objects import ObjectId, Place
from romana_ovs.model.errors import Problem
from romana_ovs.model.objects import KubernetesPolicy, Policy, PolicyKey


@dataclass(frozen=True, slots=True)
class _Held:
    """A policy as it was given, and what it asks for."""

    policy: Policy
    terms: int

    @property
    def order(self) -> tuple[str, PolicyKey]:
        return self.policy.created, self.policy.key


@dataclass(slots=True)
class PolicyQuota:
    """Keeps account of all policies, by namespace; `most` are the terms that one may have, 0 any number."""

    most: int
    _held: dict[str, dict[PolicyKey, _Held]] = field(default_factory=dict)
    _over: dict[str, frozenset[PolicyKey]] = field(default_factory=dict)
    _touched: dict[str, set[PolicyKey]] = field(default_factory=dict)

    def put(self, key: PolicyKey, policy: Policy | None) -> None:
        """`policy` is what there is of this key now; None: nothing."""
        here = self._held.setdefault(key.namespace, {})
        if policy is None:
            here.pop(key, None)
        else:
            here[key] = _Held(policy, terms_of(policy))
        self._touched.setdefault(key.namespace, set()).add(key)

    def settle(self) -> Iterator[tuple[PolicyKey, Policy | None]]:
        """What counts now of each policy that was put, and of those for which that is another by this."""
        touched, self._touched = self._touched, {}
        for namespace, keys in touched.items():
            here = self._held.get(namespace, {})
            before, over = self._over.pop(namespace, frozenset()), _beyond(here.values(), self.most)
            if over:
                self._over[namespace] = over
            if not here:
                self._held.pop(namespace, None)
            for key in sorted(keys | (before ^ over)):
                held = here.get(key)
                yield key, _counted(held.policy, over=key in over) if held is not None else None

    @property
    def over(self) -> frozenset[ObjectId]:
        """The policies that have no room."""
        return frozenset(ObjectId(*_names(key)) for keys in self._over.values() for key in keys)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The same as problems, sorted by object."""
        return tuple(
            too_much(Place("", 0, "", kind, f"{namespace}/{name}"), self.most)
            for kind, namespace, name in sorted(self.over)
        )


def admitted(policies: Iterable[Policy], most: int) -> tuple[list[Policy], frozenset[PolicyKey]]:
    """What counts of `policies` of any namespaces, in their order, and which of them have no room."""
    listed = list(policies)
    by_namespace: dict[str, list[_Held]] = {}
    for policy in listed:
        by_namespace.setdefault(policy.namespace, []).append(_Held(policy, terms_of(policy)))
    over = frozenset[PolicyKey]().union(*(_beyond(held, most) for held in by_namespace.values()))
    return [_counted(policy, over=policy.key in over) for policy in listed], over


def too_much(place: Place, most: int) -> Problem:
    """The problem of a policy that stands at `place` and has no room."""
    reason = (
        f"the policies of its namespace ask for more than {most} peers and ports (namespace_terms), and older "
        "ones than this have the room: it isolates what it selects and allows nothing"
    )
    return place.problem("spec", reason)


def _beyond(held: Iterable[_Held], most: int) -> frozenset[PolicyKey]:
    """The policies of one namespace that have no room."""
    listed = list(held)
    if not most or sum(each.terms for each in listed) <= most:
        return frozenset()
    left, over = most, set()
    for each in sorted(listed, key=lambda one: one.order):
        if each.terms > left:
            over.add(each.policy.key)
        else:
            left -= each.terms
    return frozenset(over)


def _counted(policy: Policy, *, over: bool) -> Policy:
    if not over:
        return policy
    if isinstance(policy, KubernetesPolicy):
        return replace(policy, ingress=(), egress=())
    return replace(policy, rules=())


def _names(key: PolicyKey) -> tuple[str, str, str]:
    return key.kind, key.namespace, key.name
