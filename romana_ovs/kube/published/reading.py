"""Plain dicts of the API server back to published numbers and reports; what is wrong is refused field by field."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from operator import is_
from types import MappingProxyType
from typing import Any

from romana_ovs.addressing.plan import NODE_SEGMENT, Plan
from romana_ovs.addressing.runs import Run
from romana_ovs.kube.published.objects import Fields, Objects, Raw, fields_of, name_of
from romana_ovs.kube.published.writing import MARKER, SCTP_TRACKED
from romana_ovs.model.cluster import SegmentKey
from romana_ovs.model.errors import AddressError, InputError, Problem
from romana_ovs.model.identity import ALL_BITS, CLASS_MASK, RESERVED_SEGMENT, UNKNOWN_CLASS, segment_of
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.published import Claim, ClassSet, Observed, Published, Report, Stage
from romana_ovs.policy.view import LabelRequirement

Together = tuple[Mapping[str, ClassSet], tuple[Problem, ...]]
"""The class sets that can be true together, by namespace, and why the others cannot."""


class Reader:
    """Reads the objects again and again; what did not change since the last time costs next to nothing."""

    def __init__(self) -> None:
        self._allocation: tuple[Raw, Published] | None = None
        self._sets: dict[str, tuple[Raw, ClassSet | None, tuple[Problem, ...]]] = {}
        self._last: tuple[list[ClassSet], set[int], Together] = ([], set(), (MappingProxyType({}), ()))

    def read(self, objects: Objects) -> tuple[Published | None, tuple[Problem, ...]]:
        """What `objects` publish together, as of the revision up to which all of it is there; and what is wrong.

        None while there is no Allocation. A class set that cannot be used gives way to what it was before, or is left
        out: the pods of its namespace then get what their whole segments get. So does one that comes before the
        Allocation that its segments are in, for the two are watched each by itself. Of two that give one class, the
        one of the later epoch and revision counts. Raises InputError when the Allocation or the marker is damaged.
        """
        if objects.allocation is None:
            return None, ()
        if self._allocation is None or self._allocation[0] is not objects.allocation:
            self._allocation = (objects.allocation, _allocation(fields_of(objects.allocation, "Allocation", "spec")))
        published = self._allocation[1]
        marker = objects.class_sets.get(MARKER)
        complete = fields_of(marker, "ClassSet", "spec").number("revision") if marker is not None else 0
        self._sets = {name: self._class_set(name, raw) for name, raw in objects.class_sets.items() if name != MARKER}
        problems = [problem for _, _, found in self._sets.values() for problem in found]
        usable = [found for _, found, _ in self._sets.values() if found is not None]
        segments = {indexes[0] for indexes in published.indexes.values()}
        namespaces, clashes = self._together(usable, segments)
        revision = min(complete, published.revision)
        return replace(published, namespaces=namespaces, revision=revision), (*problems, *clashes)

    def _together(self, usable: list[ClassSet], segments: set[int]) -> Together:
        old, known, found = self._last
        same = len(old) == len(usable) and all(map(is_, old, usable)) and known == segments
        if not same:
            found = _consistent(usable, segments, found[0])
            self._last = (usable, segments, found)
        return found

    def _class_set(self, name: str, raw: Raw) -> tuple[Raw, ClassSet | None, tuple[Problem, ...]]:
        held = self._sets.get(name)
        if held is not None and held[0] is raw:
            return held
        try:
            return raw, _class_set(fields_of(raw, "ClassSet", "spec"), name), ()
        except InputError as refused:
            return raw, held[1] if held is not None else None, refused.problems


@dataclass(frozen=True, slots=True)
class Base:
    """What a registry begins from: all numbers, as of the revision of the Allocation; and what was read to know them.

    `versions` are the epoch and revision of every class set that was there, usable or not.
    """

    published: Published
    versions: Mapping[str, tuple[int, int]]

    @classmethod
    def of(cls, objects: Objects) -> Base | None:
        """What a registry begins from when it has read `objects`; None when it is the first one.

        Raises InputError when the Allocation is damaged, or missing where numbers are in use: nobody may give one then.
        """
        if objects.allocation is None and objects.class_sets:
            reason = (
                "it is missing, while ClassSets show that numbers are in use: restore it from a copy, or delete every "
                "ClassSet too, by which all numbers are given anew"
            )
            raise InputError(Problem(reason, kind="Allocation", name="cluster"))
        published, _ = Reader().read(replace(objects, class_sets=_without_marker(objects)))
        if published is None or objects.allocation is None:
            return None
        revision = fields_of(objects.allocation, "Allocation", "spec").number("revision")
        versions = {name: version_of(raw) for name, raw in _without_marker(objects).items()}
        return cls(replace(published, revision=revision), MappingProxyType(versions))


def version_of(raw: Raw) -> tuple[int, int]:
    """The epoch and revision of a class set; (-1, -1) when it is damaged."""
    try:
        fields = fields_of(raw, "ClassSet", "spec")
        return fields.number("epoch"), fields.number("revision")
    except InputError:
        return -1, -1


def _without_marker(objects: Objects) -> dict[str, Raw]:
    return {name: raw for name, raw in objects.class_sets.items() if name != MARKER}


def _consistent(
    found: Collection[ClassSet], segments: Collection[int], before: Mapping[str, ClassSet] = MappingProxyType({})
) -> Together:
    """Those of `found` that can be true together; one of unknown segments gives way to what it was `before`."""
    owners: dict[int, str] = {}
    kept: dict[str, ClassSet] = {}
    problems: list[Problem] = []
    known = []
    for classes in found:
        strange = _strange(classes, segments)
        if strange is not None:
            reason = f"class {strange:#x} is of a segment that the Allocation does not know"
            problems.append(Problem(reason, kind="ClassSet", name=classes.namespace, field="spec.classes"))
        held = before.get(classes.namespace)
        if strange is None:
            known.append(classes)
        elif held is not None and _strange(held, segments) is None:
            known.append(held)
    for classes in sorted(known, key=lambda each: (-each.epoch, -each.revision, each.namespace)):
        taken = next((number for number in classes.classes if number in owners), None)
        if taken is None:
            kept[classes.namespace] = classes
            owners.update(dict.fromkeys(classes.classes, classes.namespace))
            continue
        reason = f"class {taken:#x} is that of namespace {owners[taken]}"
        problems.append(Problem(reason, kind="ClassSet", name=classes.namespace, field="spec.classes"))
    return MappingProxyType(dict(sorted(kept.items()))), tuple(problems)


def _strange(classes: ClassSet, segments: Collection[int]) -> int | None:
    """A class of a segment that is not among `segments`."""
    return next((number for number in classes.classes if segment_of(number) not in segments), None)


def _allocation(fields: Fields) -> Published:
    plan = _plan(fields.part("plan"))
    runs, indexes, next_class = _tenants(fields, plan)
    hosts = fields.number_map("hosts", high=plan.hosts - 1)
    if len(set(hosts.values())) != len(hosts):
        fields.refuse("hosts", "two nodes have one host number")
    line = fields.numbers("freeHosts", high=plan.hosts)
    if not line or {*line[1:], *hosts.values()} - set(range(line[0])) or set(line[1:]) & set(hosts.values()):
        fields.refuse("freeHosts", "the first number unused, then free lower ones, were expected")
    return Published(
        plan=plan,
        epoch=fields.number("epoch"),
        writer=fields.text("writer", default=""),
        revision=fields.number("revision"),
        runs=runs,
        indexes=indexes,
        next_class=next_class,
        hosts=MappingProxyType(dict(sorted(hosts.items()))),
        free_hosts=line,
        retired_hosts=frozenset(fields.numbers("retiredHosts", high=plan.hosts - 1)),
        foreign=_foreign(fields),
    )


def _plan(fields: Fields) -> Plan:
    try:
        network = IPv4Network(fields.text("network"))
        return Plan(network, fields.number("segmentBits"), fields.number("hostBits"), fields.number("endpointBits"))
    except (ValueError, AddressError) as bad:
        fields.refuse("", str(bad))


def _tenants(
    fields: Fields, plan: Plan
) -> tuple[Mapping[str, tuple[Run, ...]], Mapping[SegmentKey, tuple[int, ...]], Mapping[int, int]]:
    """Runs by tenant, indexes by segment, and the next class by segment number. Nothing stands in there twice."""
    runs: dict[str, tuple[Run, ...]] = {}
    indexes: dict[SegmentKey, tuple[int, ...]] = {}
    next_class: dict[int, int] = {}
    covered: set[int] = set()
    given: set[int] = set()
    for tenant in fields.parts("tenants"):
        name = tenant.text("name")
        if name in runs:
            tenant.refuse("name", f"tenant {name!r} stands there twice")
        runs[name] = tuple(sorted(Run(base, size) for base, size in tenant.lists("segmentRanges", length=2)))
        for run in runs[name]:
            try:
                plan.run_cidr(run.base, run.size)
            except AddressError as bad:
                tenant.refuse("segmentRanges", str(bad))
            if run.base == NODE_SEGMENT or not covered.isdisjoint(run.indexes):
                reason = f"segment indexes {run.base} to {run.base + run.size - 1} are given already"
                tenant.refuse("segmentRanges", reason)
            covered.update(run.indexes)
        own = {index for run in runs[name] for index in run.indexes}
        for tier in tenant.parts("tiers"):
            key, found = SegmentKey(name, tier.text("name")), tier.numbers("indexes")
            if key in indexes or not found or not own.issuperset(found) or not given.isdisjoint(found):
                tier.refuse("indexes", "segment indexes of the tenant's runs, given to no other tier, were expected")
            if len(set(found)) != len(found):
                tier.refuse("indexes", "an index stands there twice")
            given.update(found)
            indexes[key] = found
            if "nextClass" in tier.values:
                next_class[found[0]] = tier.number("nextClass", low=1, high=CLASS_MASK)
    ordered = MappingProxyType(dict(sorted(runs.items())))
    return ordered, MappingProxyType(dict(sorted(indexes.items()))), MappingProxyType(dict(sorted(next_class.items())))


def _foreign(fields: Fields) -> Mapping[IPv4Address, Claim]:
    found: dict[IPv4Address, Claim] = {}
    for entry in fields.parts("foreignAddresses"):
        node = entry.text("node")
        for key, granted in (("granted", True), ("claimed", False)):
            for address in entry.addresses(key):
                if address in found:
                    entry.refuse(key, f"address {address} stands there twice")
                found[address] = Claim(node, granted)
    return MappingProxyType(dict(sorted(found.items())))


def _class_set(fields: Fields, namespace: str) -> ClassSet:
    if fields.name != namespace:
        fields.refuse("", f"it is kept under the name {namespace}")
    requirements = [(_requirement(entry), _stage(entry)) for entry in fields.parts("requirements")]
    if len({requirement for requirement, _ in requirements}) != len(requirements):
        fields.refuse("requirements", "a question stands there twice")
    classes: dict[int, frozenset[LabelRequirement]] = {}
    marked: dict[str, set[int]] = {"pending": set(), "retiring": set()}
    for entry in fields.parts("classes"):
        number = _identity(entry, "id", entry.number("id", high=ALL_BITS))
        if number in classes:
            entry.refuse("id", f"{number:#x} stands there twice")
        classes[number] = _answers(entry, [requirement for requirement, _ in requirements])
        for mark, numbers in marked.items():
            if entry.values.get(mark) is True:
                numbers.add(number)
    overrides = fields.number_map("overrides", high=ALL_BITS)
    if not classes.keys() >= set(overrides.values()):
        fields.refuse("overrides", "it names a class that is not there")
    retired = {_identity(fields, "retired", number) for number in fields.numbers("retired", high=ALL_BITS)}
    if not retired.isdisjoint(classes):
        fields.refuse("retired", "it names a class that is there")
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


def _answers(fields: Fields, requirements: list[LabelRequirement]) -> frozenset[LabelRequirement]:
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
        fields.refuse(key, f"{number:#x} is no identity of a class")
    return number


def _segment(fields: Fields) -> int:
    return fields.number("segment", low=1, high=RESERVED_SEGMENT - 1)


def decode_report(raw: Raw) -> Report:
    """The report in a NodeReport; an empty one while it has no status. Raises InputError naming the field."""
    whole = {"status": {}, **raw} if isinstance(raw, Mapping) else raw
    fields = fields_of(whole, "NodeReport", "status")
    exhausted = {
        SegmentKey(segment.text("tenant"), segment.text("tier")): segment.number("indexes")
        for segment in fields.parts("exhaustedSegments")
    }
    return Report(
        node=name_of(raw),
        acknowledged=fields.number("acknowledgedRevision", default=0),
        released=fields.number("releasedRevision", default=0),
        exhausted=MappingProxyType(dict(sorted(exhausted.items()))),
        foreign=frozenset(fields.addresses("foreignAddresses")),
        conflicting=frozenset(fields.addresses("conflictingAddresses")),
        policies=fields.text("policiesDigest", default=""),
        observed=Observed(_sctp(fields), frozenset(fields.texts("tenantsAtConnectionLimit"))),
    )


def _sctp(fields: Fields) -> bool | None:
    found = {word: truth for truth, word in SCTP_TRACKED.items()}.get(word := fields.text("sctpTracking", default=""))
    if word and found is None:
        fields.refuse("sctpTracking", f"one of {', '.join(SCTP_TRACKED.values())} was expected")
    return found


def published_from_json(data: Any) -> Published:
    """What `published_to_json` gave. Raises InputError when it is no such thing."""
    if not isinstance(data, Mapping) or not isinstance(data.get("classSets"), list):
        raise InputError.because("not what was saved", field="published")
    published = _allocation(fields_of(data.get("allocation"), "Allocation", "spec"))
    found = [_class_set(fields_of(raw, "ClassSet", "spec"), name_of(raw)) for raw in data["classSets"]]
    namespaces, problems = _consistent(found, {indexes[0] for indexes in published.indexes.values()})
    if problems:
        raise InputError(*problems)
    return replace(published, namespaces=namespaces)
