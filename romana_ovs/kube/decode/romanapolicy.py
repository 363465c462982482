"""Decodes NetworkPolicy of romana.io: `romana.io/demo/v1` of the demonstration, and `romana.io/v1`.

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
CURRENT_VERSION = "romana.io/v1"

_NOT_LABELS = ("matchLabels", "matchExpressions")

ReadSelector = Callable[[object, str, Validator], Selector]


def demo_labels(value: object, path: str, validator: Validator) -> Labels:
    """Labels as a mapping, or as in the demonstration: a list of mappings with one key each."""
    if not isinstance(value, list):
        return read_labels(value, path, validator)
    together: dict[str, object] = {}
    for where, entry in validator.mappings_in(value, path):
        if len(entry) != 1:
            validator.error(where, f"must hold one label, not {len(entry)}")
        for key, text in entry.items():
            if key in together:
                validator.error(where, f"label {shown(key)} is given twice")
            together[key] = text
    return read_labels(together, path, validator)


def demo_selector(value: object, path: str, validator: Validator) -> Selector:
    """A selector written as plain labels."""
    if isinstance(value, dict) and any(isinstance(value.get(key), (dict, list)) for key in _NOT_LABELS):
        validator.error(
            path, f"{DEMO_VERSION} selects by plain labels; {CURRENT_VERSION} has {' and '.join(_NOT_LABELS)}"
        )
        return EVERYTHING
    return Selector.of(demo_labels(value, path, validator))


def read_romana_policy(
    document: Mapping[str, object], labels: Labels, validator: Validator, *, namespace: str, name: str
) -> RomanaPolicy:
    """The policy in `document` with these `labels`, as far as it is valid; `validator` records the errors."""
    demo = document.get("apiVersion") == DEMO_VERSION
    spec = validator.mapping(document.get("spec"), "spec", ("podSelector", "allowIncoming"))
    selector: ReadSelector = demo_selector if demo else read_selector
    if spec.get("podSelector") is None:
        validator.error("spec.podSelector", "is required ({} selects all pods of the tenant in the namespace)")
    rules, path = spec.get("allowIncoming"), "spec.allowIncoming"
    if demo and document.get("allowIncoming") is not None:
        if rules is not None:
            validator.error("allowIncoming", "stands both in spec and beside it")
        rules, path = document["allowIncoming"], "allowIncoming"
    return RomanaPolicy(
        namespace=namespace,
        name=name,
        labels=labels,
        selector=selector(spec.get("podSelector"), "spec.podSelector", validator),
        rules=tuple(_rules(rules, path, validator, selector)),
    )


def check_tenant(policy: RomanaPolicy, settings: Settings, validator: Validator) -> None:
    """Record an error when the policy has no tenant label although `tenant_source` asks for one."""
    if settings.tenant_source is TenantSource.POD_LABEL and not policy.labels.get(settings.tenant_key):
        validator.error(
            "metadata.labels", f"has no label {shown(settings.tenant_key)}, which names the policy's tenant"
        )


def isolating_fallback(policy: RomanaPolicy, settings: Settings, validator: Validator) -> Policy:
    """The fallback for an invalid `policy`: it isolates the pods that it selects for ingress, and allows nothing.

    A selector that cannot be read selects the whole namespace. Without a tenant it has to isolate pods of every
    tenant, which only a Kubernetes policy can express; no other object has its name.
    """
    unreadable = validator.has("spec") or validator.has_under("spec.podSelector")
    selector = EVERYTHING if unreadable else policy.selector
    by_label = settings.tenant_source is TenantSource.POD_LABEL
    if by_label and (validator.has_under("metadata.labels") or not policy.labels.get(settings.tenant_key)):
        name, ingress = f"romana.io/{policy.name}", frozenset({Direction.INGRESS})
        return KubernetesPolicy(policy.namespace, name, selector=selector, directions=ingress)
    return RomanaPolicy(policy.namespace, policy.name, labels=policy.labels, selector=selector)


def _rules(value: object, path: str, validator: Validator, selector: ReadSelector) -> Iterator[RomanaRule]:
    for where, entry in validator.mappings_in(value, path, ("toPorts", "from")):
        ports = [
            read_port(port, at, validator)
            for at, port in validator.mappings_in(
                _ports(entry.get("toPorts")), f"{where}.toPorts", ("port", "protocol")
            )
        ]
        sources = [
            _source(source, at, validator, selector)
            for at, source in validator.mappings_in(entry.get("from"), f"{where}.from", ("pods",))
        ]
        yield RomanaRule(sources=tuple(sources), ports=tuple(ports))


def _ports(value: object) -> object:
    """`toPorts`, where a single port needs no list around it."""
    return [value] if isinstance(value, dict) else value


def _source(entry: Mapping[str, object], path: str, validator: Validator, selector: ReadSelector) -> Selector:
    pods = entry.get("pods")
    if pods is None:
        validator.warning(path, "names no pods and so matches nothing (an absent from matches any source)")
        return NOTHING
    return selector(pods, f"{path}.pods", validator)
