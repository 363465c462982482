"""A real API server takes the manifest of an installation as it is, and objects with other values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from romana_ovs_emulate.controlplane import ControlPlane
from romana_ovs_emulate.manifests import INSTALL, install_manifest
from tests.support.control_plane import needed_binaries

ROOT = Path(__file__).parents[2]
CHANGES: tuple[dict[str, Any], ...] = (
    {},
    {
        "apiServer": {"host": "192.0.2.1", "port": 443},
        "imagePullSecrets": [{"name": "mine"}],
        "attachOptions": ["--mtu=1400"],
        "cni": {"binDir": "/usr/lib/cni"},
        "registry": {"replicas": 3},
    },
)
OBJECTS = 31


@pytest.mark.parametrize("changes", CHANGES)
def test_the_server_would_take_all_of_it(control_plane: ControlPlane, tmp_path: Path, changes: dict[str, Any]) -> None:
    (tmp_path / "install.yaml").write_text(install_manifest(ROOT, changes))
    words = ["apply", "--server-side", "--dry-run=server", "--force-conflicts", "-f", str(tmp_path / "install.yaml")]
    lines = control_plane.kubectl(*words).splitlines()
    assert len(lines) == OBJECTS
    assert "daemonset.apps/romana-node serverside-applied (server dry run)" in lines


def test_an_applied_manifest_differs_in_nothing() -> None:
    with ControlPlane(binaries=needed_binaries()) as plane:
        first = plane.kubectl("apply", "-f", str(ROOT / INSTALL)).splitlines()
        assert len(first) == OBJECTS and all(line.endswith(" created") for line in first)
        difference = plane.try_kubectl("diff", "-f", str(ROOT / INSTALL))
        assert (difference.returncode, difference.stdout) == (0, "")
        plane.kubectl("delete", "-f", str(ROOT / INSTALL), "--wait=false")
