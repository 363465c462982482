"""Decodes published numbers and reports from objects of the API server, and refuses invalid fields."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from types import MappingProxyType
from typing import Any

from romana_ovs.addressing.blocks import Block
from romana_ovs.addressing.plan import NODE_SEGMENT, AddressPlan
from romana_ovs.kube.published.objects import Fields, PublishedObjects, Raw, fields_of, name_of
from romana_ovs.kube.published.writing import COMPLETE_MARKER, SCTP_TRACKED
from romana_ovs.model.cluster import SegmentKey
from romana_ovs.model.derived import Derived, DerivedMap
from romana_ovs.model.errors import AddressError, InputError, Problem
from romana_ovs.model.identity import ALL_BITS, CLASS_MASK, RESERVED_SEGMENT, UNKNOWN_CLASS, segment_of
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.view import LabelRequirement
from romana_ovs.registry_types.published import Claim, ClassSet, Published, Stage
from romana_ovs.registry_types.report import Observed, Report

Consistent = tuple[Mapping[str, ClassSet], tuple[Problem, ...]]
"""The ClassSets that are consistent with each other, by namespace, and the problems of the others."""


class PublishedReader:
    """Decodes the objects; unchanged ones are not decoded again."""

    def __init__(self) -> None:
        self._allocation: Derived[Published] = Derived()
        self._sets: DerivedMap[str, ClassSet | tuple[Problem, ...]] = DerivedMap()
        self._consistent: Derived[Consistent] = Derived(by_value=True)
        self._usable: dict[str, ClassSet] = {}
        """The last usable version of each ClassSet."""
        self._last_consistent: Mapping[str, ClassSet] = MappingProxyType({})
        """The ClassSets that were consistent last."""

    def read(self, objects: PublishedObjects) -> tuple[Published | None, tuple[Problem, ...]]:
        """The numbers in `objects`, as of the revision up to which all are written; and the problems.

        None without an Allocation. An unusable ClassSet is replaced by its last usable version, or left out: only
        segment-wide rules then apply to the pods of its namespace. The same holds for one that arrives before the
        Allocation with its segments, as the two kinds are watched separately. Of two with the same class, the one with
        the later epoch and revision counts. Raises InputError when the Allocation or the marker is damaged.
        """
        if objects.allocation is None:
            return None, ()
        published = self._allocation.get((objects.allocation,), _decode_allocation)
        marker = objects.class_sets.get(COMPLETE_MARKER)
        complete = fields_of(marker, "ClassSet", "spec").number("revision") if marker is not None else 0
        decoded = {
            name: self._sets.get(name, (raw,), partial(_decode_class_set, name))
            for name, raw in objects.class_sets.items()
            if name != COMPLETE_MARKER
        }
        self._sets.retain(decoded)
        problems = [problem for each in decoded.values() if not isinstance(each, ClassSet) for problem in each]
        usable = {
            name: each if isinstance(each, ClassSet) else self._usable.get(name) for name, each in decoded.items()
        }
        self._usable = {name: classes for name, classes in usable.items() if classes is not None}
        self._last_consistent, clashes = self._consistent.get(
            (tuple(self._usable.values()), {indexes[0] for indexes in published.indexes.values()}),
            lambda candidates, segments: _consistent(candidates, segments, self._last_consistent),
        )
        revision = min(complete, published.revision)
        return replace(published, class_sets=self._last_consistent, revision=revision), (*problems, *clashes)


@dataclass(frozen=True, slots=True)
class TermBase:
    """What a registry starts its term from: all numbers, as of the revision of the Allocation.

    `versions` are the epoch and revision of every ClassSet that was read, usable or not.
    """

    published: Published
    versions: Mapping[str, tuple[int, int]]

    @classmethod
    def of(cls, objects: PublishedObjects) -> TermBase | None:
        """The base of a term that starts with `objects`; None for the first term of all.

        Raises InputError when the Allocation is damaged, or missing although there are ClassSets: the next numbers
        might then be in use.
        """
        if objects.allocation is None and objects.class_sets:
            reason = (
                "it is missing, while ClassSets show that numbers are in use: restore it from a backup, or delete all "
                "ClassSets too, after which all numbers are given again"
            )
            raise InputError(Problem(reason, kind="Allocation", name="cluster"))
        published, _ = PublishedReader().read(replace(objects, class_sets=_without_marker(objects)))
        if published is None or objects.allocation is None:
            return None
        revision = fields_of(objects.allocation, "Allocation", "spec").number("revision")
        versions = {name: epoch_and_revision(raw) for name, raw in _without_marker(objects).items()}
        return cls(replace(published, revision=revision), MappingProxyType(versions))


def epoch_and_revision(raw: Raw) -> tuple[int, int]:
    """The epoch and revision of a ClassSet; (-1, -1) when it is damaged."""
    try:
        fields = fields_of(raw, "ClassSet", "spec")
        return fields.number("epoch"), fields.number("revision")
    except InputError:
        return -1, -1


def _without_marker(objects: PublishedObjects) -> dict[str, Raw]:
    return {name: raw for name, raw in objects.class_sets.items() if name != COMPLETE_MARKER}


def _consistent(
    candidates: Collection[ClassSet], segments: Collection[int], before: Mapping[str, ClassSet] = MappingProxyType({})
) -> Consistent:
    """The consistent ones among `candidates`; one with unknown segments is replaced by its version in `before`."""
    owners: dict[int, str] = {}
    kept: dict[str, ClassSet] = {}
    problems: list[Problem] = []
    known = []
    for classes in candidates:
        stray_class = _class_of_unknown_segment(classes, segments)
        if stray_class is not None:
            reason = f"class {stray_class:#x} has a segment that the Allocation does not have"
            problems.append(Problem(reason, kind="ClassSet", name=classes.namespace, field="spec.classes"))
        previous = before.get(classes.namespace)
        if stray_class is None:
            known.append(classes)
        elif previous is not None and _class_of_unknown_segment(previous, segments) is None:
            known.append(previous)
    for classes in sorted(known, key=lambda each: (-each.epoch, -each.revision, each.namespace)):
        taken = next((number for number in classes.classes if number in owners), None)
        if taken is None:
            kept[classes.namespace] = classes
            owners.update(dict.fromkeys(classes.classes, classes.namespace))
            continue
        reason = f"class {taken:#x} belongs to namespace {owners[taken]}"
        problems.append(Problem(reason, kind="ClassSet", name=classes.namespace, field="spec.classes"))
    return MappingProxyType(dict(sorted(kept.items()))), tuple(problems)


def _class_of_unknown_segment(classes: ClassSet, segments: Collection[int]) -> int | None:
    """A class with a segment that is not among `segments`, if any."""
    return next((number for number in classes.classes if segment_of(number) not in segments), None)


def _decode_allocation(raw: Raw) -> Published:
    return _allocation(fields_of(raw, "Allocation", "spec"))


def _decode_class_set(name: str, raw: Raw) -> ClassSet | tuple[Problem, ...]:
    """The ClassSet `name`, or what is wrong with it."""
    try:
        return _class_set(fields_of(raw, "ClassSet", "spec"), name)
    except InputError as error:
        return error.problems


def _allocation(fields: Fields) -> Published:
    plan = _plan(fields.part("plan"))
    blocks, indexes, next_class = _tenants(fields, plan)
    hosts = fields.number_map("hosts", high=plan.hosts - 1)
    if len(set(hosts.values())) != len(hosts):
        fields.refuse("hosts", "two nodes have one host number")
    free = fields.numbers("freeHosts", high=plan.hosts)
    if not free or {*free[1:], *hosts.values()} - set(range(free[0])) or set(free[1:]) & set(hosts.values()):
        fields.refuse("freeHosts", "the lowest unused number, then free lower ones, were expected")
    return Published(
        plan=plan,
        epoch=fields.number("epoch"),
        writer=fields.text("writer", default=""),
        revision=fields.number("revision"),
        blocks=blocks,
        indexes=indexes,
        next_class=next_class,
        hosts=MappingProxyType(dict(sorted(hosts.items()))),
        free_hosts=free,
        retired_hosts=frozenset(fields.numbers("retiredHosts", high=plan.hosts - 1)),
        foreign=_foreign(fields),
    )


def _plan(fields: Fields) -> AddressPlan:
    try:
        network = IPv4Network(fields.text("network"))
        return AddressPlan(
            network, fields.number("segmentBits"), fields.number("hostBits"), fields.number("endpointBits")
        )
    except (ValueError, AddressError) as error:
        fields.refuse("", str(error))


def _tenants(
    fields: Fields, plan: AddressPlan
) -> tuple[Mapping[str, tuple[Block, ...]], Mapping[SegmentKey, tuple[int, ...]], Mapping[int, int]]:
    """Blocks by tenant, indexes by segment, and the next class by segment number; duplicates are refused."""
    blocks: dict[str, tuple[Block, ...]] = {}
    indexes: dict[SegmentKey, tuple[int, ...]] = {}
    next_class: dict[int, int] = {}
    covered: set[int] = set()
    given: set[int] = set()
    for tenant in fields.parts("tenants"):
        name = tenant.text("name")
        if name in blocks:
            tenant.refuse("name", f"tenant {name!r} occurs twice")
        blocks[name] = tuple(sorted(Block(base, size) for base, size in tenant.lists("segmentRanges", length=2)))
        for block in blocks[name]:
            try:
                plan.block_cidr(block.base, block.size)
            except AddressError as error:
                tenant.refuse("segmentRanges", str(error))
            if block.base == NODE_SEGMENT or not covered.isdisjoint(block.indexes):
                reason = f"segment indexes {block.base} to {block.base + block.size - 1} are given already"
                tenant.refuse("segmentRanges", reason)
            covered.update(block.indexes)
        own = {index for block in blocks[name] for index in block.indexes}
        for tier in tenant.parts("tiers"):
            key, numbers = SegmentKey(name, tier.text("name")), tier.numbers("indexes")
            if key in indexes or not numbers or not own.issuperset(numbers) or not given.isdisjoint(numbers):
                tier.refuse("indexes", "expected unique segment indexes within the tenant's segmentRanges")
            if len(set(numbers)) != len(numbers):
                tier.refuse("indexes", "an index occurs twice")
            given.update(numbers)
            indexes[key] = numbers
            if "nextClass" in tier.values:
                next_class[numbers[0]] = tier.number("nextClass", low=1, high=CLASS_MASK)
    ordered = MappingProxyType(dict(sorted(blocks.items())))
    return ordered, MappingProxyType(dict(sorted(indexes.items()))), MappingProxyType(dict(sorted(next_class.items())))


def _foreign(fields: Fields) -> Mapping[IPv4Address, Claim]:
    claims: dict[IPv4Address, Claim] = {}
    for entry in fields.parts("foreignAddresses"):
        node = entry.text("node")
        for key, granted in (("granted", True), ("claimed", False)):
            for address in entry.addresses(key):
                if address in claims:
                    entry.refuse(key, f"address {address} occurs twice")
                claims[address] = Claim(node, granted)
    return MappingProxyType(dict(sorted(claims.items())))


def _class_set(fields: Fields, namespace: str) -> ClassSet:
    if fields.name != namespace:
        fields.refuse("", f"its name must be {namespace}")
    requirements = [(_requirement(entry), _stage(entry)) for entry in fields.parts("requirements")]
    if len({requirement for requirement, _ in requirements}) != len(requirements):
        fields.refuse("requirements", "a requirement occurs twice")
    classes: dict[int, frozenset[LabelRequirement]] = {}
    marked: dict[str, set[int]] = {"pending": set(), "retiring": set()}
    for entry in fields.parts("classes"):
        number = _identity(entry, "id", entry.number("id", high=ALL_BITS))
        if number in classes:
            entry.refuse("id", f"{number:#x} occurs twice")
        classes[number] = _matches(entry, [requirement for requirement, _ in requirements])
        for mark, numbers in marked.items():
            if entry.values.get(mark) is True:
                numbers.add(number)
    overrides = fields.number_map("overrides", high=ALL_BITS)
    if not classes.keys() >= set(overrides.values()):
        fields.refuse("overrides", "it has a class that does not exist")
    retired = {_identity(fields, "retired", number) for number in fields.numbers("retired", high=ALL_BITS)}
    if not retired.isdisjoint(classes):
        fields.refuse("retired", "it has a class that exists")
    return ClassSet(
        namespace=namespace,
        requirements=MappingProxyType(dict(requirements)),
        classes=MappingProxyType(dict(sorted(classes.items()))),
        pending=frozenset(marked["pending"]),
        retiring=frozenset(marked["retiring"]),
        overrides=MappingProxyType({PodKey(f"{namespace}/{pod}"): number for pod, number in sorted(overrides.items())}),
        tombstones=tuple((_segment(entry), Labels(entry.text_map("labels"))) for entry in fields.parts("tombstones")),
        retired=frozenset(retired),
        epoch=fields.number("epoch"),
        revision=fields.number("revision"),
    )


def _requirement(fields: Fields) -> LabelRequirement:
    return LabelRequirement(
        fields.text("key"), frozenset(fields.texts("values")) if "values" in fields.values else None
    )


def _stage(fields: Fields) -> Stage:
    try:
        return Stage(fields.text("stage"))
    except ValueError:
        fields.refuse("stage", f"one of {', '.join(stage.value for stage in Stage)} was expected")


def _matches(fields: Fields, requirements: list[LabelRequirement]) -> frozenset[LabelRequirement]:
    text = fields.text("matches")
    try:
        bits = int(text, 16)
    except ValueError:
        bits = -1
    if not 0 <= bits < 1 << len(requirements) or len(text) > len(requirements) // 4 + 1:
        fields.refuse("matches", f"a hexadecimal number of {len(requirements)} bits was expected")
    return frozenset(requirement for position, requirement in enumerate(requirements) if bits >> position & 1)


def _identity(fields: Fields, key: str, number: int) -> int:
    if not 0 < segment_of(number) < RESERVED_SEGMENT or number & CLASS_MASK == UNKNOWN_CLASS:
        fields.refuse(key, f"{number:#x} is not the identity of a class")
    return number


def _segment(fields: Fields) -> int:
    return fields.number("segment", low=1, high=RESERVED_SEGMENT - 1)


def decode_report(raw: Raw) -> Report:
    """The report in a NodeReport; empty without a status. Raises InputError with the field."""
    whole = {"status": {}, **raw} if isinstance(raw, Mapping) else raw
    fields = fields_of(whole, "NodeReport", "status")
    exhausted_segments = {
        SegmentKey(segment.text("tenant"), segment.text("tier")): segment.number("indexes")
        for segment in fields.parts("exhaustedSegments")
    }
    return Report(
        node=name_of(raw),
        acknowledged=fields.number("acknowledgedRevision", default=0),
        released=fields.number("releasedRevision", default=0),
        exhausted_segments=MappingProxyType(dict(sorted(exhausted_segments.items()))),
        foreign=frozenset(fields.addresses("foreignAddresses")),
        conflicting=frozenset(fields.addresses("conflictingAddresses")),
        policies=fields.text("policiesDigest", default=""),
        observed=Observed(_sctp(fields), frozenset(fields.texts("tenantsAtConnectionLimit"))),
    )


def _sctp(fields: Fields) -> bool | None:
    tracked = {word: truth for truth, word in SCTP_TRACKED.items()}.get(word := fields.text("sctpTracking", default=""))
    if word and tracked is None:
        fields.refuse("sctpTracking", f"one of {', '.join(SCTP_TRACKED.values())} was expected")
    return tracked


def published_from_json(data: Any) -> Published:
    """Decodes the result of `published_to_json`. Raises InputError when it is invalid."""
    if not isinstance(data, Mapping) or not isinstance(data.get("classSets"), list):
        raise InputError.because("not what was saved", field="published")
    published = _allocation(fields_of(data.get("allocation"), "Allocation", "spec"))
    class_sets = [_class_set(fields_of(raw, "ClassSet", "spec"), name_of(raw)) for raw in data["classSets"]]
    namespaces, problems = _consistent(class_sets, {indexes[0] for indexes in published.indexes.values()})
    if problems:
        raise InputError(*problems)
    return replace(published, class_sets=namespaces)
