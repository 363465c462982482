"""A controller that runs in a pod: it finds the API server and its own account where every pod finds them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from romana_ovs.kube.api.credentials import ACCOUNT
from romana_ovs_emulate.controlplane import ControlPlane
from romana_ovs_emulate.kube import manifests_folder
from tests.support.control_plane import needed_binaries
from tests.support.raw_client import Client
from tests.support.split_cluster import PATIENCE, SYSTEM, SplitController
from tests.support.waiting import eventually

pytestmark = pytest.mark.root
# What a container runtime does, in a mount namespace that ends with the process: the machine's own folders stay.
IN_A_POD = f"""
mount -t tmpfs tmpfs /var/run/ && mkdir -p {ACCOUNT} && mount --bind "$1" {ACCOUNT} && shift && exec "$@"
"""


class Volume:
    """The projected volume of an account, which is written as kubelet does: all files of it change at once."""

    def __init__(self, folder: Path, authority: Path) -> None:
        self.folder = folder
        self._authority = authority
        self._count = 0

    def write(self, token: str) -> None:
        """Have this token there, in a new folder that takes the place of the one before."""
        self._count += 1
        data = self.folder / f"..{self._count}"
        data.mkdir()
        (data / "token").write_text(token)
        (data / "namespace").write_text(SYSTEM)
        shutil.copy(self._authority, data / "ca.crt")
        link = self.folder / "..data_tmp"
        link.symlink_to(data.name)
        os.replace(link, self.folder / "..data")
        for name in ("token", "namespace", "ca.crt"):
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A control plane of its own: what is elected here is nobody else's business."""
    with ControlPlane(binaries=needed_binaries()) as own:
        own.apply(manifests_folder())
        yield own


@pytest.fixture
def volume(plane: ControlPlane, tmp_path: Path) -> Volume:
    return Volume(tmp_path, plane.authority)


@pytest.fixture
def controller(plane: ControlPlane, volume: Volume) -> Iterator[SplitController]:
    """A registry that is told nothing but that it is in a pod; not started."""
    place = urlsplit(plane.url)
    with SplitController("registry", Path("in-cluster"), ["--registry"]) as made:
        made.environment = {
            **os.environ,
            "KUBERNETES_SERVICE_HOST": str(place.hostname),
            "KUBERNETES_SERVICE_PORT": str(place.port),
        }
        yield made


def start(controller: SplitController, volume: Volume) -> None:
    arguments = [sys.executable, "-m", "romana_ovs", "controller", "--kubeconfig", "in-cluster", "--registry"]
    in_a_pod = ["unshare", "--mount", "--propagation=private", "sh", "-ec", IN_A_POD, "pod", str(volume.folder)]
    controller.start([*in_a_pod, *arguments])


def leads(controller: SplitController) -> bool:
    """Whether it is the registry, and nothing is wrong."""
    state = controller.state
    return bool(state) and state["registry"]["leads"] and not state["problems"]


def test_it_is_who_its_token_says_also_when_that_changes(
    plane: ControlPlane, controller: SplitController, volume: Volume
) -> None:
    """Somebody who may do nothing, then the registry's account, and so again while it works: by the file alone."""

    def token(account: str) -> str:
        return plane.kubectl("create", "token", account, f"--namespace={SYSTEM}").strip()

    def denied() -> bool:
        return any(
            f"system:serviceaccount:{SYSTEM}:nobody" in problem for problem in controller.state.get("problems", ())
        )

    with Client.of_kubeconfig(plane.kubeconfig) as admin:
        admin.create(f"/api/v1/namespaces/{SYSTEM}/serviceaccounts", {"metadata": {"name": "nobody"}})
    volume.write(token("nobody"))
    start(controller, volume)
    eventually(denied, "it is told who it is", PATIENCE)
    volume.write(token("romana-registry"))
    eventually(lambda: leads(controller), "it leads", PATIENCE)
    with Client.of_kubeconfig(plane.kubeconfig) as admin:
        lease = admin.get(f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/romana-ovs")["spec"]
        assert lease["holderIdentity"]
        admin.create("/api/v1/nodes", {"metadata": {"name": "n1"}})
        published = "/apis/romana.io/v1/allocations"
        eventually(lambda: admin.get(published)["items"], "it publishes numbers", PATIENCE)
    child = controller.child()
    volume.write(token("nobody"))
    eventually(denied, "its next requests are another's", PATIENCE)
    volume.write(token("romana-registry"))
    eventually(lambda: not controller.state["problems"], "it is the registry again", PATIENCE)
    assert controller.child() == child


def test_an_account_that_comes_late_is_waited_for(
    plane: ControlPlane, controller: SplitController, volume: Volume
) -> None:
    start(controller, volume)
    said = "the service account of this pod: Service token file does not exist."
    eventually(lambda: any(said in problem for problem in controller.state.get("problems", ())), "it says so", PATIENCE)
    volume.write(plane.kubectl("create", "token", "romana-registry", f"--namespace={SYSTEM}").strip())
    eventually(lambda: leads(controller), "it leads", PATIENCE)
