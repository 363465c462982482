"""Finds the identity of each local pod among the published classes, by its exact labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from romana_ovs.engine.endpoints import EndpointRecord
from romana_ovs.model.identity import CLASS_MASK, UNKNOWN_CLASS, identity, segment_of
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.requirements import requirement_sort_key
from romana_ovs.policy.view import ClassInfo, LabelRequirement
from romana_ovs.registry_types.published import ClassSet, Stage

NO_REQUIREMENTS: frozenset[LabelRequirement] = frozenset()


class ClassMatcher:
    """A class set indexed by segment and matching requirements, for many pods."""

    def __init__(self, class_set: ClassSet) -> None:
        self.class_set = class_set
        self._required = frozenset(
            requirement for requirement, stage in class_set.requirements.items() if stage is not Stage.INTRODUCED
        )
        self._published: dict[tuple[int, frozenset[LabelRequirement]], list[int]] = {}
        self._pending: dict[tuple[int, frozenset[LabelRequirement]], int] = {}
        for class_identity, matching in sorted(class_set.classes.items()):
            segment = segment_of(class_identity)
            if class_identity in class_set.retiring:
                continue
            if class_identity in class_set.pending:
                self._pending.setdefault((segment, matching), class_identity)
            else:
                self._published.setdefault((segment, matching & self._required), []).append(class_identity)

    def find_known(self, pod: PodKey, segment: int, labels: Labels) -> int | None:
        """The identity that matches and that every node knows: the override, or else the lowest; None without any."""
        matching = frozenset(requirement for requirement in self._required if requirement.matches(labels))
        fitting = self._published.get((segment, matching), [])
        override = self.class_set.overrides.get(pod)
        return override if override in fitting else fitting[0] if fitting else None

    def consistent(self, class_identity: int, labels: Labels) -> bool:
        """Whether the class with this identity matches these labels; the unknown class matches all."""
        if class_identity & CLASS_MASK == UNKNOWN_CLASS:
            return True
        matching = self.class_set.classes.get(class_identity)
        return matching is not None and all(
            (requirement in matching) == requirement.matches(labels) for requirement in self._required
        )

    def find_any(self, pod: PodKey, segment: int, labels: Labels) -> int | None:
        """As `find_known`, or else a matching pending one, which not every node knows yet."""
        known = self.find_known(pod, segment, labels)
        if known is not None:
            return known
        matching = frozenset(requirement for requirement in self.class_set.requirements if requirement.matches(labels))
        return self._pending.get((segment, matching))


NO_MATCHER = ClassMatcher(ClassSet(""))
"""For a namespace without classes."""


@dataclass(frozen=True, slots=True)
class PodIdentity:
    """The identity that the tables use for a pod now.

    `previous_ids` are identities that it had before and that no rule in force distinguishes from this one. `waiting`:
    it was relabelled, or a requirement was added, and it keeps its identity until a new class matches.
    """

    record: EndpointRecord
    identity: int
    previous_ids: tuple[int, ...] = ()
    waiting: bool = False

    @property
    def has_class(self) -> bool:
        """Whether its identity is a class, and not just its segment."""
        return self.identity & CLASS_MASK != UNKNOWN_CLASS


class PodIdentities:
    """The identities of the pods of one node. `consistent`: the class of each, if any, matches its labels."""

    def __init__(self) -> None:
        self.consistent = True
        self.waiting = False
        """Whether some pod waits for its class."""
        self._enforced = 0
        self._may_wait: bool | None = None
        self._any_previous_ids = False
        self.assigned: Mapping[PodKey, PodIdentity] = MappingProxyType({})
        self._matchers: dict[str, ClassMatcher] = {}
        """The matchers of the namespaces of its pods."""
        self._all_matchers: Mapping[str, ClassMatcher] = {}

    def restore(self, assigned: Mapping[PodKey, PodIdentity]) -> None:
        """Begins with the identities that pods had before a restart."""
        self.assigned = MappingProxyType(dict(assigned))
        self.waiting = any(pod.waiting for pod in assigned.values())

    def is_current(self, matchers: Mapping[str, ClassMatcher], *, may_wait: bool, enforced: int) -> bool:
        """Whether `update` with the same records would change nothing."""
        if self.waiting or may_wait != self._may_wait or (enforced != self._enforced and self._any_previous_ids):
            return False
        if matchers is not self._all_matchers:
            if any(matchers.get(name, NO_MATCHER) is not matcher for name, matcher in self._matchers.items()):
                return False
            self._all_matchers = matchers
        self._enforced = enforced
        return True

    def update(
        self,
        records: Mapping[PodKey, EndpointRecord],
        matchers: Mapping[str, ClassMatcher],
        *,
        unnumbered: Mapping[PodKey, EndpointRecord],
        may_wait: bool,
        enforced: int,
    ) -> None:
        """Finds the identity of every pod of `records`.

        `unnumbered` are the previous records of pods that have their endpoint, but no record until their segment has a
        number. While `may_wait`, a pod that had a class keeps its identity while no class matches; otherwise it gets
        the identity of its segment without a class. `enforced` is the version of the rules in force: new ones may
        distinguish what no rule did before.
        """
        previous = self.assigned if enforced == self._enforced else {}
        # Then a pod with the same record keeps its identity.
        current = self.consistent and self.is_current(matchers, may_wait=may_wait, enforced=enforced)
        namespaces = {record.pod.namespace for record in (*records.values(), *unnumbered.values())}
        self._matchers, self._all_matchers = {name: matchers.get(name, NO_MATCHER) for name in namespaces}, matchers
        unchanged, identities = {}, {}
        for key, record in records.items():
            old = self.assigned.get(key)
            if current and old is not None and old.record is record:
                unchanged[key] = old
                continue
            if old is not None and not _same_pod(old.record, record):
                old = None
            identities[key] = self._assign(key, record, old, may_wait=may_wait)
        if may_wait:
            identities.update(
                {key: self._keep_previous(key, self.assigned[key]) for key in unnumbered.keys() & self.assigned.keys()}
            )
        self._enforced = enforced
        changed = {key: _with_previous_ids(new, previous.get(key)) for key, new in identities.items()}
        self.assigned = MappingProxyType(dict(sorted({**unchanged, **changed}.items())))
        self.waiting = any(pod.waiting for pod in self.assigned.values())
        self._any_previous_ids = any(pod.previous_ids for pod in self.assigned.values())
        self._may_wait = may_wait
        # Who does not wait has the class that was found by its labels, or none.
        self.consistent = all(
            self._matchers[pod.record.pod.namespace].consistent(pod.identity, pod.record.pod.labels)
            for pod in identities.values()
            if pod.waiting
        )

    def _assign(self, key: PodKey, record: EndpointRecord, old: PodIdentity | None, *, may_wait: bool) -> PodIdentity:
        matcher = self._matchers[record.pod.namespace]
        had_class = old is not None and old.has_class
        find = matcher.find_known if had_class and may_wait else matcher.find_any
        class_identity = find(key, record.segment_number, record.pod.labels)
        if class_identity is not None:
            return PodIdentity(record, class_identity)
        if old is not None and had_class and may_wait:
            if _same_labels(old.record, record) and old.identity in matcher.class_set.classes:
                return PodIdentity(
                    record, old.identity, waiting=not matcher.consistent(old.identity, record.pod.labels)
                )
            if not _same_labels(old.record, record):
                return self._keep_previous(key, old)
        return PodIdentity(record, identity(record.segment_number, UNKNOWN_CLASS))

    def _keep_previous(self, key: PodKey, old: PodIdentity) -> PodIdentity:
        """The identity of a relabelled pod by its previous labels, in the present classes."""
        matcher = self._matchers[old.record.pod.namespace]
        class_identity = matcher.find_any(key, old.record.segment_number, old.record.pod.labels)
        return PodIdentity(old.record, old.identity if class_identity is None else class_identity, waiting=True)


def _with_previous_ids(new: PodIdentity, old: PodIdentity | None) -> PodIdentity:
    """`new` with the previous identities of the pod, if its labels are the same."""
    if (
        old is None
        or not old.has_class
        or not _same_labels(old.record, new.record)
        or not _same_pod(old.record, new.record)
    ):
        return new
    previous_ids = old.previous_ids if old.identity == new.identity else (*old.previous_ids, old.identity)
    return replace(new, previous_ids=tuple(each for each in previous_ids if each != new.identity))


def _same_pod(one: EndpointRecord, other: EndpointRecord) -> bool:
    return one.endpoint == other.endpoint


def _same_labels(one: EndpointRecord, other: EndpointRecord) -> bool:
    return (one.segment_number, one.pod.labels) == (other.segment_number, other.pod.labels)


def class_infos(class_set: ClassSet, may_rely_on: Iterable[LabelRequirement]) -> dict[int, ClassInfo]:
    """The identities of one namespace, each with the answers to the requirements that rules may rely on."""
    requirements = sorted(may_rely_on, key=requirement_sort_key)
    return {
        class_identity: ClassInfo(
            class_set.namespace,
            MappingProxyType({requirement: requirement in matching for requirement in requirements}),
        )
        for class_identity, matching in class_set.classes.items()
    }
