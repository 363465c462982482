"""Compares two manifests of the same object: whether they say the same, apart from what the API server sets."""

from __future__ import annotations

from collections.abc import Mapping

from romana_ovs.model.syntax import plain

_SERVER_METADATA = frozenset({"creationTimestamp", "generation", "managedFields", "resourceVersion", "selfLink"})
"""Fields of metadata that the API server sets, and that mean nothing here."""
_CLIENT_ANNOTATIONS = frozenset({"kubectl.kubernetes.io/last-applied-configuration"})
_OPTIONAL = ("status", "metadata.uid")
"""Fields that only an object of an API server has: compared when both have them."""
_MISSING = object()


def first_difference(one: Mapping[str, object], other: Mapping[str, object]) -> str | None:
    """The path of a field in which two manifests of one object differ, None when they are the same.

    Absent, null and empty status are the same, as are an absent namespace and `default`.
    """
    left, right = _comparable(one), _comparable(other)
    for field in _OPTIONAL:
        if field not in left or field not in right:
            left.pop(field, None)
            right.pop(field, None)
    try:
        return _difference(left, right)
    except RecursionError:
        # Deeper than any object of Kubernetes: what is so deep stands in its spec.
        return "spec"


def _comparable(manifest: Mapping[str, object]) -> dict[str, object]:
    """The fields that count, with `metadata.uid` as one of its own."""
    fields = {key: value for key, value in manifest.items() if value is not None and key != "metadata"}
    if not fields.get("status"):
        fields.pop("status", None)
    metadata = manifest.get("metadata")
    if not isinstance(metadata, dict):
        return {**fields, "metadata": metadata}
    kept = {key: value for key, value in metadata.items() if value is not None and key not in _SERVER_METADATA}
    if "uid" in kept:
        fields["metadata.uid"] = kept.pop("uid")
    kept.setdefault("namespace", "default")
    for key in ("annotations", "labels"):
        if isinstance(values := kept.get(key, {}), dict):
            kept[key] = {name: value for name, value in values.items() if name not in _CLIENT_ANNOTATIONS}
    return {**fields, "metadata": kept}


def _difference(left: object, right: object) -> str | None:
    """The path of the first difference, empty when the values themselves differ, None when they are equal."""
    if left is right:
        return None
    if isinstance(left, dict) and isinstance(right, dict):
        for key in dict.fromkeys([*left, *right]):
            inner = _difference(left.get(key, _MISSING), right.get(key, _MISSING))
            if inner is not None:
                return plain(key) + (f".{inner}" if inner and not inner.startswith("[") else inner)
        return None
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for index, pair in enumerate(zip(left, right, strict=True)):
            inner = _difference(*pair)
            if inner is not None:
                return f"[{index}]" + (f".{inner}" if inner and not inner.startswith("[") else inner)
        return None
    return None if type(left) is type(right) and left == right else ""
