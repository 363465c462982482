"""The emulated control plane is a real one, its parts can be ended and started, and it leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from romana_ovs.model.errors import SetupError
from romana_ovs_emulate import binaries, controlplane, runs
from romana_ovs_emulate.controlplane import ControlPlane
from tests.support.raw_client import Client, Refused

NODE = {"metadata": {"name": "node1"}, "status": {"allocatable": {"pods": "10"}}}
ENDED = 143
"""128 + SIGTERM."""


def test_rbac_judges_whoever_has_credentials(control_plane: ControlPlane, namespace: str) -> None:
    with Client.of_kubeconfig(control_plane.kubeconfig_for('eve, "the" $HOME', ["some group"])) as eve:
        with pytest.raises(Refused, match=r'^403: .*User "eve, \\"the\\" \$HOME" cannot list resource "pods"'):
            eve.get(f"/api/v1/namespaces/{namespace}/pods")
        review = eve.create("/apis/authentication.k8s.io/v1/selfsubjectreviews", {})
    assert review["status"]["userInfo"]["groups"] == ["some group", "system:authenticated"]


def test_a_service_account_token_is_bound_to_its_node(
    control_plane: ControlPlane,
    admin: Client,
    namespace: str,
) -> None:
    admin.create(f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": "robot"}})
    admin.create("/api/v1/nodes", {"metadata": {"name": namespace}})
    path = control_plane.kubeconfig_for_service_account(namespace, "robot", node=namespace)
    with Client.of_kubeconfig(path) as robot:
        user = robot.create("/apis/authentication.k8s.io/v1/selfsubjectreviews", {})["status"]["userInfo"]
    admin.delete(f"/api/v1/nodes/{namespace}")
    assert user["username"] == f"system:serviceaccount:{namespace}:robot"
    assert user["extra"]["authentication.kubernetes.io/node-name"] == [namespace]


def test_credentials_are_for_their_owner_alone(control_plane: ControlPlane) -> None:
    assert control_plane.folder.stat().st_mode & 0o077 == 0
    assert control_plane.kubeconfig.stat().st_mode & 0o077 == 0
    assert (control_plane.folder / "pki").stat().st_mode & 0o077 == 0


def test_a_killed_api_server_comes_back_with_its_data(control_plane: ControlPlane) -> None:
    with ControlPlane() as plane:
        url, pid = plane.url, plane.daemon("kube-apiserver").pid
        with Client.of_kubeconfig(plane.kubeconfig) as admin:
            made = admin.create("/api/v1/nodes", NODE)
            for end in (plane.kill_api_server, plane.stop_api_server):
                end()
                assert plane.try_kubectl("get", "nodes").returncode != 0
                plane.start_api_server()
                assert admin.get("/api/v1/nodes/node1")["metadata"]["uid"] == made["metadata"]["uid"]
        assert plane.url == url
        assert plane.daemon("kube-apiserver").pid != pid
        folder = plane.folder
    assert not folder.exists()


def test_a_port_that_somebody_took_meanwhile_is_not_the_end(
    control_plane: ControlPlane,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free = controlplane._free_port
    with socket.create_server((controlplane.LOOPBACK, 0)) as taken:
        ports = iter([taken.getsockname()[1]])
        monkeypatch.setattr(controlplane, "_free_port", lambda address: next(ports, None) or free(address))
        with ControlPlane() as plane:
            assert next(ports, None) is None
            assert not plane.url.endswith(f":{taken.getsockname()[1]}")
            assert plane.kubectl("get", "namespace", "kube-system", "-o", "name").strip() == "namespace/kube-system"


def test_what_ends_at_once_is_told_with_its_last_words(
    control_plane: ControlPlane,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for program in binaries.NEEDED:
        ending = "echo etcd has a bad day; exit 1" if program == "etcd" else "exec sleep 60"
        (tmp_path / program).write_text(f"#!/bin/sh\n{ending}\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv(binaries.ASSETS, str(tmp_path))
    plane = ControlPlane()
    with pytest.raises(SetupError, match="etcd ended at once; its log ends:\netcd has a bad day"), plane:
        pass
    assert not plane.folder.exists()
    with (
        pytest.raises(SetupError, match="has no kube-controller-manager: put it there, or unset"),
        ControlPlane(controllers=True),
    ):
        pass


def test_with_controllers_pods_are_scheduled(control_plane: ControlPlane) -> None:
    found = binaries.find()
    assert found is not None
    if not (found.folder / "kube-scheduler").exists() and not os.environ.get("CI"):
        pytest.skip(f"{found.folder}, as envtest leaves it, has no controller manager and no scheduler")
    pod = {
        "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "web", "image": "none"}], "tolerations": [{"operator": "Exists"}]},
    }
    with ControlPlane(controllers=True) as plane, Client.of_kubeconfig(plane.kubeconfig) as admin:
        admin.create("/api/v1/nodes", NODE)
        admin.create("/api/v1/namespaces/default/pods", pod)
        plane.kubectl("wait", "pod/web", "--for=condition=PodScheduled", "--timeout=60s")
        assert admin.get("/api/v1/namespaces/default/pods/web")["spec"]["nodeName"] == "node1"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_make_kube_serves_until_it_is_told_to_end(control_plane: ControlPlane, number: signal.Signals) -> None:
    with _kube() as process:
        kubectl, kubeconfig = _told(process)
        argv = [kubectl, "--kubeconfig", kubeconfig, "get", "crd", "networkpolicies.romana.io", "-o", "name"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.stdout.split() == ["customresourcedefinition.apiextensions.k8s.io/networkpolicies.romana.io"]
        process.send_signal(number)
        process.communicate(timeout=30)
    assert process.returncode == (0 if number == signal.SIGINT else ENDED)
    assert not Path(kubeconfig).parent.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_a_killed_one_leaves_goes_with_the_next_run(control_plane: ControlPlane) -> None:
    with _kube() as process:
        _, kubeconfig = _told(process)
        process.kill()
    folder = Path(kubeconfig).parent
    assert folder.exists()
    (removed,) = [one for one in runs.clean() if one.run == folder.name]
    assert removed.processes == 2
    assert not folder.exists()


def _kube() -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "romana_ovs_emulate.kube"]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)


def _told(process: subprocess.Popen[str]) -> tuple[str, str]:
    """The programs and the kubeconfig of the example that it prints once it is ready."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if found := re.match(r"Try: (\S+) --kubeconfig (\S+) ", line):
            return found[1], found[2]
    pytest.fail(f"it ended: {seen}")
