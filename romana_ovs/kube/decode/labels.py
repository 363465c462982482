"""Decodes labels."""

from __future__ import annotations

from collections.abc import Mapping

from romana_ovs.kube.decode.validation import Validator
from romana_ovs.model.labels import NO_LABELS, Labels
from romana_ovs.model.syntax import key_fault, plain, value_fault


def read_labels(value: object, path: str, validator: Validator) -> Labels:
    """`value` as labels; invalid ones are errors and left out. A null value is an empty string."""
    fields = validator.mapping(value, path)
    if not fields:
        return NO_LABELS
    return Labels(dict(_valid_labels(fields, path, validator)))


def _valid_labels(fields: Mapping[str, object], path: str, validator: Validator) -> list[tuple[str, str]]:
    valid = []
    for key, value in fields.items():
        if value is None:
            value = ""
        if not isinstance(value, str):
            validator.string(value, f"{path}.{plain(key)}")
            continue
        fault = key_fault(key) or value_fault(value)
        if fault:
            validator.error(path, fault)
        else:
            valid.append((key, value))
    return valid
