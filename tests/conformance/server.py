"""What the API server and our loader say of the same NetworkPolicy."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from romana_ovs.kube.decode.objects import DecodedObject
from romana_ovs.kube.manifests.folder import read_bytes
from romana_ovs.model.objects import KubernetesPolicy
from romana_ovs.model.settings import Settings
from tests.conformance.specs import manifest
from tests.conformance.words import Manifest
from tests.support.raw_client import Client, Refused

DRY_RUN = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies?dryRun=All&fieldValidation=Strict"
_UNCLEAN = ("must not have bits set beyond the prefix", "must not have leading 0s", "must not have an IPv4-mapped")


@dataclass(frozen=True, slots=True)
class Verdict:
    """`answer` is the object as the API server would store it, None when it refuses it for `reason`."""

    answer: Manifest | None
    reason: str = ""


def asked(admin: Client, spec: object) -> Verdict:
    """What the API server says of a policy with this spec, which it does not keep; fields it does not know are errors.

    It is sent as kubectl sends it. Raises Refused for anything but a refusal of the object.
    """
    try:
        return Verdict(admin.request("POST", DRY_RUN, dict(manifest(as_kubectl_sends(spec)))))
    except Refused as error:
        if error.status not in (400, 422):
            raise
        return Verdict(None, error.message)


def as_kubectl_sends(value: object) -> object:
    """`value` with numbers as Go prints them: 80.0 in a file arrives as 80."""
    if isinstance(value, dict):
        return {key: as_kubectl_sends(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [as_kubectl_sends(entry) for entry in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def decoded(found: Manifest) -> DecodedObject:
    """What our loader makes of a manifest."""
    (item,) = read_bytes("tried.json", json.dumps(found).encode(), Settings()).objects
    return item


def meaning(item: DecodedObject, namespace: str = "default", name: str = "tried") -> KubernetesPolicy:
    """The policy of a valid item, as if it were of this namespace and name, whenever it was made."""
    assert isinstance(item.value, KubernetesPolicy), item.problems
    return replace(item.value, namespace=namespace, name=name, creation_timestamp="")


def difference(verdict: Verdict, item: DecodedObject) -> str:
    """In which known way our loader and the API server disagree; empty when they agree.

    - `nobody`: a peer that names nothing, which came to be by way of a CRD. We take it, and it matches nothing.
    - `unclean`: a CIDR that is not in its canonical form. Servers before 1.36 took those and today's keep what they
      have, so we take them; an IPv4 address that is written as one of IPv6 means no pod of IPv4.
    - `null`: an entry of a list that is null. The server takes it for an empty object, in `ingress` even for the rule
      that allows everything; we refuse it, and isolate.
    """
    if (verdict.answer is not None) == (item.value is not None):
        return ""
    words = [problem.reason for problem in item.problems]
    if verdict.answer is None:
        if "must specify a peer" in verdict.reason and any("names no peer" in each for each in words):
            return "nobody"
        return "unclean" if any(each in verdict.reason for each in _UNCLEAN) else "unknown"
    return "null" if any("not null" in each for each in words) else "unknown"
