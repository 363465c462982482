"""Where the demonstration plays: a folder of manifests, or a Kubernetes API server spoken to by kubectl."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from rich.console import Console

from romana_ovs.cli.convert import objects_of_today
from romana_ovs.kube.admission.tenancy import ALLOWED, PREFIX
from romana_ovs.model.objects import PolicyKey
from romana_ovs_emulate.cli.api_session import Wish, prepare
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


class Stage(Protocol):
    """The demonstration's cluster: its session, and what the play does to it."""

    session: Session
    change: str
    """What a change begins with, for people: the time to programmed counts from there."""
    stays: str
    """What to say of a cluster that is left up."""

    def settle(self) -> None:
        """Return when all pods run and every switch has everything. Raises SetupError."""

    def apply(self) -> None:
        """Bring the policy into force. Raises SetupError."""

    def remove(self) -> None:
        """Take the policy away. Raises SetupError."""


class FolderStage:
    """A folder of our own with the manifests in it, which the play edits."""

    change = "File change"

    def __init__(self, source: Path, folder: Path, nodes: int, fabric: Fabric) -> None:
        self._policy = source / "policy" / POLICY_FILE
        self._folder = folder
        self.session = Session.prepare(folder, nodes, fabric, ports=PORTS)
        self.stays = f"Its manifests are in {folder}: edit them and see."

    def settle(self) -> None:
        """Return when all pods run and every switch has everything. Raises SetupError."""
        self.session.emulation.settle()

    def apply(self) -> None:
        """Put the policy's file into the folder, whole."""
        draft = self._folder / f".{POLICY_FILE}"
        shutil.copy(self._policy, draft)
        draft.rename(self._folder / POLICY_FILE)

    def remove(self) -> None:
        """Take the policy's file out of the folder."""
        (self._folder / POLICY_FILE).unlink()


class KubernetesStage:
    """The cluster of a control plane, where kubectl makes and removes what the play needs."""

    change = "Event"

    def __init__(self, plane: ControlPlane, source: Path, nodes: int, fabric: Fabric) -> None:
        """`plane` runs, with its controllers. Raises SetupError."""
        self._plane = plane
        self._source = source
        wish = Wish(plane.kubeconfig, nodes=nodes, fabric=fabric, settings=source / SETTINGS_FILE, ports=PORTS)
        self._cluster, self.session = prepare(wish)
        self.stays = f"Its kubectl: {plane.kubectl_path} --kubeconfig {plane.kubeconfig}"

    def settle(self) -> None:
        """Make the tenants' objects; return when their pods run. Raises SetupError."""
        # Whose pods a namespace may hold is for its administrator to say.
        allowed = [f"{PREFIX}{tenant}={ALLOWED}" for tenant in TENANTS]
        self._plane.kubectl("label", "--overwrite", "namespace", POLICY.namespace, *allowed)
        self._plane.apply(*sorted(self._source.glob("*.yaml")))
        self.session.emulation.settle(pods=PODS)
        self._cluster.await_cluster(lambda cluster: all(pod.address for pod in cluster.pods.values()))

    def apply(self) -> None:
        """Create the policy, in its form of today. Raises SetupError."""
        objects = objects_of_today(self._source / "policy" / POLICY_FILE)
        whole = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self._plane.kubectl("apply", "-f", "-", stdin=whole)
        self._cluster.await_cluster(lambda cluster: POLICY in cluster.policies)

    def remove(self) -> None:
        """Delete the policy. Raises SetupError."""
        self._plane.kubectl("delete", f"{RESOURCE}/{POLICY.name}", f"--namespace={POLICY.namespace}")
        self._cluster.await_cluster(lambda cluster: POLICY not in cluster.policies)


@contextmanager
def folder_stage(source: Path, nodes: int, fabric: Fabric) -> Iterator[Stage]:
    """A stage of a folder of manifests, which is a copy of `source` and gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="romana-ovs-demo-") as name:
        for path in source.iterdir():
            if path.is_file():
                shutil.copy(path, name)
        yield FolderStage(source, Path(name), nodes, fabric)


@contextmanager
def kubernetes_stage(source: Path, nodes: int, fabric: Fabric) -> Iterator[Stage]:
    """A stage of a control plane that is started for it. Raises SetupError."""
    told = Console(stderr=True, highlight=False)
    with ControlPlane(controllers=True, progress=lambda text: told.print(text, markup=False)) as plane:
        plane.apply(manifests_folder())
        yield KubernetesStage(plane, source, nodes, fabric)
