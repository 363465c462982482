"""The classes of all namespaces as they are published, over the book of who is in which."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from romana_ovs.model.identity import segment_of
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.atoms import atom_order
from romana_ovs.policy.class_record import ClassEntry, ClassRecord
from romana_ovs.policy.classes import ClassBook
from romana_ovs.policy.published import ClassSet, Published, Stage
from romana_ovs.policy.view import Atom, ClassInfo
from romana_ovs.world.identities import Identities
from romana_ovs.world.members import Identified
from romana_ovs.world.remnants import Remnants
from romana_ovs.world.rules import Atoms, RuleSet
from romana_ovs.world.stages import Stages

Answers = dict[int, frozenset[Atom]]


class PublishedClasses:
    """Gives classes to pods, and makes a class set of each namespace's."""

    def __init__(self, before: Published, now: int) -> None:
        """Those that were published `before`; nothing of them was acknowledged before revision `now`."""
        self._book = ClassBook.of(record_of(before))
        saved = [
            [segment, name, dict(labels)]
            for name, classes in before.namespaces.items()
            for segment, labels in classes.remnants
        ]
        self._remnants = Remnants(self._book, saved)
        self._identities = Identities(self._book, self._remnants)
        self._published: Mapping[str, ClassSet] = before.namespaces
        self._coming = {number: now for each in before.namespaces.values() for number in each.coming}
        self._retired = {
            number: (name, now) for name, each in before.namespaces.items() for number in each.retired
        }
        self._classes: Mapping[int, ClassInfo] = MappingProxyType({})
        self._answers: dict[str, Answers] = {}
        self._reserve()

    @property
    def published(self) -> Mapping[str, ClassSet]:
        """The class set of every namespace that has one: the same object until one changes."""
        return self._published

    @property
    def namespaces(self) -> Collection[str]:
        """The namespaces in which pods may wear a class by now."""
        return {name for name, classes in self._published.items() if classes.classes}

    @property
    def next(self) -> Mapping[int, int]:
        """The class number to try next, by segment number."""
        return MappingProxyType(dict(sorted(self._book.next.items())))

    @property
    def pending(self) -> bool:
        """Whether some class is coming still, or a number retired."""
        return bool(self._coming or self._retired)

    def answers(self, pod: Identified) -> Collection[frozenset[Atom]]:
        """What holds for each of the published classes among which that of `pod` is."""
        classes = self._published.get(pod.pod.namespace)
        found = classes.classes if classes is not None else {}
        return [yes for number, yes in found.items() if segment_of(number) == pod.number]

    def refine(self, rules: RuleSet, atoms: Atoms) -> None:
        """Takes `atoms` as what classes answer."""
        self._identities.refine(rules, atoms)

    def assign(self, key: PodKey, pod: Identified) -> None:
        """Takes `pod` as what it is now. Raises AddressError when its segment has no class number left."""
        self._identities.assign(key, pod)

    def forget(self, key: PodKey) -> None:
        """The pod is gone."""
        self._identities.forget(key)

    def settle(self) -> None:
        """Every pod has been assigned: what nobody claimed goes."""
        self._identities.forget_unclaimed()

    def publish(self, stages: Stages, *, epoch: int, now: int, reached: float, everybody: float) -> None:
        """Makes the class sets of revision `now`.

        Nodes that count have acknowledged `reached`: what came before is not coming any more. What was retired
        before the revision that `everybody` has is free.
        """
        self._group()
        here = {number: name for name, classes in self._answers.items() for number in classes}
        there = {number: name for name, each in self._published.items() for number in each.classes}
        self._coming = {number: since for number, since in self._coming.items() if since > reached and number in here}
        self._coming.update(dict.fromkeys(here.keys() - there.keys(), now))
        self._retired = {
            number: each for number, each in self._retired.items() if each[1] > everybody and number not in here
        }
        self._retired.update((number, (there[number], now)) for number in there.keys() - here.keys())
        self._reserve()
        made = self._made(stages, epoch=epoch, now=now)
        if made != self._published:
            self._published = MappingProxyType(dict(sorted(made.items())))

    def _made(self, stages: Stages, *, epoch: int, now: int) -> dict[str, ClassSet]:
        coming, retired = _by(self._coming, self._home), _by(self._retired, lambda number: self._retired[number][0])
        pins: dict[str, dict[PodKey, int]] = {}
        for pod, number in self._book.pins.items():
            if pod not in self._remnants:
                pins.setdefault(self._home(number), {})[pod] = number
        remnants = self._remnants.by_namespace()
        made = {}
        for name in self._answers.keys() | retired.keys() | remnants.keys():
            old = self._published.get(name)
            atoms = stages.of(name)
            fresh = any(stage is Stage.NEW for stage in atoms.values())
            classes = self._answers.get(name, {})
            pinned = _kept(old, classes) if fresh and old is not None else pins.get(name, {})
            new = ClassSet(
                namespace=name,
                atoms=MappingProxyType({atom: atoms[atom] for atom in sorted(atoms, key=atom_order)}),
                classes=MappingProxyType(dict(sorted(classes.items()))),
                coming=coming.get(name, frozenset()),
                pins=MappingProxyType(dict(sorted(pinned.items()))),
                remnants=remnants.get(name, ()),
                retired=retired.get(name, frozenset()),
                epoch=old.epoch if old is not None else epoch,
                revision=old.revision if old is not None else now,
            )
            made[name] = old if old == new else _stamped(new, epoch, now)
        return {name: each for name, each in made.items() if not each.empty}

    def _group(self) -> None:
        if self._book.classes is not self._classes:
            self._classes = self._book.classes
            found: dict[str, Answers] = {}
            for number, info in self._classes.items():
                yes = frozenset(atom for atom, holds in info.truths.items() if holds)
                found.setdefault(info.namespace, {})[number] = yes
            self._answers = found

    def _home(self, number: int) -> str:
        return self._classes[number].namespace

    def _reserve(self) -> None:
        self._book.reserve(frozenset(self._retired))


def _kept(old: ClassSet, classes: Answers) -> dict[PodKey, int]:
    """While pods do not go by what is new, they are pinned as they were."""
    return {pod: number for pod, number in old.pins.items() if number in classes}


def _stamped(classes: ClassSet, epoch: int, now: int) -> ClassSet:
    return replace(classes, epoch=epoch, revision=now)


def _by(numbers: Iterable[int], home: Callable[[int], str]) -> dict[str, frozenset[int]]:
    found: dict[str, set[int]] = {}
    for number in numbers:
        found.setdefault(home(number), set()).add(number)
    return {name: frozenset(each) for name, each in found.items()}


def record_of(before: Published) -> ClassRecord:
    """The book of classes that was published `before`, as it is written down."""
    entries = tuple(
        ClassEntry(number, name, yes, frozenset(classes.atoms) - yes)
        for name, classes in before.namespaces.items()
        for number, yes in classes.classes.items()
    )
    pins = {pod: number for classes in before.namespaces.values() for pod, number in classes.pins.items()}
    asked = {name: frozenset(classes.atoms) for name, classes in before.namespaces.items() if classes.atoms}
    return ClassRecord(asked, dict(before.next_class), entries, pins)
