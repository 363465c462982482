"""Numbers of classes over time: right for every pod, and never changed without need."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from romana_ovs.model.identity import CLASS_MASK, segment_of
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.classes import ClassAllocator
from romana_ovs.policy.view import LabelRequirement
from tests.support import strategies
from tests.support.hypothesis_profiles import examples

NAMESPACES = ("a", "b")
REQUIREMENTS = (
    LabelRequirement("app"),
    LabelRequirement("app", frozenset({"web"})),
    LabelRequirement("app", frozenset({"web", "db"})),
    LabelRequirement("tier", frozenset({"front"})),
    LabelRequirement("env"),
    LabelRequirement("owner", frozenset({"t1"})),
)

pods = st.sampled_from([PodKey(f"a/p{number}") for number in range(6)])
segments = st.integers(1, 2)
namespaces = st.sampled_from(NAMESPACES)
requirement_sets = st.fixed_dictionaries(
    {name: st.frozensets(st.sampled_from(REQUIREMENTS), max_size=3) for name in NAMESPACES}
)


class Book(RuleBasedStateMachine):
    """Any sequence of calls, with a model of who is where."""

    def __init__(self) -> None:
        super().__init__()
        self.allocator = ClassAllocator()
        self.asked: dict[str, frozenset[LabelRequirement]] = {name: frozenset() for name in NAMESPACES}
        self.pods: dict[PodKey, tuple[int, str, Labels]] = {}
        self.ever: dict[int, tuple[int, str]] = {}

    def _answers(self, pod: PodKey) -> tuple[int, str, frozenset[LabelRequirement]]:
        segment, namespace, labels = self.pods[pod]
        return (
            segment,
            namespace,
            frozenset(requirement for requirement in self.asked[namespace] if requirement.matches(labels)),
        )

    @initialize(requirements=requirement_sets)
    def first_questions(self, requirements: dict[str, frozenset[LabelRequirement]]) -> None:
        self.asked = requirements
        assert self.allocator.set_requirements(requirements) == frozenset()

    @rule(requirements=requirement_sets)
    def require(self, requirements: dict[str, frozenset[LabelRequirement]]) -> None:
        before = {pod: self.allocator.identity_of(pod) for pod in self.pods}
        added = {name: requirements[name] - self.asked[name] for name in NAMESPACES}
        self.asked = requirements
        moved = self.allocator.set_requirements(requirements)
        assert moved == {pod for pod, number in before.items() if self.allocator.identity_of(pod) != number}
        assert all(added[self.pods[pod][1]] for pod in moved), "only a new requirement moves a pod"
        for number in set(before.values()):
            once = [pod for pod in before if before[pod] == number]
            stayed = {self._answers(pod) for pod in once if pod not in moved}
            assert len(stayed) == 1, "exactly one part of a class keeps its number"

    @rule(requirement=st.sampled_from(REQUIREMENTS), namespace=namespaces)
    def ask_one_more(self, requirement: LabelRequirement, namespace: str) -> None:
        before = {pod: self.allocator.identity_of(pod) for pod in self.pods}
        known = requirement in self.asked[namespace]
        self.asked = {**self.asked, namespace: self.asked[namespace] | {requirement}}
        moved = self.allocator.set_requirements(self.asked)
        for number in set(before.values()):
            once = {pod for pod in before if before[pod] == number and self.pods[pod][1] == namespace}
            true = {pod for pod in once if requirement.matches(self.pods[pod][2])}
            assert moved & once == (true if true != once and not known else set())

    @rule(pod=pods, segment=segments, namespace=namespaces, labels=strategies.labels())
    def assign(self, pod: PodKey, segment: int, namespace: str, labels: Labels) -> None:
        others = {other: self._answers(other) for other in self.pods if other != pod}
        before = dict(self.allocator.classes)
        was = self.allocator.identity_of(pod) if pod in self.pods else None
        fitted = was is not None and self._answers(pod)
        self.pods[pod] = (segment, namespace, labels)
        number = self.allocator.assign(pod, segment=segment, namespace=namespace, labels=labels)
        if fitted == self._answers(pod):
            assert number == was, "a pod whose class still fits keeps it"
        elif self._answers(pod) in others.values():
            fitting = [self.allocator.identity_of(other) for other in others if others[other] == self._answers(pod)]
            assert number == min(fitting)
        else:
            assert number not in before and number not in self.ever, "a new combination is a new number"
        self.ever[number] = (segment, namespace)
        assert self.allocator.assign(pod, segment=segment, namespace=namespace, labels=labels) == number

    @rule(pod=pods)
    def forget(self, pod: PodKey) -> None:
        self.allocator.forget(pod)
        self.pods.pop(pod, None)

    @rule()
    def restart(self) -> None:
        numbers = {pod: self.allocator.identity_of(pod) for pod in self.pods}
        again = ClassAllocator.of(self.allocator.record)
        again.set_requirements(self.asked)
        assert again.classes == {}, "a class without pods is not there"
        for pod in sorted(self.pods, reverse=True):
            segment, namespace, labels = self.pods[pod]
            assert again.assign(pod, segment=segment, namespace=namespace, labels=labels) == numbers[pod]
        again.drop_unclaimed()
        assert again.record == self.allocator.record
        self.allocator = again

    @invariant()
    def every_class_says_what_holds_for_its_pods(self) -> None:
        classes = self.allocator.classes
        assert classes is self.allocator.classes
        assert set(classes) == {self.allocator.identity_of(pod) for pod in self.pods}
        for pod, (segment, namespace, labels) in self.pods.items():
            number = self.allocator.identity_of(pod)
            self.ever.setdefault(number, (segment, namespace))
            assert segment_of(number) == segment and number & CLASS_MASK
            assert classes[number].namespace == namespace
            assert classes[number].matches == {
                requirement: requirement.matches(labels) for requirement in self.asked[namespace]
            }


Book.TestCase.settings = settings(max_examples=examples(150), stateful_step_count=25, deadline=None)
TestBook = Book.TestCase


@given(st.lists(strategies.labels(), min_size=1, max_size=6), requirement_sets)
def test_equal_calls_give_equal_numbers(
    found: list[Labels], requirements: dict[str, frozenset[LabelRequirement]]
) -> None:
    books = []
    for _ in range(2):
        allocator = ClassAllocator()
        for number, labels in enumerate(found):
            allocator.assign(PodKey(f"a/p{number}"), segment=1, namespace="a", labels=labels)
        allocator.set_requirements(requirements)
        books.append(allocator)
    assert books[0].record == books[1].record
