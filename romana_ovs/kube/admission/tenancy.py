"""Checks whether a namespace may hold pods of the tenant that a label names, as the admission policies do.

With `tenant_source = pod-label:KEY`, anyone who may create pods could choose their tenant. So a namespace has labels
for the tenants that it may hold, and only authorized users may change these labels (etc/kubernetes/admission.yaml,
optional/tenant-pod-label.yaml):

    tenants.romana.io/t1: allowed

It is checked again here for objects of an API server, because they may be older than the admission policies. Folders
of manifests are not checked: who writes there owns them all.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace

from romana_ovs.kube.decode.romanapolicy import isolating_fallback
from romana_ovs.kube.decode.validation import Validator
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import Pod, Policy, RomanaPolicy
from romana_ovs.model.settings import Isolation, Settings, TenantSource
from romana_ovs.model.syntax import LABEL_LENGTH, shown, subdomain_fault

PREFIX = "tenants.romana.io/"
ALLOWED = "allowed"
"""The only value that allows a tenant; `no` or `false` do not."""


def admit_pod(pod: Pod, namespace_labels: Mapping[str, str], settings: Settings) -> tuple[Pod | None, str]:
    """(the effective pod, the reason why it differs): `pod` itself and "" where its namespace may hold it.

    Otherwise it has no tenant: its label is empty, and it can connect to its own node only. With isolation `none` that
    would close nothing, and might remove it from a policy that isolates it; so it is None there, as an invalid pod.
    """
    reason = _fault(pod.labels, namespace_labels, settings, pod.namespace)
    if not reason:
        return pod, ""
    if settings.isolation is Isolation.NONE:
        return None, reason
    return replace(pod, labels=Labels({**pod.labels, settings.tenant_key: ""})), reason


def admit_policy(policy: Policy, namespace_labels: Mapping[str, str], settings: Settings) -> tuple[Policy, str]:
    """(the effective policy, the reason why it differs): `policy` itself and "" where its namespace may hold it.

    Otherwise it is the fallback of an invalid policy: it isolates the pods that it selects, and allows nothing.
    Policies of networking.k8s.io name no tenant.
    """
    if not isinstance(policy, RomanaPolicy):
        return policy, ""
    reason = _fault(policy.labels, namespace_labels, settings, policy.namespace)
    if not reason:
        return policy, ""
    validator = Validator()
    validator.error("metadata.labels", reason)
    return isolating_fallback(policy, settings, validator), reason


def _fault(labels: Mapping[str, str], namespace_labels: Mapping[str, str], settings: Settings, namespace: str) -> str:
    """Why objects in the namespace may not have the tenant of `labels`; empty when they may, or there is none."""
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
    """The name of the Tenant object: the tenant's name where that is a valid object name, else similar and unique.

    Label values may have capitals and underscores, object names may not (crd-tenants.yaml checks the same). The
    replacement is longer than any label value or namespace, so it is never the name of another tenant.
    """
    if not subdomain_fault(tenant):
        return tenant
    similar = re.sub(r"[^a-z0-9]+", "-", tenant.lower()).strip("-")[:LABEL_LENGTH]
    return f"{similar}-{hashlib.sha256(tenant.encode()).hexdigest()}".lstrip("-")
