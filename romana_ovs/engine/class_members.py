"""Counts the pods of each class, and leaves a tombstone when the last pod of a class goes."""

from __future__ import annotations

from collections import Counter

from romana_ovs.engine.endpoints import NumberedPod
from romana_ovs.engine.policy_index import LabelRequirements, RuleSet
from romana_ovs.engine.tombstones import ClassInputs, ClassTombstones
from romana_ovs.model.errors import AddressError
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.classes import ClassAllocator


class ClassMembers:
    """The identities of pods, and the number of pods of each class of a `ClassAllocator`."""

    def __init__(self, allocator: ClassAllocator, tombstones: ClassTombstones) -> None:
        """`tombstones` are those of `allocator`."""
        self._allocator = allocator
        self._tombstones = tombstones
        self._inputs: dict[PodKey, ClassInputs] = {}
        self._identities: dict[PodKey, int] = {}
        self._pod_counts: Counter[int] = Counter()

    def refine(self, rules: RuleSet, requirements: LabelRequirements) -> dict[PodKey, AddressError]:
        """Sets the `requirements` that classes distinguish, and drops tombstones of namespaces that `rules` lack.

        Returns the pods for which no class is left, and why.
        """
        self._tombstones.retain_namespaces(rules.namespace_labels)
        for pod in self._allocator.set_requirements(requirements):
            if pod not in self._tombstones:
                self._set_identity(pod, self._allocator.identity_of(pod))
        return self._drain_unassigned()

    def _drain_unassigned(self) -> dict[PodKey, AddressError]:
        """The pods that the allocator has taken out of their classes, and why; tombstones among them are dropped."""
        drained = self._allocator.drain_unassigned()
        self._tombstones.discard(drained)
        unassigned = {pod: error for pod, error in drained.items() if pod in self._inputs}
        for pod in unassigned:
            self._release(pod)
        return unassigned

    def renumber(self, identity: int) -> int:
        """Gives the class with this identity another one, and returns that. Raises AddressError when none is left."""
        replacement, pods = self._allocator.renumber(identity)
        for pod in pods:
            if pod not in self._tombstones:
                self._set_identity(pod, replacement)
        return replacement

    def assign(self, pod: PodKey, numbered: NumberedPod) -> None:
        """Assigns `pod` the class that fits it. Raises AddressError when its segment has no class number left."""
        new = _class_inputs(numbered)
        old = self._inputs.get(pod)
        if old is not None and old != new:
            self._leave_tombstone(pod, old)
        self._inputs[pod] = new
        identity = self._allocator.assign(pod, segment=new.segment, namespace=new.namespace, labels=new.labels)
        self._set_identity(pod, identity)

    def forget(self, pod: PodKey) -> None:
        """Removes `pod`; unknown ones are ignored."""
        old = self._inputs.get(pod)
        if old is not None:
            self._leave_tombstone(pod, old)
            self._release(pod)
            del self._inputs[pod]
        self._allocator.forget(pod)

    def _leave_tombstone(self, pod: PodKey, inputs: ClassInputs) -> None:
        """Leaves a tombstone when `pod` is the last of its class."""
        identity = self._identities.get(pod)
        if identity is not None and self._pod_counts[identity] == 1:
            self._tombstones.keep(inputs, identity)

    def _set_identity(self, pod: PodKey, identity: int) -> None:
        self._release(pod)
        self._identities[pod] = identity
        self._pod_counts[identity] += 1

    def _release(self, pod: PodKey) -> None:
        identity = self._identities.pop(pod, None)
        if identity is not None:
            self._pod_counts[identity] -= 1
            if not self._pod_counts[identity]:
                del self._pod_counts[identity]

    def drop_unclaimed(self) -> None:
        """Drops restored classes that neither a pod nor a tombstone has; to be called once every pod is assigned."""
        self._tombstones.enter_saved()
        self._allocator.drop_unclaimed()


def _class_inputs(numbered: NumberedPod) -> ClassInputs:
    return ClassInputs(numbered.segment_number, numbered.pod.namespace, numbered.pod.labels)
