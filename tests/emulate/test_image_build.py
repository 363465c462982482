"""The image that `make image` builds has the programs and modules that romana-ovs needs, and runs."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest

from romana_ovs import __version__
from romana_ovs_emulate import cni_plugin
from romana_ovs_emulate.debian_packages import NoPackagesError
from romana_ovs_emulate.image.__main__ import description
from romana_ovs_emulate.image.archive import names_in
from romana_ovs_emulate.image.build import CNI_PLUGIN, NAME, Image, find_or_build

PATH = "PATH=/opt/romana-ovs/bin:/usr/sbin:/usr/bin:/sbin:/bin"
COMMANDS = """
romana-ovs --version
nft --version
ip -V
python3 -c 'import ctypes, ovs._json, ovs.db.idl; ctypes.CDLL("libbpf.so.1")'
python3 -c 'import romana_ovs.attach.without_eventlet as w; w.block_eventlet(); import romana_ovs.attach.agent'
python3 -c 'import romana_ovs.app, romana_ovs.kube.api.process'
find /opt/romana-ovs -name '*.so' -exec ldd {} + | sed -n '/not found/p' >&2
cp /opt/romana-ovs/libexec/romana-cni /tmp/.new && mv /tmp/.new /tmp/romana-cni
"""
MAX_BYTES = 100e6

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow("the first build installs Debian's packages"),
    pytest.mark.skipif(bool(cni_plugin.unavailable_reason()), reason=cni_plugin.unavailable_reason() or "-"),
]


@pytest.fixture(scope="module")
def image() -> Image:
    try:
        return find_or_build(print)
    except NoPackagesError as error:
        pytest.skip(f"run `make image` once before, as tests have no network: {error}")


def unpacked(image: Image, root: Path) -> Path:
    """The files of the image's layers, from the lowest up."""
    with tarfile.open(image.path) as archive:
        names = [name for name in archive.getnames() if name.endswith(".tar.gz")]
        for name in names:
            layer = archive.extractfile(name)
            subprocess.run(["tar", "-xz", "-C", str(root)], input=layer.read() if layer else b"", check=True)
    return root


def test_all_that_is_needed_runs_in_the_image(image: Image, tmp_path: Path) -> None:
    root = unpacked(image, tmp_path)
    done = subprocess.run(
        ["chroot", str(root), "/usr/bin/env", "-i", PATH, "sh", "-ec", COMMANDS],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "not found" not in done.stderr, "some module lacks a library"
    assert done.stdout.startswith(f"romana-ovs {__version__}\nnftables v1")
    assert (root / CNI_PLUGIN).read_bytes() == (root / "tmp/romana-cni").read_bytes()
    # What takes space, and nobody needs on a node.
    for name in ("usr/bin/apt", "usr/share/man/man1", "opt/romana-ovs/bin/pip"):
        assert not (root / name).exists(), name


def test_the_image_is_small_and_has_its_name(image: Image) -> None:
    assert image.size < MAX_BYTES
    assert names_in(image.path) == [NAME]
    assert f"ctr -n k8s.io images import {image.path}" in description(image)


def test_a_second_build_takes_what_is_there(image: Image) -> None:
    progress: list[str] = []
    assert find_or_build(progress.append) == image
    assert progress == []
