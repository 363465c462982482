"""Labels as they stand in manifests, decoded."""

from __future__ import annotations

from collections.abc import Mapping

from romana_ovs.kube.decode.validation import Validator
from romana_ovs.model.labels import NO_LABELS, Labels
from romana_ovs.model.syntax import key_fault, plain, value_fault


def read_labels(value: object, path: str, notes: Validator) -> Labels:
    """`value` as labels; what is wrong with them is noted and left out. A null value is an empty string."""
    fields = notes.mapping(value, path)
    if not fields:
        return NO_LABELS
    return Labels(dict(_sound_labels(fields, path, notes)))


def _sound_labels(fields: Mapping[str, object], path: str, notes: Validator) -> list[tuple[str, str]]:
    sound = []
    for key, value in fields.items():
        if value is None:
            value = ""
        if not isinstance(value, str):
            notes.text(value, f"{path}.{plain(key)}")
            continue
        fault = key_fault(key) or value_fault(value)
        if fault:
            notes.wrong(path, fault)
        else:
            sound.append((key, value))
    return sound
