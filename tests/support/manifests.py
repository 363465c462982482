"""Manifests as text, decoded as a folder's files are."""

from __future__ import annotations

from textwrap import dedent
from typing import Any

import yaml

from romana_ovs.kube.decode.objects import DecodedObject
from romana_ovs.kube.manifests.folder import FileContent, FolderContent, read_bytes
from romana_ovs.kube.manifests.store import ManifestStore
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.settings import Settings, TenantSource
from tests.support import api_objects
from tests.support.api_objects import as_yaml

BY_OWNER = Settings(tenant_source=TenantSource.POD_LABEL, tenant_key="owner")


def file(text: str, name: str = "a.yaml", settings: Settings | None = None) -> FileContent:
    """What a file of this text holds."""
    return read_bytes(name, dedent(text).encode(), settings or Settings())


def item(text: str, settings: Settings | None = None) -> DecodedObject:
    """The only object of a document."""
    (found,) = file(text, settings=settings).objects
    return found


def content(**files: str) -> FolderContent:
    """A folder with these files, each of which is called NAME.yaml."""
    return FolderContent("folder", tuple(file(text, f"{name}.yaml") for name, text in sorted(files.items())))


def loaded(settings: Settings | None = None, nodes: int | None = None, **files: str) -> ClusterSnapshot:
    """The cluster of a folder with these files, read for the first time."""
    settings = settings or Settings()
    read = tuple(file(text, f"{name}.yaml", settings) for name, text in sorted(files.items()))
    return ManifestStore(settings).apply(FolderContent("folder", read), nodes=nodes)


def policy(spec: str, name: str = "p") -> str:
    """A Kubernetes policy whose spec is this text."""
    body = "\n".join("  " + line for line in dedent(spec).strip().splitlines())
    return f"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: {name}\nspec:\n{body}\n"


def _quoted(text: str) -> str:
    """A name as YAML: `y` and `n` are booleans to Kubernetes."""
    return f"'{text}'" if text in ("y", "n") else text


def pod(name: str, labels: str = "{}", more: str = "", **metadata: str) -> str:
    """A pod with one container; `more` are lines of its spec."""
    extra = "".join(f"  {key}: {_quoted(value)}\n" for key, value in metadata.items())
    return (
        f"apiVersion: v1\nkind: Pod\nmetadata:\n  name: {_quoted(name)}\n  labels: {labels}\n{extra}"
        f"spec:\n  containers:\n  - name: c\n    image: nginx\n{more}"
    )


def workload(kind: str, name: str, more: str = "", labels: str = "{app: w}", metadata: str = "") -> str:
    """A workload whose pods carry `labels`; `more` are lines of its spec (of a CronJob, of that of its Jobs)."""
    version = {"ReplicationController": "v1", "Job": "batch/v1", "CronJob": "batch/v1"}.get(kind, "apps/v1")
    template = f"template: {{metadata: {{labels: {labels}}}, spec: {{containers: [{{name: c, image: nginx}}]}}}}\n"
    if kind == "CronJob":
        job = "".join(f"    {line}\n" for line in f"{more}  {template}".splitlines())
        return (
            f"apiVersion: {version}\nkind: {kind}\nmetadata:\n  name: {name}\n{metadata}"
            f"spec:\n  schedule: '0 3 * * *'\n  jobTemplate:\n    spec:\n{job}"
        )
    selector = {"ReplicationController": f"  selector: {labels}\n", "Job": ""}.get(
        kind, f"  selector: {{matchLabels: {labels}}}\n"
    )
    return (
        f"apiVersion: {version}\nkind: {kind}\nmetadata:\n  name: {name}\n{metadata}spec:\n{more}{selector}  {template}"
    )


def join(*documents: str) -> str:
    """Several documents as one file."""
    return "---\n".join(documents)


def placed_pod(name: str, node: str = "node1", namespace: str = "a", *, app: str = "", **more: Any) -> str:
    """A pod that is assigned to a node, to be joined with other documents; its label `app` is its name unless given.

    `more` are labels, and what else `api_objects.pod` takes.
    """
    return as_yaml(api_objects.pod(f"{namespace}/{name}", node, **{"ports": "80/tcp", "app": app or name, **more}))


def count_pods(text: str) -> int:
    """How many Pods the documents of a text are."""
    return sum(isinstance(each, dict) and each.get("kind") == "Pod" for each in yaml.safe_load_all(text))


def ingress_policy(name: str, selected: str, *ingress: str, namespace: str = "a") -> str:
    """A NetworkPolicy for pods of a label (`key: value`) with these ingress rules in YAML's flow style."""
    return f"""
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  podSelector: {{matchLabels: {{{selected}}}}}
  policyTypes: [Ingress]
  ingress: [{", ".join(ingress)}]
"""


TWO_NODES = """
apiVersion: v1
kind: Node
metadata: {name: node1}
---
apiVersion: v1
kind: Node
metadata: {name: node2}
"""
PORT_80_POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: a}
spec:
  podSelector: {matchLabels: {app: x}}
  ingress: [{ports: [{port: 80}]}]
"""
