"""Makes workloads of objects that use the pod template of another workload, as Argo Rollouts with `workloadRef`.

Source: https://argo-rollouts.readthedocs.io/en/stable/migrating/#reference-deployment-from-rollout: the Rollout makes
the pods, and the Deployment is scaled to 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from romana_ovs.kube.decode.controller_labels import ROLLOUT_HASH, TEMPLATE_HASH, UNKNOWN
from romana_ovs.kube.decode.objects import ObjectId
from romana_ovs.kube.decode.other_workloads import UnexpandedWorkload
from romana_ovs.kube.decode.workloads import Workload
from romana_ovs.model.labels import Labels

_REFERRED = ("Deployment", "ReplicaSet")


def referring_workload(workload: UnexpandedWorkload, workloads: Mapping[ObjectId, Workload]) -> Workload | None:
    """`workload`, expanded by the template that it refers to; None where that is not in `workloads`."""
    reference = workload.template_ref
    if reference is None or reference.kind not in _REFERRED:
        return None
    referred = workloads.get(ObjectId(reference.kind, workload.namespace, reference.name))
    if referred is None:
        return None
    labels = {key: value for key, value in referred.labels.items() if key != TEMPLATE_HASH}
    return replace(
        referred,
        kind=workload.kind,
        group=workload.group,
        name=workload.name,
        labels=Labels({**labels, ROLLOUT_HASH: UNKNOWN}),
        controller_kind="Deployment",
        ordinals=range(reference.replicas),
        selector=None,
        uid="",
        controller_ref=workload.controller_ref,
        template_path="spec.workloadRef",
        no_pods="" if reference.replicas else "has 0 replicas",
        assumed=reference.assumed,
    )
