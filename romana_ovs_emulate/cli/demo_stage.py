"""Prepares the cluster of the demonstration: a folder of manifests, or a Kubernetes API server with kubectl."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rich.console import Console

from romana_ovs.cli.convert import current_objects
from romana_ovs.kube.admission.tenancy import ALLOWED, PREFIX
from romana_ovs.model.bridge import DatapathType
from romana_ovs.model.connection import PortRef
from romana_ovs.model.objects import PodKey, PolicyKey
from romana_ovs_emulate.cli.api_session import EmulateRequest, prepare
from romana_ovs_emulate.cli.measured import ProbeResults
from romana_ovs_emulate.cli.options import asked_datapath
from romana_ovs_emulate.cli.session import Session, parse_ports
from romana_ovs_emulate.cluster_source import ClusterSource
from romana_ovs_emulate.controller import Programmed, State
from romana_ovs_emulate.controlplane import ControlPlane
from romana_ovs_emulate.fabric import Fabric
from romana_ovs_emulate.kube import manifests_folder
from romana_ovs_emulate.pods import RunningPod

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


class StageEmulation(Protocol):
    """What the demonstration reads of the nodes and pods of its cluster."""

    @property
    def state(self) -> State:
        """What the controllers report."""

    @property
    def pods(self) -> Mapping[PodKey, RunningPod]:
        """The pods that run."""

    @property
    def datapath(self) -> DatapathType:
        """The datapath of all bridges."""

    def programmed_after(self, generation: int) -> Programmed:
        """Wait until what is newer than that generation of the state is in every switch. Raises SetupError."""


class StageSession(Protocol):
    """A cluster with what is expected of it, and its measurement."""

    @property
    def source(self) -> ClusterSource:
        """The cluster as its objects describe it."""

    @property
    def emulation(self) -> StageEmulation:
        """Its nodes and pods."""

    def measure(self, ports: Sequence[PortRef]) -> ProbeResults:
        """Every pair of pods on these ports. Raises SetupError."""


class DemoStage(Protocol):
    """The demonstration's cluster: its session, and the changes that the demonstration makes."""

    @property
    def session(self) -> StageSession:
        """The cluster."""

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


class Stage(DemoStage, Protocol):
    """A stage on emulated nodes."""

    @property
    def session(self) -> Session:
        """The session, which starts the nodes."""


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
        allow_tenants(self._plane)
        self._plane.apply(*sorted(self._source.glob("*.yaml")))
        self.session.settle(PODS)
        self._cluster.await_cluster(lambda cluster: all(pod.address for pod in cluster.pods.values()))

    def apply(self) -> None:
        """Create the policy, converted to its current form. Raises SetupError."""
        apply_policy(self._plane, self._source)
        self._cluster.await_cluster(lambda cluster: POLICY in cluster.policies)

    def remove(self) -> None:
        """Delete the policy. Raises SetupError."""
        delete_policy(self._plane)
        self._cluster.await_cluster(lambda cluster: POLICY not in cluster.policies)


def allow_tenants(plane: ControlPlane) -> None:
    """Allow the tenants to have pods in the demonstration's namespace, as an administrator does. Raises SetupError."""
    allowed = [f"{PREFIX}{tenant}={ALLOWED}" for tenant in TENANTS]
    plane.kubectl("label", "--overwrite", "namespace", POLICY.namespace, *allowed)


def apply_policy(plane: ControlPlane, source: Path) -> None:
    """Create the policy of the folder `source`, converted to its current form. Raises SetupError."""
    objects = current_objects(source / "policy" / POLICY_FILE)
    plane.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))


def delete_policy(plane: ControlPlane) -> None:
    """Delete the policy. Raises SetupError."""
    plane.kubectl("delete", f"{RESOURCE}/{POLICY.name}", f"--namespace={POLICY.namespace}")


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
