"""The CustomResourceDefinition that today stands where the demonstration had a ThirdPartyResource.

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

from __future__ import annotations

Schema = dict[str, object]

TEXT: Schema = {"type": "string"}


def _object(properties: dict[str, Schema], *, required: tuple[str, ...] = ()) -> Schema:
    schema: Schema = {"type": "object", "properties": properties}
    return {**schema, "required": list(required)} if required else schema


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _selector() -> Schema:
    expression = _object(
        {
            "key": TEXT,
            "operator": {"type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"]},
            "values": _list(TEXT),
        },
        required=("key", "operator"),
    )
    labels: Schema = {"type": "object", "additionalProperties": TEXT}
    return _object({"matchLabels": labels, "matchExpressions": _list(expression)})


def _port() -> Schema:
    return _object(
        {
            "port": {
                "x-kubernetes-int-or-string": True,
                "description": "Number or name; absent: every port of the protocol.",
            },
            "protocol": {"type": "string", "enum": ["TCP", "UDP", "SCTP"], "default": "TCP"},
        }
    )


def _policy() -> Schema:
    rule = _object(
        {
            "toPorts": {**_list(_port()), "description": "Absent: every port of every protocol."},
            "from": {
                **_list(_object({"pods": _selector()}, required=("pods",))),
                "description": "Pods of the same tenant, in any namespace. Absent: any source.",
            },
        }
    )
    spec = _object(
        {
            "podSelector": _selector(),
            "allowIncoming": {**_list(rule), "description": "Absent or empty: nothing is allowed."},
        },
        required=("podSelector",),
    )
    return _object({"apiVersion": TEXT, "kind": TEXT, "metadata": {"type": "object"}, "spec": spec}, required=("spec",))


def policy_definition() -> Schema:
    """The CustomResourceDefinition of `networkpolicies.romana.io`, version v1, with a structural schema."""
    version: Schema = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": _policy()}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "networkpolicies.romana.io"},
        "spec": {
            "group": "romana.io",
            "scope": "Namespaced",
            "names": {
                "kind": "NetworkPolicy",
                "listKind": "NetworkPolicyList",
                "plural": "networkpolicies",
                "singular": "networkpolicy",
            },
            "versions": [version],
        },
    }
