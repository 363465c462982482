"""Finds the identity of each local pod among the published classes, by its exact labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from romana_ovs.engine.endpoints import EndpointRecord
from romana_ovs.model.identity import CLASS_MASK, UNKNOWN_CLASS, identity, segment_of
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.published import ClassSet, Stage
from romana_ovs.policy.requirements import requirement_sort_key
from romana_ovs.policy.view import ClassInfo, LabelRequirement

NO_REQUIREMENTS: frozenset[LabelRequirement] = frozenset()


class ClassMatcher:
    """One class set, made ready to be asked many times."""

    def __init__(self, classes: ClassSet) -> None:
        self.classes = classes
        self._asked = frozenset(
            requirement for requirement, stage in classes.requirements.items() if stage is not Stage.INTRODUCED
        )
        self._known: dict[tuple[int, frozenset[LabelRequirement]], list[int]] = {}
        self._coming: dict[tuple[int, frozenset[LabelRequirement]], int] = {}
        for number, yes in sorted(classes.classes.items()):
            if number in classes.retiring:
                continue
            if number in classes.pending:
                self._coming.setdefault((segment_of(number), yes), number)
            else:
                self._known.setdefault((segment_of(number), yes & self._asked), []).append(number)

    def known(self, pod: PodKey, segment: int, labels: Labels) -> int | None:
        """The identity that fits and that every node knows: the pinned one, or else the lowest."""
        yes = frozenset(requirement for requirement in self._asked if requirement.matches(labels))
        fitting = self._known.get((segment, yes), [])
        pinned = self.classes.overrides.get(pod)
        return pinned if pinned in fitting else fitting[0] if fitting else None

    def consistent(self, number: int, labels: Labels) -> bool:
        """Whether the class says of a pod with these labels what is true, or nothing."""
        if number & CLASS_MASK == UNKNOWN_CLASS:
            return True
        yes = self.classes.classes.get(number)
        return yes is not None and all(
            (requirement in yes) == requirement.matches(labels) for requirement in self._asked
        )

    def any(self, pod: PodKey, segment: int, labels: Labels) -> int | None:
        """As `known`, or else one that fits and that not every node knows yet."""
        found = self.known(pod, segment, labels)
        if found is not None:
            return found
        yes = frozenset(requirement for requirement in self.classes.requirements if requirement.matches(labels))
        return self._coming.get((segment, yes))


NO_MATCHER = ClassMatcher(ClassSet(""))
"""For a namespace without classes."""


@dataclass(frozen=True, slots=True)
class PodIdentity:
    """What a pod is to the tables now.

    `formerly` are identities that it had before and that no rule in force tells from this one. `waiting`: it was
    relabelled, or a question came, and it is what it was until what it is now has a class.
    """

    member: EndpointRecord
    identity: int
    formerly: tuple[int, ...] = ()
    waiting: bool = False

    @property
    def known(self) -> bool:
        """Whether its identity is a class, and not just its segment."""
        return self.identity & CLASS_MASK != UNKNOWN_CLASS


class PodIdentities:
    """What the pods of one node wear. `consistent`: no class says of any of them what is not true."""

    def __init__(self) -> None:
        self.consistent = True
        self.waiting = False
        """Whether some pod waits for its class."""
        self._enforced = 0
        self._patient: bool | None = None
        self._any_former = False
        self.worn: Mapping[PodKey, PodIdentity] = MappingProxyType({})
        self._matchers: dict[str, ClassMatcher] = {}
        """Those of the namespaces of its pods."""
        self._all_matchers: Mapping[str, ClassMatcher] = {}

    def restore(self, worn: Mapping[PodKey, PodIdentity]) -> None:
        """Takes `worn` as what pods wore before a restart."""
        self.worn = MappingProxyType(dict(worn))
        self.waiting = any(each.waiting for each in worn.values())

    def stay(self, matchers: Mapping[str, ClassMatcher], *, patient: bool, enforced: int) -> bool:
        """Whether `update` with the same members would change nothing."""
        if self.waiting or patient != self._patient or (enforced != self._enforced and self._any_former):
            return False
        if matchers is not self._all_matchers:
            if any(matchers.get(name, NO_MATCHER) is not held for name, held in self._matchers.items()):
                return False
            self._all_matchers = matchers
        self._enforced = enforced
        return True

    def update(
        self,
        members: Mapping[PodKey, EndpointRecord],
        matchers: Mapping[str, ClassMatcher],
        *,
        late: Mapping[PodKey, EndpointRecord],
        patient: bool,
        enforced: int,
    ) -> None:
        """Finds what every pod of `members` wears.

        `late` are pods that are still here but have no member for the time being, as they were. While `patient`, a
        pod that had a class and has none now stays what it was; otherwise it gets what its whole segment gets.
        `enforced` is another number when other rules have come into force: they may tell apart what no rule did.
        """
        places = {member.pod.namespace for member in (*members.values(), *late.values())}
        self._matchers, self._all_matchers = {name: matchers.get(name, NO_MATCHER) for name in places}, matchers
        found = {}
        for key, member in members.items():
            old = self.worn.get(key)
            if old is not None and not _same_pod(old.member, member):
                old = None
            found[key] = self._assign(key, member, old, patient=patient)
        if patient:
            found.update({key: self._keep_previous(key, self.worn[key]) for key in late.keys() & self.worn.keys()})
        known = self.worn if enforced == self._enforced else {}
        self._enforced = enforced
        self.worn = MappingProxyType({key: _with_former(found[key], known.get(key)) for key in sorted(found)})
        self.waiting = any(worn.waiting for worn in self.worn.values())
        self._any_former = any(worn.formerly for worn in self.worn.values())
        self._patient = patient
        self.consistent = all(
            self._matchers[worn.member.pod.namespace].consistent(worn.identity, worn.member.pod.labels)
            for worn in found.values()
        )

    def _assign(self, key: PodKey, member: EndpointRecord, old: PodIdentity | None, *, patient: bool) -> PodIdentity:
        matcher = self._matchers[member.pod.namespace]
        had = old is not None and old.known
        find = matcher.known if had and patient else matcher.any
        number = find(key, member.number, member.pod.labels)
        if number is not None:
            return PodIdentity(member, number)
        if old is not None and had and patient:
            if _alike(old.member, member) and old.identity in matcher.classes.classes:
                return PodIdentity(
                    member, old.identity, waiting=not matcher.consistent(old.identity, member.pod.labels)
                )
            if not _alike(old.member, member):
                return self._keep_previous(key, old)
        return PodIdentity(member, identity(member.number, UNKNOWN_CLASS))

    def _keep_previous(self, key: PodKey, old: PodIdentity) -> PodIdentity:
        """What was relabelled goes on as what it was, in the classes that there are now."""
        matcher = self._matchers[old.member.pod.namespace]
        number = matcher.any(key, old.member.number, old.member.pod.labels)
        return PodIdentity(old.member, old.identity if number is None else number, waiting=True)


def _with_former(new: PodIdentity, old: PodIdentity | None) -> PodIdentity:
    """`new`, which still is what it was under another number while its labels are the same."""
    if old is None or not old.known or not _alike(old.member, new.member) or not _same_pod(old.member, new.member):
        return new
    former = old.formerly if old.identity == new.identity else (*old.formerly, old.identity)
    return replace(new, formerly=tuple(number for number in former if number != new.identity))


def _same_pod(one: EndpointRecord, other: EndpointRecord) -> bool:
    return one.endpoint == other.endpoint


def _alike(one: EndpointRecord, other: EndpointRecord) -> bool:
    return (one.number, one.pod.labels) == (other.number, other.pod.labels)


def class_infos(classes: ClassSet, relied: Iterable[LabelRequirement]) -> dict[int, ClassInfo]:
    """The identities of one namespace, each with the answers to the requirements that may be relied on."""
    requirements = sorted(relied, key=requirement_sort_key)
    return {
        number: ClassInfo(
            classes.namespace, MappingProxyType({requirement: requirement in yes for requirement in requirements})
        )
        for number, yes in classes.classes.items()
    }
