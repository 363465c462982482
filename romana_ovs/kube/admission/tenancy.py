"""Whether a namespace may hold pods of the tenant that a label names: what admission does, checked again (pure).

With `tenant_source = pod-label:KEY`, whoever may make pods could choose their tenant. So a namespace says whose pods it
may hold, by labels that only those change who may (etc/kubernetes/admission.yaml, optional/tenant-pod-label.yaml):

    tenants.romana.io/t1: allowed

This holds for objects of an API server, whether or not admission was there when they were made. The folder of
manifests of a demonstration is one person's own, and is not asked.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace

from romana_ovs.kube.decode.romanapolicy import isolating
from romana_ovs.kube.decode.validation import Validator
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import Pod, Policy, RomanaPolicy
from romana_ovs.model.settings import Isolation, Settings, TenantSource
from romana_ovs.model.syntax import LABEL_LENGTH, shown, subdomain_fault

PREFIX = "tenants.romana.io/"
ALLOWED = "allowed"
"""The only value of such a label that means anything, so that `no` or `false` does not allow."""


def bound_pod(pod: Pod, namespace_labels: Mapping[str, str], settings: Settings) -> tuple[Pod | None, str]:
    """(the pod as it counts, why it is not as it stands): `pod` itself and "" where its namespace may hold it.

    Otherwise it has no tenant: its label is empty, as if nobody had named one, and it talks with its own node only.
    Where tenants do not separate (isolation none) that would close nothing, and might take it from a policy that
    isolates it; so it is None there, to be absent like a pod that is invalid.
    """
    reason = _fault(pod.labels, namespace_labels, settings, pod.namespace)
    if not reason:
        return pod, ""
    if settings.isolation is Isolation.NONE:
        return None, reason
    return replace(pod, labels=Labels({**pod.labels, settings.tenant_key: ""})), reason


def bound_policy(policy: Policy, namespace_labels: Mapping[str, str], settings: Settings) -> tuple[Policy, str]:
    """(the policy as it counts, why it is not as it stands): `policy` itself and "" where its namespace may hold it.

    Otherwise it is what stands in for an invalid policy: it isolates what it selects, and allows nothing. Kubernetes'
    own policies name no tenant.
    """
    if not isinstance(policy, RomanaPolicy):
        return policy, ""
    reason = _fault(policy.labels, namespace_labels, settings, policy.namespace)
    if not reason:
        return policy, ""
    notes = Validator()
    notes.wrong("metadata.labels", reason)
    return isolating(policy, settings, notes), reason


def _fault(labels: Mapping[str, str], namespace_labels: Mapping[str, str], settings: Settings, namespace: str) -> str:
    """Why nothing in the namespace may name the tenant that `labels` name; empty when it may, or none is named."""
    if settings.tenant_source is not TenantSource.POD_LABEL:
        return ""
    tenant = labels.get(settings.tenant_key, "")
    if not tenant or namespace_labels.get(PREFIX + tenant) == ALLOWED:
        return ""
    return (
        f"label {shown(settings.tenant_key)} names tenant {shown(tenant)}, but namespace {namespace} has no label "
        f"{PREFIX}{tenant}={ALLOWED}"
    )


def tenant_object_name(tenant: str) -> str:
    """The name of the Tenant object of a tenant: the same where an object can have it, else like it and distinct.

    Labels may hold capitals and underscores, names of objects may not (crd-tenants.yaml asks for the same). What stands
    in for one is longer than any label value or namespace, so no other tenant's true name can be the same.
    """
    if not subdomain_fault(tenant):
        return tenant
    alike = re.sub(r"[^a-z0-9]+", "-", tenant.lower()).strip("-")[:LABEL_LENGTH]
    return f"{alike}-{hashlib.sha256(tenant.encode()).hexdigest()}".lstrip("-")
