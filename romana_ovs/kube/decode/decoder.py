"""One document of a manifest file -> objects of the model, every problem of it named.

This is the one door through which manifests come in: what passes it is valid, what does not is absent,
with the reason (and, for a policy, with the fallback that isolates what it meant to select).
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from romana_ovs.addressing.plan import Plan
from romana_ovs.kube.decode import kubepolicy, romanapolicy
from romana_ovs.kube.decode.labels import read_labels
from romana_ovs.kube.decode.limits import check_budget
from romana_ovs.kube.decode.objects import Decoded, Document, Item, Manifest, ObjectId, Place
from romana_ovs.kube.decode.pods import read_namespace, read_node, read_pod
from romana_ovs.kube.decode.validation import Validator
from romana_ovs.kube.decode.workloads import WORKLOADS, Owner, read_owners, read_workload
from romana_ovs.model.errors import AddressError
from romana_ovs.model.labels import NO_LABELS, Labels
from romana_ovs.model.objects import Pod, Policy
from romana_ovs.model.settings import Settings
from romana_ovs.model.syntax import label_fault, plain, shown, subdomain_fault, word_for

POLICY = "NetworkPolicy"
ROMANA_POLICY = "RomanaNetworkPolicy"
POLICY_VERSION = "networking.k8s.io/v1"
_ROMANA_VERSIONS = (romanapolicy.DEMO_VERSION, romanapolicy.TODAY_VERSION)
_OLD_POLICIES = "extensions/v1beta1"
_VERSIONS = {"Pod": "v1", "Namespace": "v1", "Node": "v1", **WORKLOADS}
_CLUSTER_SCOPED = ("Namespace", "Node")
_MAX_LIST_DEPTH = 4
_ALIKE = 0.8
"""Share of common letters from which a kind counts as misspelt."""
_TOP = ("apiVersion", "kind", "metadata", "spec", "status")
_METADATA = frozenset(
    {
        "annotations",
        "clusterName",
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "initializers",
        "labels",
        "managedFields",
        "name",
        "namespace",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
        "uid",
    }
)


def decode(document: Document, file: str, settings: Settings) -> Decoded:
    """What `document` of `file` holds: every object in it, valid or not, and every problem."""
    if document.value is None:
        return Decoded()
    return _Decoder(document, file, settings).run()


def decode_served(value: object, kind: str, version: str, settings: Settings) -> Item:
    """One object as an API server serves it: a `kind` of `version` (those in its lists do not say so themselves).

    Its place is no file, and what is wrong with it names it `namespace/name`. Fields that the server adds to
    metadata may be newer than we are; anything unknown elsewhere makes it invalid, as in a manifest.
    """
    return _Served(Document(0, value), "", settings).one(kind, version)


@dataclass(frozen=True, slots=True)
class _Head:
    """What says which object a document is; `labels` and `owners` as far as they can be read."""

    id: ObjectId | None
    name: str
    namespace: str
    labels: Labels = NO_LABELS
    uid: str = ""
    owners: tuple[Owner, ...] = ()
    created: str = ""


class _Decoder:
    """Decodes one document, which may be a List of many objects."""

    metadata: Collection[str] | None = _METADATA
    """The fields of metadata that may be there; None: any."""

    def __init__(self, document: Document, file: str, settings: Settings) -> None:
        self.document = document
        self.file = file
        self.settings = settings
        self.ignored: dict[str, None] = {}

    def run(self) -> Decoded:
        items = tuple(self._any(self.document.value, "", depth=0))
        return Decoded(items, tuple(problem for item in items for problem in item.problems), tuple(self.ignored))

    def _any(self, value: object, prefix: str, *, depth: int, default: tuple[str, str] = ("", "")) -> Iterator[Item]:
        notes = Validator(prefix)
        if not isinstance(value, dict):
            notes.wrong("", f"must be a Kubernetes object, not {word_for(value)}")
            yield self._item(notes, "", "")
            return
        kind = notes.text(value.get("kind"), "kind") or default[0]
        version = notes.text(value.get("apiVersion"), "apiVersion") or default[1]
        for field, text in (("kind", kind), ("apiVersion", version)):
            if not text and not notes.names(field):
                notes.wrong(field, "is required")
        if not notes.valid:
            yield self._item(notes, kind, _name_in(value))
        elif kind == "List" or (kind.endswith("List") and "items" in value):
            yield from self._list(value, notes, depth, (kind.removesuffix("List"), version))
        elif kind == POLICY or kind in _VERSIONS:
            yield from self._object({**value, "kind": kind, "apiVersion": version}, kind, version, notes)
        elif meant := _meant(kind, version):
            notes.wrong("kind", f"{shown(kind)} is no kind of {version}, write {meant}")
            yield from self._object({**value, "kind": meant, "apiVersion": version}, meant, version, notes)
        else:
            self._ignore(kind, version)

    def _list(
        self, value: Mapping[str, object], notes: Validator, depth: int, inner: tuple[str, str]
    ) -> Iterator[Item]:
        """The items of a List; those of a `PodList` need not say that they are Pods."""
        below = f"{notes.prefix}items["
        self._repeated(notes, but=below)
        entries = notes.listing(value.get("items"), "items")
        if depth == _MAX_LIST_DEPTH:
            notes.wrong("items", "lists are nested too deeply")
            entries = []
        if notes.entries:
            yield self._item(notes, "List", "")
        for index, entry in enumerate(entries):
            yield from self._any(entry, f"{below}{index}].", depth=depth + 1, default=inner)

    def _ignore(self, kind: str, version: str) -> None:
        group, slash, _ = version.partition("/")
        self.ignored[plain(f"{kind}.{group}" if slash else kind)] = None

    def _object(self, value: Mapping[str, object], kind: str, version: str, notes: Validator) -> Iterator[Item]:
        """The item of a known kind, or none when another API group only shares the kind's name."""
        expected = POLICY_VERSION if kind == POLICY else _VERSIONS[kind]
        if version not in (expected, *(_ROMANA_VERSIONS if kind == POLICY else ())):
            if not _superseded(kind, version, expected):
                self._ignore(kind, version)
                return
            notes.wrong("apiVersion", f"{shown(version)} is not served, write {_served(kind, version, expected)}")
        self._repeated(notes)
        romana = version.startswith("romana.io/")
        head = self._head(value, ROMANA_POLICY if romana else kind, notes, demo=version == romanapolicy.DEMO_VERSION)
        if kind == POLICY:
            read, fallback = self._policy(value, head, notes, romana=romana)
            yield self._item(notes, kind, head.name, head=head, read=read, fallback=fallback)
        else:
            found = _read(value, kind, head, notes, _plan_of(self.settings))
            yield self._item(notes, kind, head.name, head=head, read=found)

    def _repeated(self, notes: Validator, *, but: str | None = None) -> None:
        """Note the keys that the file gives twice inside this object, except below the path `but`."""
        for repeated in self.document.repeated:
            if repeated.path.startswith(notes.prefix) and not (but and repeated.path.startswith(but)):
                line = f", again in line {repeated.line}" if repeated.line else ""
                notes.wrong(repeated.path.removeprefix(notes.prefix), f"is given twice{line}")

    def _head(self, value: Mapping[str, object], kind: str, notes: Validator, *, demo: bool) -> _Head:
        metadata = notes.mapping(value.get("metadata"), "metadata", self.metadata)
        name = notes.text(metadata.get("name"), "metadata.name")
        fault = label_fault if kind == "Namespace" else subdomain_fault
        if not notes.names("metadata") and not notes.names("metadata.name"):
            if not name:
                notes.wrong("metadata.name", "is required")
            elif reason := fault(name):
                notes.wrong("metadata.name", reason)
        namespace = ""
        if kind not in _CLUSTER_SCOPED:
            namespace = notes.text(metadata.get("namespace"), "metadata.namespace") or "default"
            if reason := label_fault(namespace):
                notes.wrong("metadata.namespace", reason)
        labels = (romanapolicy.demo_labels if demo else read_labels)(metadata.get("labels"), "metadata.labels", notes)
        known = not (notes.names("metadata") or notes.concerns("metadata.name") or notes.concerns("metadata.namespace"))
        return _Head(
            id=ObjectId(kind, namespace, name) if known else None,
            name=name,
            namespace="" if notes.concerns("metadata.namespace") or notes.names("metadata") else namespace,
            labels=labels,
            uid=notes.text(metadata.get("uid"), "metadata.uid"),
            owners=read_owners(metadata, notes),
            created=created if isinstance(created := metadata.get("creationTimestamp"), str) else "",
        )

    def _policy(
        self, value: Mapping[str, object], head: _Head, notes: Validator, *, romana: bool
    ) -> tuple[Policy, Policy | None]:
        """The policy, and what stands in for it when it is invalid (None when its namespace is unknown)."""
        # A policy whose name cannot be used still has to isolate, so it gets one that no other can have.
        name = head.name if head.id is not None else f"{self.file}#{self.document.number}{notes.prefix}"
        fallback: Policy
        if romana:
            demo = value.get("apiVersion") == romanapolicy.DEMO_VERSION
            notes.mapping(value, "", (*_TOP, "allowIncoming") if demo else _TOP)
            policy = romanapolicy.read_romana_policy(value, head.labels, notes, namespace=head.namespace, name=name)
            policy = replace(policy, created=head.created)
            romanapolicy.check_tenant(policy, self.settings, notes)
            check_budget(policy, notes)
            fallback = romanapolicy.isolating(policy, self.settings, notes)
            return policy, fallback if head.namespace else None
        notes.mapping(value, "", _TOP)
        spec = value.get("spec")
        plain_policy = kubepolicy.read_kubernetes_policy(spec, head.namespace, name, notes)
        plain_policy = replace(plain_policy, created=head.created)
        check_budget(plain_policy, notes)
        fallback = kubepolicy.isolating(plain_policy, spec, notes)
        return plain_policy, fallback if head.namespace else None

    def _item(
        self,
        notes: Validator,
        kind: str,
        name: str,
        *,
        head: _Head | None = None,
        read: Manifest | None = None,
        fallback: Policy | None = None,
    ) -> Item:
        place = self._place(notes, kind, name, head)
        valid = notes.valid and head is not None and head.id is not None
        return Item(
            id=head.id if head is not None else None,
            place=place,
            value=read if valid else None,
            fallback=None if valid else fallback,
            problems=tuple(place.problem(path, reason) for path, reason in notes.entries),
            owners=head.owners if head is not None else (),
        )

    def _place(self, notes: Validator, kind: str, name: str, head: _Head | None) -> Place:
        return Place(self.file, self.document.number, notes.prefix, plain(kind), plain(name))


class _Served(_Decoder):
    """Decodes one object that an API server has already looked at."""

    metadata = None

    def one(self, kind: str, version: str) -> Item:
        """The object of the document."""
        notes = Validator()
        if not isinstance(self.document.value, dict):
            notes.wrong("", f"must be a Kubernetes object, not {word_for(self.document.value)}")
            return self._item(notes, kind, "")
        value = self.document.value
        if kind == POLICY:
            value = {**value, "kind": kind, "apiVersion": version}
        return next(self._object(value, kind, version, notes))

    def _place(self, notes: Validator, kind: str, name: str, head: _Head | None) -> Place:
        if head is None or head.id is None:
            return super()._place(notes, kind, name, head)
        whole = f"{head.namespace}/{name}" if head.id.namespace else name
        return Place("", 0, "", head.id.kind, whole)


def _meant(kind: str, version: str) -> str:
    """The kind of this apiVersion that `kind` is a misspelling of, or empty.

    A policy that loads as some unknown kind would be a policy that silently does nothing.
    """
    known = [name for name, served in _VERSIONS.items() if served == version]
    if version in (POLICY_VERSION, *_ROMANA_VERSIONS):
        known = [POLICY]
    return next(iter(difflib.get_close_matches(kind, known, n=1, cutoff=_ALIKE)), "")


def _name_in(value: Mapping[str, object]) -> str:
    metadata = value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return name if isinstance(name, str) else ""


def _superseded(kind: str, version: str, expected: str) -> bool:
    """Whether `version` is an older or unknown version of the same kind, not another kind of that name."""
    group = version.rpartition("/")[0]
    if kind == POLICY:
        return version == _OLD_POLICIES or group in ("networking.k8s.io", "") or group.startswith("romana.io")
    return group in (expected.rpartition("/")[0], "", "extensions", "apps", "batch")


def _served(kind: str, version: str, expected: str) -> str:
    return romanapolicy.TODAY_VERSION if kind == POLICY and version.startswith("romana.io") else expected


@lru_cache(maxsize=8)
def _plan_of(settings: Settings) -> Plan | None:
    """The address plan, None when the widths do not add up: whoever gives addresses then says so."""
    try:
        return Plan.of(settings)
    except AddressError:
        return None


def _read(value: Mapping[str, object], kind: str, head: _Head, notes: Validator, plan: Plan | None) -> Manifest:
    if kind == "Pod":
        pod = Pod(head.namespace, head.name, labels=head.labels, uid=head.uid)
        return read_pod(value, pod, notes, plan=plan)
    if kind == "Namespace":
        return read_namespace(head.name, head.labels)
    if kind == "Node":
        return read_node(value, head.name, head.labels, notes)
    return read_workload(value, kind, notes, namespace=head.namespace, name=head.name)
