"""The image is the same for the same content, and has all that romana-ovs imports."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from romana_ovs.model.errors import SetupError
from romana_ovs_emulate.image import python_packages
from romana_ovs_emulate.image.archive import Layer, archive_folder, names_in, write_image, write_layer
from romana_ovs_emulate.image.build import CHECKOUT, PREFIX, find_or_build, site_packages
from tests.support.known import known

OVS_MODULE = Path("/usr/lib/python3/dist-packages/ovs")
IMPORT_ALL = """
import importlib, pkgutil, sys
import romana_ovs.runtime
import romana_ovs
from ryu.cmd import manager
for module in pkgutil.walk_packages(romana_ovs.__path__, "romana_ovs."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from romana_ovs.data_files import data_file
data_file("kubernetes/crd-tenants.yaml")
from romana_ovs.kube.api.credentials import read_access
from romana_ovs.kube.api.source import ApiSource
access = read_access(ApiSource(kubeconfig=sys.argv[1]))
print(access.server, access.authorization(), access.proxy)
"""
KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: here
clusters: [{name: here, cluster: {server: "http://192.0.2.1:8080", proxy-url: "http://192.0.2.9:3128"}}]
users:
- name: me
  user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: %s, interactiveMode: Never}}
contexts: [{name: here, context: {cluster: here, user: me}}]
"""
CREDENTIAL = {
    "apiVersion": "client.authentication.k8s.io/v1",
    "kind": "ExecCredential",
    "status": {"token": "secret"},
}


def folder_in(path: Path) -> Path:
    """A folder with a program and a link."""
    (path / "bin").mkdir(parents=True)
    (path / "bin/run").write_text("#!/bin/sh\n")
    (path / "bin/run").chmod(0o700)
    (path / "bin/link").symlink_to("run")
    return path


def layer_in(folder: Path, root: Path) -> Layer:
    folder.mkdir()
    return write_layer(folder, archive_folder(root))


def test_equal_files_are_equal_layers(tmp_path: Path) -> None:
    first = layer_in(tmp_path / "1", folder_in(tmp_path / "one"))
    os.utime(folder_in(tmp_path / "two") / "bin/run", (1, 1))
    second = layer_in(tmp_path / "2", tmp_path / "two")
    assert first.diff_id == second.diff_id
    assert first.path.read_bytes() == second.path.read_bytes()


def test_files_of_a_layer_are_of_root(tmp_path: Path) -> None:
    layer = layer_in(tmp_path / "1", folder_in(tmp_path / "one"))
    with tarfile.open(layer.path) as archive:
        members = {member.name: member for member in archive}
    assert list(members) == ["bin", "bin/link", "bin/run"]
    assert members["bin/run"].mode == 0o755 and members["bin/run"].uid == 0
    assert members["bin/link"].linkname == "run"


def test_an_image_names_its_layers(tmp_path: Path) -> None:
    layers = [layer_in(tmp_path / name, folder_in(tmp_path / f"of{name}")) for name in ("1",)]
    image_id = write_image(tmp_path / "image.tar", "localhost/one:2", layers, {"Entrypoint": ["run"]})
    with tarfile.open(tmp_path / "image.tar") as archive:
        (manifest,) = json.load(known(archive.extractfile("manifest.json")))
        config = json.load(known(archive.extractfile(manifest["Config"])))
        assert set(manifest["Layers"]) < set(archive.getnames())
    assert names_in(tmp_path / "image.tar") == ["localhost/one:2"]
    assert manifest["Config"] == image_id.removeprefix("sha256:") + ".json"
    assert config["rootfs"]["diff_ids"] == [layers[0].diff_id]
    assert config["config"] == {"Entrypoint": ["run"]}


def test_versions_are_read_from_a_lock_file() -> None:
    lock = "# note\nryu==4.34 \\\n    --hash=sha256:0\npyyaml==6.0.4 ; python_version > '3'\n    # via ryu==1\n"
    assert python_packages.locked_versions(lock) == {"ryu": "4.34", "pyyaml": "6.0.4"}


def test_unused_packages_are_locked_ones() -> None:
    locked = python_packages.locked_versions((CHECKOUT / python_packages.LOCK).read_text())
    assert set(locked) > python_packages.UNUSED_PACKAGES


def test_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / python_packages.LOCK).write_text("ryu==1.0\n")
    with pytest.raises(SetupError, match=r"^ryu is [0-9.]+ here, and 1\.0 in requirements\.lock: make clean"):
        python_packages.copy_locked(tmp_path, tmp_path / "target")


def test_a_package_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / python_packages.LOCK).write_text("no-such-package==1.0\n")
    with pytest.raises(SetupError, match=r"^no-such-package 1\.0 of requirements\.lock is not installed here"):
        python_packages.copy_locked(tmp_path, tmp_path / "target")


def test_without_a_checkout_there_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(
        SetupError, match=rf"^the image is built from a checkout of romana-ovs, and {tmp_path} is none$"
    ):
        find_or_build(print, tmp_path)


def test_data_files_are_those_of_the_distribution() -> None:
    files = {f"{folder}/{path.name}" for folder, path in python_packages.data_files(CHECKOUT)}
    assert {"share/romana-ovs/cni/main.go", "share/romana-ovs/kubernetes/rbac.yaml"} < files


def test_a_cache_of_python_is_no_source(tmp_path: Path) -> None:
    assert not any("__pycache__" in path.parts for path in python_packages.product_files(CHECKOUT))


@pytest.mark.sessions
@pytest.mark.skipif(not OVS_MODULE.exists(), reason="needs Debian's python3-openvswitch")
def test_all_modules_import_without_what_is_left_out(tmp_path: Path) -> None:
    python_packages.copy_locked(CHECKOUT, site_packages(tmp_path))
    python_packages.copy_product(CHECKOUT, site_packages(tmp_path), tmp_path / PREFIX)
    present = {path.name for path in site_packages(tmp_path).iterdir()}
    assert not {"aiohttp", "pygments", "setuptools", "pip", "pytest"} & present
    python = tmp_path / PREFIX / "bin/python3"
    python.parent.mkdir()
    python.symlink_to(Path(sys.executable).resolve())
    settings = f"home = {Path(sys.executable).resolve().parent}\ninclude-system-site-packages = true\n"
    (tmp_path / PREFIX / "pyvenv.cfg").write_text(settings)
    helper = tmp_path / "credential"
    helper.write_text(f"#!/bin/sh\necho '{json.dumps(CREDENTIAL)}'\n")
    helper.chmod(0o755)
    (tmp_path / "kubeconfig").write_text(KUBECONFIG % helper)
    done = subprocess.run(
        [python, "-B", "-c", IMPORT_ALL, tmp_path / "kubeconfig"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["http://192.0.2.1:8080", "Bearer", "secret", "http://192.0.2.9:3128"]
    shutil.rmtree(tmp_path / PREFIX)
