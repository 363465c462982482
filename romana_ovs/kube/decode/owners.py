"""Decodes ownerReferences: which object controls another.

Source: Kubernetes meta/v1 OwnerReference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from romana_ovs.kube.decode.validation import Validator


@dataclass(frozen=True, slots=True)
class ControllerRef:
    """The entry of ownerReferences that controls the object: an object of the same namespace (or of none).

    `group` is the API group, empty for core kinds, and None where the entry has no apiVersion; `uid` may be empty.
    """

    kind: str
    name: str
    group: str | None = None
    uid: str = ""


def read_controller_ref(metadata: Mapping[str, object], validator: Validator) -> ControllerRef | None:
    """The controlling owner in `metadata`, None without one (apimachinery `metav1.GetControllerOf`).

    An owner with `controller: false` is only a matter of garbage collection. Where no entry has the field, as in
    manifests written by hand, the first one counts.
    """
    path = "metadata.ownerReferences"
    references = []
    for where, entry in validator.mappings_in(metadata.get("ownerReferences"), path):
        version = validator.string(entry.get("apiVersion"), f"{where}.apiVersion")
        reference = ControllerRef(
            kind=validator.string(entry.get("kind"), f"{where}.kind"),
            name=validator.string(entry.get("name"), f"{where}.name"),
            group=version.rpartition("/")[0] if version else None,
            uid=validator.string(entry.get("uid"), f"{where}.uid"),
        )
        controls = validator.boolean(entry.get("controller"), f"{where}.controller")
        references.append((reference, controls, entry.get("controller") is not None))
    for reference, controls, _ in references:
        if controls:
            return reference
    return references[0][0] if references and not any(known for _, _, known in references) else None
