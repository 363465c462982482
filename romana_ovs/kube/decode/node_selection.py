"""Decodes which nodes a pod template may run on, and the taints of nodes.

Sources: Kubernetes core/v1 PodSpec (nodeName, nodeSelector, affinity.nodeAffinity, tolerations) and Node (spec.taints);
component-helpers `scheduling/corev1` for what matches.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from romana_ovs.kube.decode.labels import read_labels
from romana_ovs.kube.decode.validation import Validator
from romana_ovs.model.labels import NO_LABELS, Labels
from romana_ovs.model.syntax import shown

_REPELLING = ("NoSchedule", "NoExecute")
"""The effects of taints that keep pods away; PreferNoSchedule does not."""
_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")
_NAME_FIELD = "metadata.name"
_REQUIRED_TERMS = "requiredDuringSchedulingIgnoredDuringExecution"


@dataclass(frozen=True, slots=True)
class Taint:
    """A taint of a node."""

    key: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True)
class Toleration:
    """A toleration of a pod; empty `key` (with Exists) and empty `effect` stand for all."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""

    def tolerates(self, taint: Taint) -> bool:
        """Whether it tolerates `taint` (core/v1 `Toleration.ToleratesTaint`)."""
        if self.effect and self.effect != taint.effect:
            return False
        if self.key and self.key != taint.key:
            return False
        return self.operator == "Exists" or (bool(self.key) and self.value == taint.value)


KUBELET_LABELS: Mapping[str, str] = MappingProxyType(
    {
        f"{prefix}kubernetes.io/{key}": value
        for prefix in ("", "beta.")
        for key, value in {"os": "linux", "arch": "amd64"}.items()
    }
)
"""Labels that a kubelet on Linux adds to its Node, for Node objects that were written by hand, or are not there."""


@dataclass(frozen=True, slots=True)
class NodeRequirement:
    """One entry of matchExpressions or matchFields; `field`: it is about the node's name, not about a label."""

    key: str
    operator: str
    values: tuple[str, ...] = ()
    field: bool = False

    def matches(self, name: str, labels: Mapping[str, str]) -> bool:
        """Whether a node matches. NotIn and DoesNotExist also match an absent label."""
        value = name if self.field else labels.get(self.key)
        if self.operator in ("In", "NotIn"):
            return (value is not None and value in self.values) is (self.operator == "In")
        if self.operator in ("Exists", "DoesNotExist"):
            return (value is not None) is (self.operator == "Exists")
        number, limit = _integer(value), _integer(self.values[0] if len(self.values) == 1 else None)
        if number is None or limit is None:
            return False
        return number > limit if self.operator == "Gt" else number < limit


_NODE = "node.kubernetes.io/"


def daemon_tolerations(*, host_network: bool) -> tuple[Toleration, ...]:
    """The tolerations that the DaemonSet controller adds (Kubernetes' `AddOrUpdateDaemonPodTolerations`)."""
    effects = {
        "not-ready": "NoExecute",
        "unreachable": "NoExecute",
        "disk-pressure": "NoSchedule",
        "memory-pressure": "NoSchedule",
        "pid-pressure": "NoSchedule",
        "unschedulable": "NoSchedule",
    }
    if host_network:
        effects["network-unavailable"] = "NoSchedule"
    return tuple(Toleration(_NODE + name, "Exists", effect=effect) for name, effect in effects.items())


NodeTerm = tuple[NodeRequirement, ...]
"""One of nodeSelectorTerms: a node matches when it matches all of its requirements. An empty one matches none."""


@dataclass(frozen=True, slots=True)
class NodeSelection:
    """The nodes that a pod template selects; `terms` None: it has no required node affinity."""

    node: str = ""
    labels: Labels = NO_LABELS
    terms: tuple[NodeTerm, ...] | None = None
    tolerations: tuple[Toleration, ...] = ()

    @property
    def depends_on_labels(self) -> bool:
        """Whether it depends on labels of nodes, other than those that a kubelet on Linux gives each."""
        terms = [[one for one in term if not one.field] for term in self.terms or ()]
        keys = {requirement.key for term in terms for requirement in term} | self.labels.keys()
        if not keys <= KUBELET_LABELS.keys():
            return True
        selects = all(KUBELET_LABELS[key] == value for key, value in self.labels.items())
        return not selects or not all(one.matches("", KUBELET_LABELS) for term in terms for one in term)

    def matches(self, name: str, labels: Mapping[str, str] | None, taints: Collection[Taint] = ()) -> bool:
        """Whether the pods may run on the node; with `labels` None (not known) every label counts as matching."""
        if self.node and self.node != name:
            return False
        if labels is not None and any(labels.get(key) != value for key, value in self.labels.items()):
            return False
        if self.terms is not None and not any(_term_matches(term, name, labels) for term in self.terms):
            return False
        return all(
            taint.effect not in _REPELLING or any(one.tolerates(taint) for one in self.tolerations) for taint in taints
        )


def _term_matches(term: NodeTerm, name: str, labels: Mapping[str, str] | None) -> bool:
    return bool(term) and all(
        (labels is None and not requirement.field) or requirement.matches(name, labels or {}) for requirement in term
    )


def _integer(text: str | None) -> int | None:
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None


def read_daemon_nodes(spec: Mapping[str, object], path: str, validator: Validator) -> NodeSelection:
    """The nodes that the pod spec of a DaemonSet at `path` selects, as far as it can be read."""
    affinity = validator.mapping(spec.get("affinity"), f"{path}.affinity")
    node_affinity = validator.mapping(affinity.get("nodeAffinity"), f"{path}.affinity.nodeAffinity")
    required = node_affinity.get(_REQUIRED_TERMS)
    terms = None
    if required is not None:
        where = f"{path}.affinity.nodeAffinity.{_REQUIRED_TERMS}"
        fields = validator.mapping(required, where)
        terms = tuple(
            (
                *_requirements(term.get("matchExpressions"), f"{at}.matchExpressions", validator),
                *_requirements(term.get("matchFields"), f"{at}.matchFields", validator, field=True),
            )
            for at, term in validator.mappings_in(fields.get("nodeSelectorTerms"), f"{where}.nodeSelectorTerms")
        )
    return NodeSelection(
        node=validator.string(spec.get("nodeName"), f"{path}.nodeName"),
        labels=read_labels(spec.get("nodeSelector"), f"{path}.nodeSelector", validator),
        terms=terms,
        tolerations=(
            *_tolerations(spec.get("tolerations"), f"{path}.tolerations", validator),
            *daemon_tolerations(host_network=spec.get("hostNetwork") is True),
        ),
    )


def _requirements(value: object, path: str, validator: Validator, *, field: bool = False) -> Iterator[NodeRequirement]:
    for where, entry in validator.mappings_in(value, path):
        key = validator.string(entry.get("key"), f"{where}.key")
        operator = validator.string(entry.get("operator"), f"{where}.operator")
        values = tuple(
            validator.string(one, f"{where}.values[{index}]")
            for index, one in enumerate(validator.sequence(entry.get("values"), f"{where}.values"))
        )
        if operator not in _OPERATORS:
            validator.error(f"{where}.operator", f"{shown(operator)} is none of {', '.join(_OPERATORS)}")
        elif field and key != _NAME_FIELD:
            validator.error(f"{where}.key", f"{shown(key)} is no field of nodes that can be selected, {_NAME_FIELD} is")
        else:
            yield NodeRequirement(key, operator, values, field)


def _tolerations(value: object, path: str, validator: Validator) -> Iterator[Toleration]:
    for where, entry in validator.mappings_in(value, path):
        key, operator, text, effect = (
            validator.string(entry.get(name), f"{where}.{name}") for name in ("key", "operator", "value", "effect")
        )
        yield Toleration(key, operator or "Equal", text, effect)


def read_taints(document: Mapping[str, object], validator: Validator) -> tuple[Taint, ...]:
    """The taints in the spec of the Node `document`."""
    spec = validator.mapping(document.get("spec"), "spec")
    return tuple(
        Taint(*(validator.string(entry.get(name), f"{where}.{name}") for name in ("key", "value", "effect")))
        for where, entry in validator.mappings_in(spec.get("taints"), "spec.taints")
    )
