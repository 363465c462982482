"""Checks the types of fields that the network does not need, as the API server refuses an object with a wrong one.

Only where unquoted YAML often has a wrong type: annotations, environment variables, commands and arguments. Sources:
Kubernetes meta/v1 ObjectMeta and core/v1 Container, EnvVar, PodSpec.
"""

from __future__ import annotations

from collections.abc import Mapping

from romana_ovs.kube.decode.validation import Validator
from romana_ovs.model.syntax import plain

_CONTAINER = ("name", "image", "imagePullPolicy", "restartPolicy", "workingDir")
_POD_SPEC = ("dnsPolicy", "hostname", "priorityClassName", "restartPolicy", "schedulerName", "serviceAccountName")


def check_annotations(metadata: Mapping[str, object], path: str, validator: Validator) -> None:
    """Record an error for each annotation that is no string."""
    _check_map(metadata.get("annotations"), f"{path}.annotations", validator)


def check_pod_spec(spec: Mapping[str, object], path: str, validator: Validator) -> None:
    """Record an error for each text of a pod's spec, beside its containers, that is no string."""
    _check_strings(spec, _POD_SPEC, path, validator)
    _check_map(spec.get("nodeSelector"), f"{path}.nodeSelector", validator)


def check_container(container: Mapping[str, object], path: str, validator: Validator) -> None:
    """Record an error for each text of a container that is no string."""
    _check_strings(container, _CONTAINER, path, validator)
    for field in ("command", "args"):
        for index, word in enumerate(validator.sequence(container.get(field), f"{path}.{field}")):
            if type(word) is not str:
                validator.string(word, f"{path}.{field}[{index}]")
    if container.get("env") is not None:
        for where, variable in validator.mappings_in(container["env"], f"{path}.env"):
            _check_strings(variable, ("name", "value"), where, validator)


def _check_map(value: object, path: str, validator: Validator) -> None:
    for key, text in validator.mapping(value, path).items():
        if type(text) is not str:
            validator.string(text, f"{path}.{plain(key)}")


def _check_strings(fields: Mapping[str, object], names: tuple[str, ...], path: str, validator: Validator) -> None:
    for name in names:
        value = fields.get(name)
        if value is not None and type(value) is not str:
            validator.string(value, f"{path}.{name}")
