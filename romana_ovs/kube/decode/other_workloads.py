"""Decodes objects of other API groups that make pods, by a pod template or in ways of their own.

A pod template at `spec.template` (or `spec.podTemplate`) is expanded like that of a Deployment. What else makes pods is
recognized by its kind, or by containers anywhere in it. Sources: the API references of the projects, of `workloadRef`
https://argo-rollouts.readthedocs.io/en/stable/migrating/#reference-deployment-from-rollout.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from romana_ovs.kube.decode.controller_labels import ROLLOUT_HASH, UNKNOWN
from romana_ovs.kube.decode.node_selection import NodeSelection, read_daemon_nodes
from romana_ovs.kube.decode.owners import ControllerRef, read_controller_ref
from romana_ovs.kube.decode.validation import Validator
from romana_ovs.kube.decode.workloads import MAX_REPLICAS, PodTemplate, Workload, read_template
from romana_ovs.model.labels import Labels
from romana_ovs.model.syntax import label_fault, plain, shown, subdomain_fault

_TEMPLATES = ("template", "podTemplate")
_POD_FIELDS: Mapping[str, type] = {"podTemplate": dict, "podMetadata": dict, "podSpec": dict, "replicas": int}
"""Fields of a spec that say that an object makes pods, and their types."""
_MAX_DEPTH = 12
"""How deep containers are looked for in an object."""
_NO_MAKERS = frozenset(
    {
        ("apps", "ControllerRevision"),
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
        ("autoscaling", "Scale"),
        ("cluster.x-k8s.io", "MachineDeployment"),
        ("cluster.x-k8s.io", "MachinePool"),
        ("cluster.x-k8s.io", "MachineSet"),
        ("machine.openshift.io", "MachineSet"),
    }
)
"""Kinds that contain templates of other objects or a number of replicas, and make no pods."""

POD_MAKERS: Mapping[str, frozenset[str]] = {
    group: frozenset(kinds.split())
    for group, kinds in {
        "": "PodTemplate",
        "acid.zalan.do": "postgresql",
        "apps.kruise.io": "AdvancedCronJob UnitedDeployment",
        "argoproj.io": "Application ApplicationSet CronWorkflow Rollout Workflow",
        "batch.volcano.sh": "Job",
        "cassandra.datastax.com": "CassandraDatacenter",
        "clickhouse.altinity.com": "ClickHouseInstallation",
        "databases.spotahome.com": "RedisFailover",
        "flink.apache.org": "FlinkDeployment",
        "helm.cattle.io": "HelmChart",
        "helm.toolkit.fluxcd.io": "HelmRelease",
        "jaegertracing.io": "Jaeger",
        "jobset.x-k8s.io": "JobSet",
        "k8s.mariadb.com": "MariaDB MaxScale",
        "kafka.strimzi.io": "Kafka KafkaBridge KafkaConnect KafkaMirrorMaker KafkaMirrorMaker2 KafkaNodePool",
        "keda.sh": "ScaledJob",
        "kubeflow.org": "JAXJob MPIJob Notebook PaddleJob PyTorchJob TFJob XGBoostJob",
        "kubevirt.io": "VirtualMachine VirtualMachineInstance VirtualMachineInstanceReplicaSet VirtualMachinePool",
        "leaderworkerset.x-k8s.io": "LeaderWorkerSet",
        "minio.min.io": "Tenant",
        "mongodbcommunity.mongodb.com": "MongoDBCommunity",
        "monitoring.coreos.com": "Alertmanager Prometheus PrometheusAgent ThanosRuler",
        "mysql.oracle.com": "InnoDBCluster",
        "opentelemetry.io": "OpenTelemetryCollector",
        "postgres-operator.crunchydata.com": "PostgresCluster",
        "postgresql.cnpg.io": "Cluster Pooler",
        "psmdb.percona.com": "PerconaServerMongoDB",
        "pxc.percona.com": "PerconaXtraDBCluster",
        "rabbitmq.com": "RabbitmqCluster",
        "ray.io": "RayCluster RayJob RayService",
        "serving.kserve.io": "InferenceService",
        "sparkoperator.k8s.io": "ScheduledSparkApplication SparkApplication",
        "tekton.dev": "CustomRun PipelineRun TaskRun",
        "trainer.kubeflow.org": "TrainJob",
    }.items()
}
"""Kinds, by API group, that make pods and have no pod template at `spec.template`."""
_ROLLOUT = ("argoproj.io", "Rollout")
_ELASTIC = ".k8s.elastic.co"
"""The ending of the API groups of Elastic Cloud on Kubernetes, all of whose kinds make pods."""


@dataclass(frozen=True, slots=True)
class UnexpandedWorkload:
    """A workload whose pods are not known here; `reason`: why not, and by what it was recognized."""

    kind: str
    group: str
    namespace: str
    name: str
    reason: str
    controller_ref: ControllerRef | None = None
    template_ref: TemplateRef | None = None


@dataclass(frozen=True, slots=True)
class TemplateRef:
    """The workload whose pod template an object uses for its own pods, as `workloadRef` of an Argo Rollout.

    `replicas` and `assumed` are of the object itself, as of a Workload.
    """

    kind: str
    name: str
    replicas: int
    assumed: str = ""


def read_other(
    document: Mapping[str, object], kind: str, group: str, validator: Validator
) -> Workload | UnexpandedWorkload | None:
    """The workload in an object of another API group, what else makes pods, or None for what makes none.

    Errors of its name, and of a pod template, are recorded; then the result says as much as can be read.
    """
    if (group, kind) in _NO_MAKERS:
        return None
    spec = document.get("spec")
    field = next((field for field in _TEMPLATES if isinstance(spec, dict) and _is_template(spec.get(field))), "")
    if isinstance(spec, dict) and field:
        return _workload(spec, _identity(document, kind, group, validator), f"spec.{field}", validator)
    if kind in POD_MAKERS.get(group, ()) or group.endswith(_ELASTIC):
        reason = "makes no pods by itself" if kind == "PodTemplate" else "makes pods in a way of its own"
    elif path := next(_container_paths(document, ""), "") or _pod_field(spec):
        reason = f"has {plain(path)}, so it may make pods, in a way of its own"
    else:
        return None
    identity = _identity(document, kind, group, validator)
    reference = _template_ref(spec, validator) if (group, kind) == _ROLLOUT else None
    if reference is not None:
        reason = f"uses the pod template of {plain(reference.kind)} {plain(reference.name)}, which is not here"
    return UnexpandedWorkload(
        kind, group, identity.namespace, identity.name, reason, identity.controller_ref, reference
    )


@dataclass(frozen=True, slots=True)
class _Identity:
    """Kind, name and controller of an object."""

    kind: str
    group: str
    namespace: str
    name: str
    controller_ref: ControllerRef | None


def _identity(document: Mapping[str, object], kind: str, group: str, validator: Validator) -> _Identity:
    """The identity of an object, as far as it can be read."""
    fields = validator.mapping(document.get("metadata"), "metadata")
    name = validator.string(fields.get("name"), "metadata.name")
    namespace = validator.string(fields.get("namespace"), "metadata.namespace") or "default"
    fault = subdomain_fault(name) if name else "is required"
    if fault and not validator.has("metadata") and not validator.has("metadata.name"):
        validator.error("metadata.name", fault)
    if fault := label_fault(namespace):
        validator.error("metadata.namespace", fault)
    return _Identity(kind, group, namespace, name, read_controller_ref(fields, Validator()))


def _workload(spec: Mapping[str, object], identity: _Identity, path: str, validator: Validator) -> Workload:
    """The workload of the template at `path`, as far as it can be read: one pod where `spec.replicas` is no number."""
    template = read_template(spec[path.removeprefix("spec.")], path, validator)
    controller_kind = identity.kind if identity.kind in ("StatefulSet", "DaemonSet") else "Deployment"
    count, assumed = (1, "") if controller_kind == "DaemonSet" else _replicas(spec.get("replicas"), validator)
    no_pods = "is suspended (spec.suspend)" if spec.get("suspend") is True else "" if count else "has 0 replicas"
    return Workload(
        kind=identity.kind,
        group=identity.group,
        namespace=identity.namespace,
        name=identity.name,
        labels=Labels({**template.labels, **_added_labels(identity)}),
        controller_kind=controller_kind,
        ordinals=range(0) if no_pods or controller_kind == "DaemonSet" else range(count),
        spec=template.spec,
        nodes=_nodes(template, controller_kind, path, validator),
        controller_ref=identity.controller_ref,
        template_path=path,
        no_pods=no_pods,
        assumed=assumed,
    )


def _replicas(value: object, validator: Validator) -> tuple[int, str]:
    """The number of pods, and what is assumed about it: kinds of other API groups may have more than a number there."""
    if value is None:
        return 1, ""
    if isinstance(value, bool) or not isinstance(value, int):
        return 1, f"spec.replicas is no number ({shown(value)}) and counts as 1"
    count = validator.integer(value, "spec.replicas", low=0, high=MAX_REPLICAS)
    return 1 if count is None else count, ""


def _template_ref(spec: object, validator: Validator) -> TemplateRef | None:
    """The workload that `spec.workloadRef` names, or None."""
    fields = spec if isinstance(spec, dict) else {}
    reference = fields.get("workloadRef")
    kind, name = (reference.get("kind"), reference.get("name")) if isinstance(reference, dict) else (None, None)
    if not isinstance(kind, str) or not isinstance(name, str):
        return None
    count, assumed = _replicas(fields.get("replicas"), validator)
    return TemplateRef(kind, name, count, assumed)


def _nodes(template: PodTemplate, controller_kind: str, path: str, validator: Validator) -> NodeSelection:
    if controller_kind != "DaemonSet":
        return NodeSelection()
    return read_daemon_nodes(template.raw_spec, f"{path}.spec", validator)


def _added_labels(identity: _Identity) -> Mapping[str, str]:
    """The labels that controllers of widely used kinds add."""
    if (identity.group, identity.kind) == _ROLLOUT:
        return {ROLLOUT_HASH: UNKNOWN}
    if (identity.group, identity.kind) == ("serving.knative.dev", "Service"):
        return {f"serving.knative.dev/{key}": identity.name for key in ("service", "configuration")}
    if (identity.group, identity.kind) == ("apps.openshift.io", "DeploymentConfig"):
        return {"deploymentconfig": identity.name}
    return {}


def _is_template(value: object) -> bool:
    spec = value.get("spec") if isinstance(value, dict) else None
    return isinstance(spec, dict) and _is_containers(spec.get("containers"))


def _is_containers(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _pod_field(spec: object) -> str:
    """The path of a field that operators have for the pods that they make, or empty."""
    fields = spec if isinstance(spec, dict) else {}
    field_name = next((field for field in _POD_FIELDS if isinstance(fields.get(field), _POD_FIELDS[field])), "")
    return f"spec.{field_name}" if field_name else ""


def _container_paths(value: object, path: str, depth: int = 0) -> Iterator[str]:
    """The paths of lists of containers with images anywhere in `value`."""
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            at = f"{path}.{key}" if path else str(key)
            if key == "containers" and _is_containers(inner) and any("image" in one for one in inner):
                yield at
            else:
                yield from _container_paths(inner, at, depth + 1)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _container_paths(inner, f"{path}[{index}]", depth + 1)
