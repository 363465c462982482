"""Container images made without Docker, as `docker save` writes them."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest

from romana_ovs.model.errors import SetupError
from romana_ovs_emulate.cluster import images


@pytest.fixture
def agnhost(tmp_path: Path) -> Path:
    """A program that has a version."""
    program = tmp_path / "agnhost"
    program.write_text("#!/bin/sh\necho app version 2.66.1\n")
    program.chmod(0o755)
    return program


@pytest.mark.skipif(shutil.which("busybox") is None, reason="needs busybox-static")
def test_archives_have_what_a_runtime_reads(tmp_path: Path, agnhost: Path) -> None:
    archives = images.write_images(tmp_path / "images", agnhost)
    names = {}
    for path in archives:
        with tarfile.open(path) as archive:
            files = {member.name: archive.extractfile(member) for member in archive}
            contents = {name: file.read() for name, file in files.items() if file is not None}
        (manifest,) = json.loads(contents["manifest.json"])
        config = json.loads(contents[manifest["Config"]])
        (layer,) = manifest["Layers"]
        assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(contents[layer]).hexdigest()}"]
        with tarfile.open(fileobj=io.BytesIO(contents[layer])) as tree:
            members = {member.name: member for member in tree}
        assert members["bin/busybox"].mode == 0o755 and members["bin/sh"].linkname == "busybox"
        (names[path.stem],) = manifest["RepoTags"]
    assert names == {
        "pause": images.PAUSE,
        "busybox": images.BUSYBOX,
        "agnhost": "registry.k8s.io/e2e-test-images/agnhost:2.66.1",
    }


def test_a_program_without_a_version_is_refused(agnhost: Path) -> None:
    agnhost.write_text("#!/bin/sh\necho app version development\n")
    with pytest.raises(SetupError, match="has no version: app version development"):
        images.agnhost_name(agnhost)
