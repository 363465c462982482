"""Decodes label selectors and ports of policies.

Sources: Kubernetes meta/v1 LabelSelector; networking.k8s.io/v1 NetworkPolicyPort.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from romana_ovs.kube.decode.labels import read_labels
from romana_ovs.kube.decode.validation import Validator
from romana_ovs.model.labels import EVERYTHING, Operator, Requirement, Selector
from romana_ovs.model.objects import PolicyPort, Protocol
from romana_ovs.model.syntax import key_fault, port_name_fault, shown, value_fault

MAX_PORT = 65535

NOTHING = Selector((Requirement("romana.io/nothing", Operator.IN, frozenset()),))
"""Selects no pod, whatever its labels: the meaning of an empty peer in a policy of romana.io."""

_PORT_RANGE = re.compile(r"([0-9]{1,5})[-:]([0-9]{1,5})")
_PORT_OF_PROTOCOL = re.compile(r"([0-9]{1,5})/(tcp|udp|sctp)", re.IGNORECASE)
_EVERY_PORT = ("", "*", "-1", "0-65535", "1-65535")
_SELECTOR = ("matchLabels", "matchExpressions")
_OPERATORS = {operator.value: operator for operator in Operator}
_PROTOCOLS = {protocol.name: protocol for protocol in Protocol}


def read_selector(value: object, path: str, validator: Validator) -> Selector:
    """A LabelSelector; null and `{}` select everything (callers for whom they differ check that first)."""
    fields = validator.mapping(value, path, _SELECTOR, hint=" (labels stand in matchLabels)")
    exact = Selector.of(read_labels(fields.get("matchLabels"), f"{path}.matchLabels", validator))
    expressions = [
        requirement
        for where, entry in validator.mappings_in(
            fields.get("matchExpressions"), f"{path}.matchExpressions", ("key", "operator", "values")
        )
        if (requirement := _requirement(entry, where, validator)) is not None
    ]
    requirements = (*exact.requirements, *expressions)
    return Selector(requirements) if requirements else EVERYTHING


def _requirement(entry: Mapping[str, object], path: str, validator: Validator) -> Requirement | None:
    key = validator.string(entry.get("key"), f"{path}.key")
    if fault := key_fault(key) if key else "a label key is required":
        validator.error(f"{path}.key", fault)
    name = entry.get("operator")
    operator = _OPERATORS.get(name) if isinstance(name, str) else None
    if operator is None:
        validator.error(f"{path}.operator", f"{shown(name)} is none of {', '.join(_OPERATORS)}")
        return None
    values = [
        validator.string(value, f"{path}.values[{index}]")
        for index, value in enumerate(validator.sequence(entry.get("values"), f"{path}.values"))
    ]
    if operator in (Operator.IN, Operator.NOT_IN):
        if not values:
            validator.error(f"{path}.values", f"operator {operator.value} needs at least one value")
    elif values:
        validator.error(f"{path}.values", f"operator {operator.value} takes no values")
    for value in values:
        if fault := value_fault(value):
            validator.error(f"{path}.values", fault)
    return Requirement(key, operator, frozenset(values))


def read_protocol(value: object, path: str, validator: Validator) -> Protocol:
    """A protocol by its name in capitals; TCP when absent."""
    if value is None:
        return Protocol.TCP
    protocol = _PROTOCOLS.get(value) if isinstance(value, str) else None
    if protocol is None:
        validator.error(path, f"{shown(value)} is none of {', '.join(_PROTOCOLS)}")
        return Protocol.TCP
    return protocol


def _port_hint(text: str) -> str:
    """What a text that is no port name probably means, written as a policy has it; empty when that is not known."""
    if text in _EVERY_PORT:
        return " (for every port leave out port)"
    if match := _PORT_RANGE.fullmatch(text):
        return f" (a range is port: {match[1]} with endPort: {match[2]})"
    match = _PORT_OF_PROTOCOL.fullmatch(text)
    return f" (write port: {match[1]} with protocol: {match[2].upper()})" if match else ""


def read_port(entry: Mapping[str, object], path: str, validator: Validator) -> PolicyPort:
    """One port entry of a policy: without `port` all ports of the protocol, without `protocol` TCP."""
    protocol = read_protocol(entry.get("protocol"), f"{path}.protocol", validator)
    port = entry.get("port")
    number: int | str | None
    if isinstance(port, str):
        number = port
        if fault := port_name_fault(port):
            validator.error(f"{path}.port", fault + _port_hint(port))
    else:
        number = validator.integer(port, f"{path}.port", low=1, high=MAX_PORT)
    end = validator.integer(entry.get("endPort"), f"{path}.endPort", low=1, high=MAX_PORT)
    if end is not None:
        if not isinstance(port, int):
            validator.error(f"{path}.endPort", "needs a numeric port beside it")
        elif isinstance(number, int) and end < number:
            validator.error(f"{path}.endPort", f"{end} is below port {number}")
    return PolicyPort(protocol, number, end)
