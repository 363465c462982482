"""kubectl and a real API server take every manifest in README and docs as it stands there."""

from __future__ import annotations

import pytest

from romana_ovs_emulate.controlplane import ControlPlane
from tests.support.documented_manifests import REFUSED, DocumentedManifest, documented_manifests

NAMESPACE = "shop"
MANIFESTS = documented_manifests()


@pytest.mark.parametrize(
    "manifest", [one for one in MANIFESTS if one.where not in REFUSED], ids=lambda manifest: manifest.where
)
def test_kubectl_would_apply_it(manifest: DocumentedManifest, control_plane: ControlPlane, namespace: str) -> None:
    dry_run = control_plane.try_kubectl("apply", "--dry-run=client", "--filename=-", stdin=manifest.text)
    assert (dry_run.returncode, dry_run.stderr) == (0, "")
    # The server validates truly. It needs the namespaces, and one that is only announced does not count.
    text = manifest.text.replace(f"namespace: {NAMESPACE}", f"namespace: {namespace}")
    text = text.replace("namespace: bank", f"namespace: {namespace}")
    assert control_plane.try_kubectl("apply", "--dry-run=server", "--filename=-", stdin=text).stderr == ""


@pytest.mark.parametrize("where", REFUSED)
def test_kubectl_refuses_the_others(where: str, control_plane: ControlPlane) -> None:
    (manifest,) = (one for one in MANIFESTS if one.where == where)
    tried = control_plane.try_kubectl("apply", "--dry-run=server", "--filename=-", stdin=manifest.text)
    assert tried.returncode != 0, f"it is applied, so it is no exception: {REFUSED[where]}"
