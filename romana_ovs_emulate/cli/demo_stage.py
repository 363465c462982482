"""Prepares the cluster of the demonstration: a folder of manifests, or a Kubernetes API server with kubectl."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rich.console import Console

from romana_ovs.cli.convert import current_objects
from romana_ovs.kube.admission.tenancy import ALLOWED, PREFIX
from romana_ovs.model.objects import PolicyKey
from romana_ovs_emulate.cli.api_session import EmulateRequest, prepare
from romana_ovs_emulate.cli.options import asked_datapath
from romana_ovs_emulate.cli.session import Session, parse_ports
from romana_ovs_emulate.controlplane import ControlPlane
from romana_ovs_emulate.fabric import Fabric
from romana_ovs_emulate.kube import manifests_folder

PORTS = parse_ports("80/tcp,81/tcp,80/udp")
POLICY = PolicyKey("RomanaNetworkPolicy", "default", "policy1")
POLICY_FILE = "policy1.yaml"
RESOURCE = "networkpolicies.romana.io"
PODS = 5
TENANTS = ("t1", "t2")
SETTINGS_FILE = "romana.conf"


@dataclass(frozen=True, slots=True)
class Layout:
    """The emulated nodes: how many, how joined, and the argument --datapath (None: as the settings say)."""

    nodes: int
    fabric: Fabric
    datapath: str | None = None


class Stage(Protocol):
    """The demonstration's cluster: its session, and the changes that the demonstration makes."""

    session: Session
    change: str
    """The event from which the time until programmed is measured, for users."""
    leave_message: str
    """What is printed when the cluster stays up."""

    def settle(self) -> None:
        """Wait until all pods run and every switch is up to date. Raises SetupError."""

    def apply(self) -> None:
        """Create the policy. Raises SetupError."""

    def remove(self) -> None:
        """Delete the policy. Raises SetupError."""


class FolderStage:
    """A copy of the manifests, in a folder that the demonstration edits."""

    change = "File change"

    def __init__(self, source: Path, folder: Path, layout: Layout) -> None:
        self._policy = source / "policy" / POLICY_FILE
        self._folder = folder
        self.session = Session.prepare(folder, layout.nodes, layout.fabric, ports=PORTS, datapath=layout.datapath)
        self.leave_message = f"Its manifests are in {folder}: edit them and see."

    def settle(self) -> None:
        """Wait until all pods run and every switch is up to date. Raises SetupError."""
        self.session.settle()

    def apply(self) -> None:
        """Move the policy's file into the folder."""
        draft = self._folder / f".{POLICY_FILE}"
        shutil.copy(self._policy, draft)
        draft.rename(self._folder / POLICY_FILE)

    def remove(self) -> None:
        """Remove the policy's file from the folder."""
        (self._folder / POLICY_FILE).unlink()


class KubernetesStage:
    """The cluster of a control plane, where kubectl creates and deletes objects."""

    change = "Event"

    def __init__(self, plane: ControlPlane, source: Path, layout: Layout) -> None:
        """`plane` runs with its controllers. Raises SetupError."""
        self._plane = plane
        self._source = source
        settings = source / SETTINGS_FILE
        request = EmulateRequest(
            plane.kubeconfig,
            nodes=layout.nodes,
            fabric=layout.fabric,
            settings=settings,
            ports=PORTS,
            datapath=asked_datapath(layout.datapath, settings),
        )
        self._cluster, self.session = prepare(request)
        self.leave_message = f"Its kubectl: {plane.kubectl_path} --kubeconfig {plane.kubeconfig}"

    def settle(self) -> None:
        """Create the tenants' objects; wait until their pods run. Raises SetupError."""
        # The administrator decides which tenants may have pods in a namespace.
        allowed = [f"{PREFIX}{tenant}={ALLOWED}" for tenant in TENANTS]
        self._plane.kubectl("label", "--overwrite", "namespace", POLICY.namespace, *allowed)
        self._plane.apply(*sorted(self._source.glob("*.yaml")))
        self.session.settle(PODS)
        self._cluster.await_cluster(lambda cluster: all(pod.address for pod in cluster.pods.values()))

    def apply(self) -> None:
        """Create the policy, converted to its current form. Raises SetupError."""
        objects = current_objects(self._source / "policy" / POLICY_FILE)
        manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self._plane.kubectl("apply", "-f", "-", stdin=manifest)
        self._cluster.await_cluster(lambda cluster: POLICY in cluster.policies)

    def remove(self) -> None:
        """Delete the policy. Raises SetupError."""
        self._plane.kubectl("delete", f"{RESOURCE}/{POLICY.name}", f"--namespace={POLICY.namespace}")
        self._cluster.await_cluster(lambda cluster: POLICY not in cluster.policies)


@contextmanager
def folder_stage(source: Path, layout: Layout) -> Iterator[Stage]:
    """A stage on a temporary copy of the folder `source`."""
    with tempfile.TemporaryDirectory(prefix="romana-ovs-demo-") as name:
        for path in source.iterdir():
            if path.is_file():
                shutil.copy(path, name)
        yield FolderStage(source, Path(name), layout)


@contextmanager
def kubernetes_stage(source: Path, layout: Layout) -> Iterator[Stage]:
    """A stage on a control plane that is started for it. Raises SetupError."""
    console = Console(stderr=True, highlight=False)
    with ControlPlane(controllers=True, progress=lambda text: console.print(text, markup=False)) as plane:
        plane.apply(manifests_folder())
        yield KubernetesStage(plane, source, layout)
