"""Limits the peers and ports of all policies of a namespace together.

The oldest policies come first, so that existing ones stay in force whatever is added. A policy beyond the quota
isolates the pods that it selects and allows nothing, like one that was never valid.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from romana_ovs.kube.decode.limits import policy_terms
from romana_ovs.kube.decode.objects import ObjectId, SourceLocation
from romana_ovs.model.errors import Problem
from romana_ovs.model.objects import KubernetesPolicy, Policy, PolicyKey


@dataclass(frozen=True, slots=True)
class _Entry:
    """A policy before the quota applies, and its number of peers and ports."""

    policy: Policy
    terms: int

    @property
    def order(self) -> tuple[str, PolicyKey]:
        return self.policy.creation_timestamp, self.policy.key


@dataclass(slots=True)
class PolicyQuota:
    """Tracks all policies by namespace; a namespace may have `limit` terms (peers and ports), any number with 0."""

    limit: int
    _policies: dict[str, dict[PolicyKey, _Entry]] = field(default_factory=dict)
    _over: dict[str, frozenset[PolicyKey]] = field(default_factory=dict)
    _touched: dict[str, set[PolicyKey]] = field(default_factory=dict)

    def set(self, key: PolicyKey, policy: Policy | None) -> None:
        """Set (or, with None, remove) the policy of this key."""
        entries = self._policies.setdefault(key.namespace, {})
        if policy is None:
            entries.pop(key, None)
        else:
            entries[key] = _Entry(policy, policy_terms(policy))
        self._touched.setdefault(key.namespace, set()).add(key)

    def changes(self) -> Iterator[tuple[PolicyKey, Policy | None]]:
        """The effective version of each policy that was set since the last call, or is affected by that."""
        touched, self._touched = self._touched, {}
        for namespace, keys in touched.items():
            entries = self._policies.get(namespace, {})
            before, over = self._over.pop(namespace, frozenset()), _over_quota(entries.values(), self.limit)
            if over:
                self._over[namespace] = over
            if not entries:
                self._policies.pop(namespace, None)
            for key in sorted(keys | (before ^ over)):
                entry = entries.get(key)
                yield key, _effective(entry.policy, over=key in over) if entry is not None else None

    @property
    def over(self) -> frozenset[ObjectId]:
        """The policies beyond the quota."""
        return frozenset(ObjectId(*_names(key)) for keys in self._over.values() for key in keys)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """A problem for each policy beyond the quota, sorted by object."""
        return tuple(
            quota_problem(SourceLocation("", 0, "", kind, f"{namespace}/{name}"), self.limit)
            for kind, namespace, name in sorted(self.over)
        )


def apply_quota(policies: Iterable[Policy], limit: int) -> tuple[list[Policy], frozenset[PolicyKey]]:
    """The effective versions of `policies` of any namespaces, in their order, and those beyond the quota."""
    listed = list(policies)
    by_namespace: dict[str, list[_Entry]] = {}
    for policy in listed:
        by_namespace.setdefault(policy.namespace, []).append(_Entry(policy, policy_terms(policy)))
    over = frozenset[PolicyKey]().union(*(_over_quota(entries, limit) for entries in by_namespace.values()))
    return [_effective(policy, over=policy.key in over) for policy in listed], over


def quota_problem(location: SourceLocation, limit: int) -> Problem:
    """The problem of a policy at `location` that is beyond the quota."""
    reason = (
        f"the policies of its namespace have more than {limit} peers and ports (namespace_terms), and the older ones "
        "use them up: this one isolates what it selects and allows nothing"
    )
    return location.problem("spec", reason)


def _over_quota(entries: Iterable[_Entry], limit: int) -> frozenset[PolicyKey]:
    """The policies of one namespace that are beyond the quota."""
    ordered = list(entries)
    if not limit or sum(entry.terms for entry in ordered) <= limit:
        return frozenset()
    left, over = limit, set()
    for entry in sorted(ordered, key=lambda entry: entry.order):
        if entry.terms > left:
            over.add(entry.policy.key)
        else:
            left -= entry.terms
    return frozenset(over)


def _effective(policy: Policy, *, over: bool) -> Policy:
    if not over:
        return policy
    if isinstance(policy, KubernetesPolicy):
        return replace(policy, ingress=(), egress=())
    return replace(policy, rules=())


def _names(key: PolicyKey) -> tuple[str, str, str]:
    return key.kind, key.namespace, key.name
