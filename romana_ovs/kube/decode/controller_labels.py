"""Names the labels that workload controllers add to their pods.

Sources: https://kubernetes.io/docs/reference/labels-annotations-taints/; Kubernetes' pkg/controller (deployment,
statefulset, daemon, job) and pkg/registry/batch/job/strategy.go.
"""

from __future__ import annotations

from collections.abc import Mapping

JOB_NAME = ("batch.kubernetes.io/job-name", "job-name")
JOB_UID = ("batch.kubernetes.io/controller-uid", "controller-uid")
COMPLETION_INDEX = "batch.kubernetes.io/job-completion-index"
POD_INDEX = "apps.kubernetes.io/pod-index"
POD_NAME = "statefulset.kubernetes.io/pod-name"
TEMPLATE_HASH = "pod-template-hash"
REVISION_HASH = "controller-revision-hash"
TEMPLATE_GENERATION = "pod-template-generation"
ROLLOUT_HASH = "rollouts-pod-template-hash"

UNKNOWN = "unknown"
"""Stands for values that exist in a cluster only: hashes and UIDs. It is never one of them: hashes have no vowels
(apimachinery `rand.SafeEncodeString`), UIDs are longer."""

VALUES_OF_A_CLUSTER = frozenset({*JOB_UID, TEMPLATE_HASH, REVISION_HASH, ROLLOUT_HASH})
"""Labels whose values are `UNKNOWN` in a folder, unless objects of a cluster in it have them."""

ADDED_LABELS = frozenset({*JOB_NAME, COMPLETION_INDEX, POD_INDEX, POD_NAME, TEMPLATE_GENERATION, *VALUES_OF_A_CLUSTER})
"""All labels that controllers add."""


def is_made_up(key: str, value: str) -> bool:
    """Whether a pod has this label only because its value in a cluster is not known."""
    return value == UNKNOWN and key in VALUES_OF_A_CLUSTER or key in JOB_NAME and value.endswith(f"-{UNKNOWN}")


def job_labels(name: str, uid: str) -> Mapping[str, str]:
    """The labels of every pod of the Job `name`; its `uid` may be empty."""
    return {**dict.fromkeys(JOB_NAME, name), **dict.fromkeys(JOB_UID, uid or UNKNOWN)}


def cron_job_run(name: str) -> str:
    """The name of a Job of the CronJob `name`; in a cluster the minutes since 1970 stand in place of `UNKNOWN`."""
    return f"{name}-{UNKNOWN}"


def template_labels(kind: str, generation: str = "1") -> Mapping[str, str]:
    """The labels that the controller of a `kind` other than Job adds to all pods of one template.

    `generation` is that of a DaemonSet's template, 1 as long as it was not edited.
    """
    return {
        "Deployment": {TEMPLATE_HASH: UNKNOWN},
        "StatefulSet": {REVISION_HASH: UNKNOWN},
        "DaemonSet": {REVISION_HASH: UNKNOWN, TEMPLATE_GENERATION: generation},
    }.get(kind, {})
