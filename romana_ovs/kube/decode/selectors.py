"""Label selectors and policy ports as they stand in manifests, decoded.

Sources: Kubernetes meta/v1 LabelSelector; networking.k8s.io/v1 NetworkPolicyPort.
"""

from __future__ import annotations

from collections.abc import Mapping

from romana_ovs.kube.decode.labels import read_labels
from romana_ovs.kube.decode.validation import Validator
from romana_ovs.model.labels import EVERYTHING, Operator, Requirement, Selector
from romana_ovs.model.objects import PolicyPort, Protocol
from romana_ovs.model.syntax import key_fault, port_name_fault, shown, value_fault

MAX_PORT = 65535

NOTHING = Selector((Requirement("romana.io/nothing", Operator.IN, frozenset()),))
"""Selects no pod, whatever its labels: what an empty peer of a Romana policy means."""

_SELECTOR = ("matchLabels", "matchExpressions")
_OPERATORS = {operator.value: operator for operator in Operator}
_PROTOCOLS = {protocol.name: protocol for protocol in Protocol}


def read_selector(value: object, path: str, notes: Validator) -> Selector:
    """A LabelSelector; null and `{}` select everything (whoever tells the two apart asks before calling)."""
    fields = notes.mapping(value, path, _SELECTOR, hint=" (labels stand in matchLabels)")
    exact = Selector.of(read_labels(fields.get("matchLabels"), f"{path}.matchLabels", notes))
    expressions = [
        requirement
        for where, entry in notes.entries_of(
            fields.get("matchExpressions"), f"{path}.matchExpressions", ("key", "operator", "values")
        )
        if (requirement := _requirement(entry, where, notes)) is not None
    ]
    requirements = (*exact.requirements, *expressions)
    return Selector(requirements) if requirements else EVERYTHING


def _requirement(entry: Mapping[str, object], path: str, notes: Validator) -> Requirement | None:
    key = notes.text(entry.get("key"), f"{path}.key")
    if fault := key_fault(key) if key else "a label key is required":
        notes.wrong(f"{path}.key", fault)
    name = entry.get("operator")
    operator = _OPERATORS.get(name) if isinstance(name, str) else None
    if operator is None:
        notes.wrong(f"{path}.operator", f"{shown(name)} is none of {', '.join(_OPERATORS)}")
        return None
    values = [
        notes.text(value, f"{path}.values[{index}]")
        for index, value in enumerate(notes.listing(entry.get("values"), f"{path}.values"))
    ]
    if operator in (Operator.IN, Operator.NOT_IN):
        if not values:
            notes.wrong(f"{path}.values", f"operator {operator.value} needs at least one value")
    elif values:
        notes.wrong(f"{path}.values", f"operator {operator.value} takes no values")
    for value in values:
        if fault := value_fault(value):
            notes.wrong(f"{path}.values", fault)
    return Requirement(key, operator, frozenset(values))


def read_protocol(value: object, path: str, notes: Validator) -> Protocol:
    """A protocol by its name in capitals; absent is TCP."""
    if value is None:
        return Protocol.TCP
    found = _PROTOCOLS.get(value) if isinstance(value, str) else None
    if found is None:
        notes.wrong(path, f"{shown(value)} is none of {', '.join(_PROTOCOLS)}")
        return Protocol.TCP
    return found


def read_port(entry: Mapping[str, object], path: str, notes: Validator) -> PolicyPort:
    """One entry of a policy's ports: absent `port` is every port of the protocol, absent `protocol` TCP."""
    protocol = read_protocol(entry.get("protocol"), f"{path}.protocol", notes)
    port = entry.get("port")
    number: int | str | None
    if isinstance(port, str):
        number = port
        if fault := port_name_fault(port):
            notes.wrong(f"{path}.port", fault)
    else:
        number = notes.whole(port, f"{path}.port", low=1, high=MAX_PORT)
    end = notes.whole(entry.get("endPort"), f"{path}.endPort", low=1, high=MAX_PORT)
    if end is not None:
        if not isinstance(port, int):
            notes.wrong(f"{path}.endPort", "needs a numeric port beside it")
        elif isinstance(number, int) and end < number:
            notes.wrong(f"{path}.endPort", f"{end} is below port {number}")
    return PolicyPort(protocol, number, end)
