"""Finds misspelt and misplaced fields of pods, workloads and Services, which strict validation refuses.

Only fields that decide something here are looked for: other unknown ones may be of a newer Kubernetes. Sources:
Kubernetes core/v1 PodSpec, Container, ContainerPort, PodTemplateSpec, ServiceSpec, ServicePort, and the specs of
workloads in apps/v1 and batch/v1, as of 1.34; kubectl apply --validate=strict, its default since 1.25.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from romana_ovs.kube.decode.validation import Validator
from romana_ovs.model.syntax import plain

_SIMILARITY = 0.8
"""How similar (difflib ratio) a field must be to a known one to count as a misspelling of it."""


@dataclass(frozen=True, slots=True)
class FieldNames:
    """The fields of an object of the API: those that decide something here, and the others."""

    deciding: frozenset[str]
    others: frozenset[str]


def _names(deciding: str, others: str = "") -> FieldNames:
    return FieldNames(frozenset(deciding.split()), frozenset(others.split()))


POD_SPEC = _names(
    "affinity containers hostNetwork initContainers nodeName nodeSelector tolerations",
    "activeDeadlineSeconds automountServiceAccountToken dnsConfig dnsPolicy enableServiceLinks ephemeralContainers"
    " hostAliases hostIPC hostPID hostUsers hostname hostnameOverride imagePullSecrets os overhead preemptionPolicy"
    " priority priorityClassName readinessGates resourceClaims resources restartPolicy runtimeClassName schedulerName"
    " schedulingGates securityContext serviceAccount serviceAccountName setHostnameAsFQDN shareProcessNamespace"
    " subdomain terminationGracePeriodSeconds topologySpreadConstraints volumes",
)
CONTAINER = _names(
    "ports restartPolicy",
    "args command env envFrom image imagePullPolicy lifecycle livenessProbe name readinessProbe resizePolicy resources"
    " restartPolicyRules securityContext startupProbe stdin stdinOnce terminationMessagePath terminationMessagePolicy"
    " tty volumeDevices volumeMounts workingDir",
)
CONTAINER_PORT = _names("containerPort name protocol", "hostIP hostPort")
POD_TEMPLATE = _names("metadata spec", "apiVersion kind")
TEMPLATE_METADATA = _names(
    "labels",
    "annotations creationTimestamp deletionGracePeriodSeconds deletionTimestamp finalizers generateName generation"
    " managedFields name namespace ownerReferences resourceVersion selfLink uid",
)
SERVICE_SPEC = _names(
    "clusterIP clusterIPs externalIPs externalName ports selector type",
    "allocateLoadBalancerNodePorts externalTrafficPolicy healthCheckNodePort internalTrafficPolicy ipFamilies"
    " ipFamilyPolicy ipFamily loadBalancerClass loadBalancerIP loadBalancerSourceRanges publishNotReadyAddresses"
    " sessionAffinity sessionAffinityConfig topologyKeys trafficDistribution",
)
SERVICE_PORT = _names("name port protocol targetPort", "appProtocol nodePort")
_JOB = _names(
    "completionMode completions managedBy manualSelector parallelism selector suspend template",
    "activeDeadlineSeconds backoffLimit backoffLimitPerIndex maxFailedIndexes podFailurePolicy podReplacementPolicy"
    " successPolicy ttlSecondsAfterFinished",
)
WORKLOAD_SPECS: Mapping[str, FieldNames] = {
    "Deployment": _names(
        "paused replicas selector template",
        "minReadySeconds progressDeadlineSeconds revisionHistoryLimit rollbackTo strategy",
    ),
    "StatefulSet": _names(
        "ordinals replicas selector template",
        "minReadySeconds persistentVolumeClaimRetentionPolicy podManagementPolicy revisionHistoryLimit serviceName"
        " updateStrategy volumeClaimTemplates",
    ),
    "ReplicaSet": _names("replicas selector template", "minReadySeconds"),
    "ReplicationController": _names("replicas selector template", "minReadySeconds"),
    "DaemonSet": _names("selector template", "minReadySeconds revisionHistoryLimit updateStrategy templateGeneration"),
    "Job": _JOB,
    "CronJob": _JOB,
}
"""The fields of the part of a workload that has the pod template: of a CronJob those of its Jobs."""
CRON_JOB_SPEC = _names(
    "jobTemplate suspend",
    "concurrencyPolicy failedJobsHistoryLimit schedule startingDeadlineSeconds successfulJobsHistoryLimit timeZone",
)
_MISPLACED = frozenset().union(
    *(names.deciding for names in (POD_SPEC, POD_TEMPLATE, TEMPLATE_METADATA, CRON_JOB_SPEC, *WORKLOAD_SPECS.values()))
)
"""Fields that decide something where they belong, which is not where they stand."""


def check_names(fields: Mapping[str, object], names: FieldNames, path: str, validator: Validator) -> None:
    """Record a warning for each unknown field that misspells one of `names`, or belongs to another object."""
    for key in fields:
        if key in names.deciding or key in names.others:
            continue
        meant = _meant(key, names)
        if meant or key in _MISPLACED:
            advice = f"write {meant}?" if meant else "it belongs elsewhere"
            validator.warning(f"{path}.{plain(key)}", f"unknown field, which kubectl apply refuses; {advice}")


def _meant(key: str, names: FieldNames) -> str:
    """The field that `key` seems to misspell, and that is deciding; empty when there is none."""
    lowered = {name.lower(): name for name in (*names.others, *names.deciding)}
    near = difflib.get_close_matches(key.lower(), lowered, n=1, cutoff=_SIMILARITY)
    meant = lowered[near[0]] if near else ""
    return meant if meant in names.deciding else ""
