"""kubectl reads every manifest in README and docs as it stands there.

Without an API server `kubectl apply --dry-run=client` cannot map kinds to resources; `kubectl label --local` reads a
file in the same way and needs none. tests/apiserver/test_docs_manifests.py does the former.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from romana_ovs_emulate import binaries
from tests.support.documented_manifests import REFUSED, DocumentedManifest, documented_manifests

MANIFESTS = documented_manifests()


@pytest.fixture(scope="module")
def kubectl() -> str:
    """The kubectl of the built control plane, else the one in the PATH."""
    found = binaries.find()
    if found is not None:
        return str(found.path("kubectl"))
    installed = shutil.which("kubectl")
    if installed is None:
        pytest.skip("needs kubectl")
    return installed


def test_manifests_of_pages_are_found() -> None:
    assert {"README.md#1", "README.md#2", "docs/cli.md#1"} <= {one.where for one in MANIFESTS}
    assert REFUSED.keys() <= {one.where for one in MANIFESTS}


@pytest.mark.parametrize(
    "manifest", [one for one in MANIFESTS if one.where not in REFUSED], ids=lambda manifest: manifest.where
)
def test_kubectl_reads_it(manifest: DocumentedManifest, kubectl: str, tmp_path: Path) -> None:
    file = tmp_path / "manifest.yaml"
    file.write_text(manifest.text)
    command = [kubectl, "label", "--local", f"--filename={file}", "tried=yes", "--output=name"]
    environment = {"HOME": str(tmp_path), "KUBECONFIG": str(tmp_path / "none"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == manifest.text.count("\n---\n") + 1
