"""Romana's NetworkPolicy: the demonstration's form `romana.io/demo/v1` and today's `romana.io/v1`.

Source: the write-up of the first demonstration; docs/design.md section 5 for the meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from romana_ovs.kube.decode.labels import read_labels
from romana_ovs.kube.decode.selectors import NOTHING, read_port, read_selector
from romana_ovs.kube.decode.validation import Validator
from romana_ovs.model.labels import EVERYTHING, Labels, Selector
from romana_ovs.model.objects import Direction, KubernetesPolicy, Policy, RomanaPolicy, RomanaRule
from romana_ovs.model.settings import Settings, TenantSource
from romana_ovs.model.syntax import shown

DEMO_VERSION = "romana.io/demo/v1"
TODAY_VERSION = "romana.io/v1"

_NOT_LABELS = ("matchLabels", "matchExpressions")

ReadSelector = Callable[[object, str, Validator], Selector]


def demo_labels(value: object, path: str, notes: Validator) -> Labels:
    """Labels as a map, or as the demonstration wrote them: a list of one-key maps."""
    if not isinstance(value, list):
        return read_labels(value, path, notes)
    together: dict[str, object] = {}
    for where, entry in notes.entries_of(value, path):
        if len(entry) != 1:
            notes.wrong(where, f"must hold one label, not {len(entry)}")
        for key, text in entry.items():
            if key in together:
                notes.wrong(where, f"label {shown(key)} is given twice")
            together[key] = text
    return read_labels(together, path, notes)


def demo_selector(value: object, path: str, notes: Validator) -> Selector:
    """A selector written as plain labels."""
    if isinstance(value, dict) and any(isinstance(value.get(key), (dict, list)) for key in _NOT_LABELS):
        notes.wrong(path, f"{DEMO_VERSION} selects by plain labels; {TODAY_VERSION} has {' and '.join(_NOT_LABELS)}")
        return EVERYTHING
    return Selector.of(demo_labels(value, path, notes))


def read_romana_policy(
    document: Mapping[str, object], labels: Labels, notes: Validator, *, namespace: str, name: str
) -> RomanaPolicy:
    """The policy in `document` with these `labels`, as far as it can be read; `notes` say what could not."""
    demo = document.get("apiVersion") == DEMO_VERSION
    spec = notes.mapping(document.get("spec"), "spec", ("podSelector", "allowIncoming"))
    selector: ReadSelector = demo_selector if demo else read_selector
    if spec.get("podSelector") is None:
        notes.wrong("spec.podSelector", "is required ({} selects all pods of the tenant in the namespace)")
    rules, path = spec.get("allowIncoming"), "spec.allowIncoming"
    if demo and document.get("allowIncoming") is not None:
        if rules is not None:
            notes.wrong("allowIncoming", "stands both in spec and beside it")
        rules, path = document["allowIncoming"], "allowIncoming"
    return RomanaPolicy(
        namespace=namespace,
        name=name,
        labels=labels,
        selector=selector(spec.get("podSelector"), "spec.podSelector", notes),
        rules=tuple(_rules(rules, path, notes, selector)),
    )


def check_tenant(policy: RomanaPolicy, settings: Settings, notes: Validator) -> None:
    """Note that the policy names no tenant, where its own label has to."""
    if settings.tenant_source is TenantSource.POD_LABEL and not policy.labels.get(settings.tenant_key):
        notes.wrong("metadata.labels", f"has no label {shown(settings.tenant_key)}, which names the policy's tenant")


def isolating(policy: RomanaPolicy, settings: Settings, notes: Validator) -> Policy:
    """What stands in for an invalid `policy`: it isolates what it selects for ingress and allows nothing.

    A selector that cannot be read selects the whole namespace. Without a tenant of its own it has to
    speak for every tenant's pods, which only a Kubernetes policy can say; no other object has its name.
    """
    unread = notes.names("spec") or notes.concerns("spec.podSelector")
    selector = EVERYTHING if unread else policy.selector
    by_label = settings.tenant_source is TenantSource.POD_LABEL
    if by_label and (notes.concerns("metadata.labels") or not policy.labels.get(settings.tenant_key)):
        name, ingress = f"romana.io/{policy.name}", frozenset({Direction.INGRESS})
        return KubernetesPolicy(policy.namespace, name, selector=selector, directions=ingress)
    return RomanaPolicy(policy.namespace, policy.name, labels=policy.labels, selector=selector)


def _rules(value: object, path: str, notes: Validator, selector: ReadSelector) -> Iterator[RomanaRule]:
    for where, entry in notes.entries_of(value, path, ("toPorts", "from")):
        ports = [
            read_port(port, at, notes)
            for at, port in notes.entries_of(_ports(entry.get("toPorts")), f"{where}.toPorts", ("port", "protocol"))
        ]
        sources = [
            _source(source, at, notes, selector)
            for at, source in notes.entries_of(entry.get("from"), f"{where}.from", ("pods",))
        ]
        yield RomanaRule(sources=tuple(sources), ports=tuple(ports))


def _ports(value: object) -> object:
    """`toPorts`, where one port may stand without the list around it."""
    return [value] if isinstance(value, dict) else value


def _source(entry: Mapping[str, object], path: str, notes: Validator, selector: ReadSelector) -> Selector:
    pods = entry.get("pods")
    if pods is None:
        notes.doubtful(path, "names no pods and so matches nothing (an absent from matches any source)")
        return NOTHING
    return selector(pods, f"{path}.pods", notes)
