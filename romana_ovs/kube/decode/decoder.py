"""Decodes a document into objects of the model, with all of its problems.

Every object enters through here. A valid one becomes a value; an invalid one is absent, with the reasons, and in
case of a policy with a fallback that isolates the pods that it selects.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.kube.decode import kubepolicy, romanapolicy
from romana_ovs.kube.decode.field_types import check_annotations
from romana_ovs.kube.decode.labels import read_labels
from romana_ovs.kube.decode.limits import check_size
from romana_ovs.kube.decode.names import with_generated_name
from romana_ovs.kube.decode.node_selection import Taint, read_taints
from romana_ovs.kube.decode.objects import (
    NO_SOURCE,
    DecodedDocument,
    DecodedObject,
    Document,
    KubeObject,
    ObjectId,
    SourceLocation,
)
from romana_ovs.kube.decode.other_policies import Effect, other_policy
from romana_ovs.kube.decode.other_workloads import read_other
from romana_ovs.kube.decode.owners import ControllerRef, read_controller_ref
from romana_ovs.kube.decode.pods import read_namespace, read_node, read_pod
from romana_ovs.kube.decode.services import (
    read_endpoint_slice,
    read_endpoints,
    read_service,
    read_service_cidr,
    without_pods,
)
from romana_ovs.kube.decode.validation import Validator
from romana_ovs.kube.decode.workloads import WORKLOADS, Workload, read_workload
from romana_ovs.model.errors import AddressError, Severity
from romana_ovs.model.labels import NO_LABELS, Labels
from romana_ovs.model.objects import KubernetesPolicy, Pod, Policy, RomanaPolicy
from romana_ovs.model.settings import Settings
from romana_ovs.model.syntax import label_fault, plain, shown, subdomain_fault, word_for

POLICY = "NetworkPolicy"
ROMANA_POLICY = "RomanaNetworkPolicy"
POLICY_VERSION = "networking.k8s.io/v1"
_ROMANA_VERSIONS = (romanapolicy.DEMO_VERSION, romanapolicy.CURRENT_VERSION)
_OLD_POLICY_VERSION = "extensions/v1beta1"
SERVICE_CIDR = "ServiceCIDR"
_SERVICES = {"Service": "v1", "Endpoints": "v1", "EndpointSlice": "discovery.k8s.io/v1", SERVICE_CIDR: POLICY_VERSION}
_VERSIONS = {"Pod": "v1", "Namespace": "v1", "Node": "v1", **WORKLOADS, **_SERVICES}
_CLUSTER_SCOPED = ("Namespace", "Node", SERVICE_CIDR)
_MAX_LIST_DEPTH = 4
_SIMILARITY = 0.8
"""How similar (difflib ratio) a kind must be to a known one to count as a misspelling of it."""
_PRINTED = re.compile(r"(?:NAMESPACE +)?NAME +[A-Z]|[a-z0-9.]+/[a-z0-9.-]+(?: |\Z)")
"""The start of what kubectl get prints without -o, or with -o name."""
_OBJECT_FIELDS = ("apiVersion", "kind", "metadata", "spec", "status")
_METADATA_FIELDS = frozenset(
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


def decode(
    document: Document, file: str, settings: Settings, *, sources_of: Collection[ObjectId] | None = None
) -> DecodedDocument:
    """All objects in `document` of `file`, valid or not, and all problems.

    Each has its `source`; with `sources_of` only valid policies and the objects that are named there.
    """
    if document.value is None:
        return DecodedDocument()
    return _Decoder(document, file, settings, sources_of).run()


def decode_served(value: object, kind: str, version: str, settings: Settings) -> DecodedObject:
    """Decodes one object of an API server, a `kind` of `version` (objects in lists do not carry these themselves).

    Its location has no file; its problems name it `namespace/name`. Unknown fields in metadata are accepted, as
    newer API servers may add some; elsewhere they make it invalid, as in a manifest.
    """
    return _ServedDecoder(value, settings).decode(kind, version)


@dataclass(frozen=True, slots=True)
class _Meta:
    """The metadata of an object, as far as it can be read."""

    id: ObjectId | None
    name: str
    namespace: str
    labels: Labels = NO_LABELS
    uid: str = ""
    controller_ref: ControllerRef | None = None
    terminating: bool = False
    creation_timestamp: str = ""


class _Decoder:
    """Decodes one document, which may be a List of objects."""

    metadata: Collection[str] | None = _METADATA_FIELDS
    """The allowed fields of metadata; None: any."""

    def __init__(
        self, document: Document, file: str, settings: Settings, sources_of: Collection[ObjectId] | None
    ) -> None:
        self.document = document
        self.file = file
        self.settings = settings
        self._sources_of = sources_of
        self.ignored: dict[str, None] = {}

    def run(self) -> DecodedDocument:
        items = tuple(self._decode_any(self.document.value, "", depth=0))
        return DecodedDocument(
            items, tuple(problem for item in items for problem in item.problems), tuple(self.ignored)
        )

    def _decode_any(
        self, value: object, prefix: str, *, depth: int, default: tuple[str, str] = ("", "")
    ) -> Iterator[DecodedObject]:
        validator = Validator(prefix)
        if not isinstance(value, dict):
            printed = isinstance(value, str) and _PRINTED.match(value)
            hint = "; kubectl get prints objects with -o yaml" if printed else ""
            validator.error("", f"must be a Kubernetes object, not {word_for(value)}{hint}")
            yield self._result(validator, "", "")
            return
        kind = validator.string(value.get("kind"), "kind") or default[0]
        version = validator.string(value.get("apiVersion"), "apiVersion") or default[1]
        for field, text in (("kind", kind), ("apiVersion", version)):
            if not text and not validator.has(field):
                validator.error(field, "is required")
        if not validator.valid:
            yield self._result(validator, kind, _text_in(value, "name"))
        elif _is_list(kind, value):
            yield from self._decode_list(value, validator, depth, (kind.removesuffix("List"), version))
        else:
            named = with_generated_name(value, f"{self.file}#{self.document.number}#{prefix}")
            for item in self._decode_named(named, kind, version, validator):
                yield item if named is value else replace(item, generated=True)

    def _decode_named(
        self, value: Mapping[str, object], kind: str, version: str, validator: Validator
    ) -> Iterator[DecodedObject]:
        """The object of any kind but a List; none when it has no effect."""
        if kind == POLICY or kind in _VERSIONS:
            if value.get("kind") != kind or value.get("apiVersion") != version:
                value = {**value, "kind": kind, "apiVersion": version}
            yield from self._decode_object(value, kind, version, validator)
        elif meant := _closest_kind(kind, version):
            validator.error("kind", f"{shown(kind)} is no kind of {version}, write {meant}")
            yield from self._decode_object({**value, "kind": meant, "apiVersion": version}, meant, version, validator)
        else:
            yield from self._decode_other(value, kind, version, validator)

    def _decode_other(
        self, value: Mapping[str, object], kind: str, version: str, validator: Validator
    ) -> Iterator[DecodedObject]:
        """The object of a kind that is not known by name: a policy of another system, what makes pods, or ignored."""
        namespace, name = _text_in(value, "namespace"), _text_in(value, "name")
        group = version.partition("/")[0] if "/" in version else ""
        self._report_duplicates(validator)
        policy = other_policy(kind, group, value, namespace=namespace, name=name)
        location = SourceLocation(self.file, self.document.number, validator.prefix, plain(kind), plain(name))
        if policy is not None:
            severity = Severity.INFO if policy.effect is Effect.NONE else Severity.ERROR
            key = ObjectId(f"{kind}.{group}", namespace, name or str(location))
            yield DecodedObject(
                id=key,
                location=location,
                value=policy,
                problems=tuple(location.problem(*finding) for finding in validator.findings),
                source=value if self._keeps_source(key, policy) else NO_SOURCE,
                unsupported=(location.problem("", policy.reason, severity),),
            )
            return
        pods = read_other(value, kind, group, validator)
        if not isinstance(pods, Workload):
            self._ignore(kind, version)
        if pods is not None:
            meta = _Meta(
                ObjectId(f"{kind}.{group}", pods.namespace, pods.name) if _is_identified(validator) else None,
                pods.name,
                pods.namespace,
                controller_ref=pods.controller_ref,
            )
            yield replace(self._result(validator, kind, name, meta=meta, read=pods, source=value), other_workload=True)
        elif validator.findings:
            yield self._result(validator, kind, name)

    def _decode_list(
        self, value: Mapping[str, object], validator: Validator, depth: int, inner: tuple[str, str]
    ) -> Iterator[DecodedObject]:
        """The objects of a List; those of a `PodList` need no kind of their own."""
        below = f"{validator.prefix}items["
        self._report_duplicates(validator, but=below)
        if "items" not in value:
            validator.error("items", "is required in a list, empty or not")
        entries = validator.sequence(value.get("items"), "items")
        if depth == _MAX_LIST_DEPTH:
            validator.error("items", "lists are nested too deeply")
            entries = []
        if validator.findings:
            yield self._result(validator, "List", "")
        for index, entry in enumerate(entries):
            yield from self._decode_any(entry, f"{below}{index}].", depth=depth + 1, default=inner)

    def _ignore(self, kind: str, version: str) -> None:
        group, slash, _ = version.partition("/")
        self.ignored[plain(f"{kind}.{group}" if slash else kind)] = None

    def _decode_object(
        self, value: Mapping[str, object], kind: str, version: str, validator: Validator
    ) -> Iterator[DecodedObject]:
        """The object of a known kind, or of another API group with a kind of that name."""
        expected = POLICY_VERSION if kind == POLICY else _VERSIONS[kind]
        if version not in (expected, *(_ROMANA_VERSIONS if kind == POLICY else ())):
            if not _is_other_version(kind, version, expected):
                yield from self._decode_other(value, kind, version, validator)
                return
            validator.error(
                "apiVersion", f"{shown(version)} is not served, write {_served_version(kind, version, expected)}"
            )
        self._report_duplicates(validator)
        romana = version.startswith("romana.io/")
        meta = self._read_meta(
            value, ROMANA_POLICY if romana else kind, validator, demo=version == romanapolicy.DEMO_VERSION
        )
        if kind == POLICY:
            read, fallback = self._read_policy(value, meta, validator, romana=romana)
            yield self._result(validator, kind, meta.name, meta=meta, read=read, fallback=fallback, source=value)
        else:
            decoded = self._read(value, kind, meta, validator)
            taints = read_taints(value, validator) if kind == "Node" else ()
            yield self._result(validator, kind, meta.name, meta=meta, read=decoded, taints=taints, source=value)

    def _report_duplicates(self, validator: Validator, *, but: str | None = None) -> None:
        """Record an error for each key that occurs twice in this object, except below the path `but`.

        Where `apiVersion` and `kind` do, the separator between two objects is missing.
        """
        if not self.document.duplicates:
            return
        lines = {duplicate.path: duplicate.line for duplicate in self.document.duplicates}
        joined = () if validator.prefix or not lines.keys() >= {"apiVersion", "kind"} else _OBJECT_FIELDS + ("items",)
        if joined:
            first = min(line for path, line in lines.items() if path in joined)
            reason = "two objects are one document, of which kubectl reads the second: write --- on a line before line"
            validator.error("", f"{reason} {first}")
        for duplicate in self.document.duplicates:
            if duplicate.path in joined:
                continue
            if duplicate.path.startswith(validator.prefix) and not (but and duplicate.path.startswith(but)):
                line = f", again in line {duplicate.line}" if duplicate.line else ""
                validator.error(duplicate.path.removeprefix(validator.prefix), f"is given twice{line}")

    def _read_meta(self, value: Mapping[str, object], kind: str, validator: Validator, *, demo: bool) -> _Meta:
        metadata = validator.mapping(value.get("metadata"), "metadata", self.metadata)
        name = validator.string(metadata.get("name"), "metadata.name")
        fault = label_fault if kind == "Namespace" else subdomain_fault
        if not validator.has("metadata") and not validator.has("metadata.name"):
            if not name:
                validator.error("metadata.name", "is required")
            elif reason := fault(name):
                validator.error("metadata.name", reason)
        namespace = ""
        if kind not in _CLUSTER_SCOPED:
            namespace = validator.string(metadata.get("namespace"), "metadata.namespace") or "default"
            if reason := label_fault(namespace):
                validator.error("metadata.namespace", reason)
        labels = (romanapolicy.demo_labels if demo else read_labels)(
            metadata.get("labels"), "metadata.labels", validator
        )
        check_annotations(metadata, "metadata", validator)
        return _Meta(
            id=ObjectId(kind, namespace, name) if _is_identified(validator) else None,
            name=name,
            namespace="" if validator.has_under("metadata.namespace") or validator.has("metadata") else namespace,
            labels=labels,
            uid=validator.string(metadata.get("uid"), "metadata.uid"),
            controller_ref=read_controller_ref(metadata, validator),
            terminating=metadata.get("deletionTimestamp") is not None,
            creation_timestamp=created if isinstance(created := metadata.get("creationTimestamp"), str) else "",
        )

    def _read_policy(
        self, value: Mapping[str, object], meta: _Meta, validator: Validator, *, romana: bool
    ) -> tuple[Policy, Policy | None]:
        """The policy, and its fallback when it is invalid (None when its namespace is unknown)."""
        # A policy with an invalid name still has to isolate, so it gets a name that no other policy can have.
        name = meta.name if meta.id is not None else f"{self.file}#{self.document.number}{validator.prefix}"
        fallback: Policy
        if romana:
            demo = value.get("apiVersion") == romanapolicy.DEMO_VERSION
            validator.mapping(value, "", (*_OBJECT_FIELDS, "allowIncoming") if demo else _OBJECT_FIELDS)
            policy = romanapolicy.read_romana_policy(value, meta.labels, validator, namespace=meta.namespace, name=name)
            policy = replace(policy, creation_timestamp=meta.creation_timestamp)
            romanapolicy.check_tenant(policy, self.settings, validator)
            check_size(policy, validator)
            fallback = romanapolicy.isolating_fallback(policy, self.settings, validator)
            return policy, fallback if meta.namespace else None
        validator.mapping(value, "", _OBJECT_FIELDS)
        spec = value.get("spec")
        plain_policy = kubepolicy.read_kubernetes_policy(spec, meta.namespace, name, validator)
        plain_policy = replace(plain_policy, creation_timestamp=meta.creation_timestamp)
        check_size(plain_policy, validator)
        fallback = kubepolicy.isolating_fallback(plain_policy, spec, validator)
        return plain_policy, fallback if meta.namespace else None

    def _read(self, value: Mapping[str, object], kind: str, meta: _Meta, validator: Validator) -> KubeObject:
        """The object of any kind but a policy."""
        return _read(value, kind, meta, validator, _plan_of(self.settings))

    def _result(
        self,
        validator: Validator,
        kind: str,
        name: str,
        *,
        meta: _Meta | None = None,
        read: KubeObject | None = None,
        fallback: Policy | None = None,
        taints: tuple[Taint, ...] = (),
        source: Mapping[str, object] = NO_SOURCE,
    ) -> DecodedObject:
        location = self._location(validator, kind, name, meta)
        key = meta.id if meta is not None else None
        valid = validator.valid and key is not None
        value = read if valid else None
        return DecodedObject(
            id=key,
            location=location,
            value=value,
            fallback=None if valid else fallback,
            problems=tuple(location.problem(*finding) for finding in validator.findings),
            unsupported=tuple(location.problem(*finding) for finding in validator.unsupported) if valid else (),
            controller_ref=meta.controller_ref if meta is not None else None,
            terminating=meta.terminating if meta is not None else False,
            taints=taints,
            notes=tuple(location.problem(*finding) for finding in validator.notes) if valid else (),
            labels=meta.labels if meta is not None else NO_LABELS,
            source=source if self._keeps_source(key, value) else NO_SOURCE,
        )

    def _keeps_source(self, key: ObjectId | None, value: KubeObject | None) -> bool:
        """Whether the manifest of an object is kept with it."""
        return (
            self._sources_of is None or key in self._sources_of or isinstance(value, (KubernetesPolicy, RomanaPolicy))
        )

    def _location(self, validator: Validator, kind: str, name: str, meta: _Meta | None) -> SourceLocation:
        return SourceLocation(self.file, self.document.number, validator.prefix, plain(kind), plain(name))


class _ServedDecoder(_Decoder):
    """Decodes one object that an API server has validated."""

    metadata = None

    def __init__(self, value: object, settings: Settings) -> None:
        super().__init__(Document(0, value), "", settings, None)

    def _keeps_source(self, key: ObjectId | None, value: KubeObject | None) -> bool:
        return False

    def _read(self, value: Mapping[str, object], kind: str, meta: _Meta, validator: Validator) -> KubeObject:
        """Of an EndpointSlice only the endpoints that are no pods, ready or not: a proxy may still use them."""
        if kind != "EndpointSlice":
            return super()._read(value, kind, meta, validator)
        endpoints = read_endpoint_slice(
            value, validator, namespace=meta.namespace, name=meta.name, labels=meta.labels, ready_only=False
        )
        return without_pods(endpoints, self.settings.network)

    def decode(self, kind: str, version: str) -> DecodedObject:
        """The object of the document."""
        validator = Validator()
        if not isinstance(self.document.value, dict):
            validator.error("", f"must be a Kubernetes object, not {word_for(self.document.value)}")
            return self._result(validator, kind, "")
        value = self.document.value
        if kind == POLICY:
            value = {**value, "kind": kind, "apiVersion": version}
        return next(self._decode_object(value, kind, version, validator))

    def _location(self, validator: Validator, kind: str, name: str, meta: _Meta | None) -> SourceLocation:
        if meta is None or meta.id is None:
            return super()._location(validator, kind, name, meta)
        whole = f"{meta.namespace}/{name}" if meta.id.namespace else name
        return SourceLocation("", 0, "", meta.id.kind, whole)


def _is_list(kind: str, value: Mapping[str, object]) -> bool:
    """Whether an object is a list of others: kubectl goes by the field `items`, whatever the kind is called.

    What is called a list and has neither name nor spec is one that lacks its items, which is an error.
    """
    if kind == "List" or (
        kind.endswith("List") and ("items" in value or not ("spec" in value or _text_in(value, "name")))
    ):
        return True
    return isinstance(value.get("items"), list) and kind != POLICY and kind not in _VERSIONS


def _closest_kind(kind: str, version: str) -> str:
    """The kind of this apiVersion that `kind` seems to misspell, or empty.

    A policy of an unknown kind would silently have no effect.
    """
    known = [name for name, served in _VERSIONS.items() if served == version]
    if version in (POLICY_VERSION, *_ROMANA_VERSIONS):
        known = [POLICY]
    lowered = {name.lower(): name for name in known}
    near = difflib.get_close_matches(kind.lower(), lowered, n=1, cutoff=_SIMILARITY)
    return lowered[near[0]] if near else ""


def _text_in(value: Mapping[str, object], field: str) -> str:
    """A field of the metadata; empty when it is no string."""
    metadata = value.get("metadata")
    text = metadata.get(field) if isinstance(metadata, dict) else None
    return text if isinstance(text, str) else ""


def _is_identified(validator: Validator) -> bool:
    """Whether nothing is wrong with the name and namespace of the object."""
    return not (
        validator.has("metadata") or validator.has_under("metadata.name") or validator.has_under("metadata.namespace")
    )


def _is_other_version(kind: str, version: str, expected: str) -> bool:
    """Whether `version` is an older or unknown version of the same kind, not another kind of that name."""
    group = version.rpartition("/")[0]
    if kind == POLICY:
        return version == _OLD_POLICY_VERSION or group in ("networking.k8s.io", "") or group.startswith("romana.io")
    return group in (expected.rpartition("/")[0], "", "extensions", "apps", "batch")


def _served_version(kind: str, version: str, expected: str) -> str:
    return romanapolicy.CURRENT_VERSION if kind == POLICY and version.startswith("romana.io") else expected


@lru_cache(maxsize=8)
def _plan_of(settings: Settings) -> AddressPlan | None:
    """The address plan; None when its widths do not add up, which is reported where addresses are allocated."""
    try:
        return AddressPlan.of(settings)
    except AddressError:
        return None


def _read(
    value: Mapping[str, object], kind: str, meta: _Meta, validator: Validator, plan: AddressPlan | None
) -> KubeObject:
    if kind == "Pod":
        pod = Pod(meta.namespace, meta.name, labels=meta.labels, uid=meta.uid)
        return read_pod(value, pod, validator, plan=plan)
    if kind == "Namespace":
        return read_namespace(value, meta.name, meta.labels, validator)
    if kind == "Node":
        return read_node(value, meta.name, meta.labels, validator)
    if kind == "Service":
        return read_service(value, validator, namespace=meta.namespace, name=meta.name)
    if kind == "Endpoints":
        return read_endpoints(value, validator, namespace=meta.namespace, name=meta.name)
    if kind == "EndpointSlice":
        return read_endpoint_slice(value, validator, namespace=meta.namespace, name=meta.name, labels=meta.labels)
    if kind == SERVICE_CIDR:
        return read_service_cidr(value, validator, name=meta.name)
    return read_workload(value, kind, validator, namespace=meta.namespace, name=meta.name)
