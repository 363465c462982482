"""An internal error: it is logged, what is programmed stays, what it was about is done again, or the process ends.

docs/hazards.md C8 (and D4): a handler that raises must not lose what it was told of.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.controller_process import Controller
from tests.support.manifests import PORT_80_POLICY, TWO_NODES, placed_pod
from tests.support.private_ovs import Ovs, needs_ovs

ROOT = Path(__file__).resolve().parents[2]
KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
"""
STUMBLING = """
import sys
from romana_ovs import app
from romana_ovs.cli.main import main
from romana_ovs.controller import table_compiler

def stumbles(function):
    left = [ZeroDivisionError("stumbled")]
    def instead(*args, **kwargs):
        if left:
            raise left.pop()
        return function(*args, **kwargs)
    return instead

table_compiler.compile_node = stumbles(table_compiler.compile_node)
app.RomanaOvs._step = stumbles(app.RomanaOvs._step)
app.RomanaOvs._announce_programmed = stumbles(app.RomanaOvs._announce_programmed)
sys.exit(main(["controller", *sys.argv[1:]]))
"""


@pytest.mark.root
@needs_ovs
def test_failed_work_is_retried_without_a_change() -> None:
    with Ovs() as ovs, Controller((ovs.remote,)) as controller:
        controller.write("nodes.yaml", TWO_NODES)
        controller.write("pods.yaml", placed_pod("x") + placed_pod("y"))
        controller.write("policy.yaml", PORT_80_POLICY)
        ovs.bridge("br-int", node="node1", controller=controller.openflow)
        ovs.port("br-int", "px", iface_id="a/x", ofport=1)
        controller.start((sys.executable, "-c", STUMBLING))
        controller.until(lambda state: any("stumbled" in one for one in state["problems"]), "it says so")
        controller.settled()
        state = controller.until(lambda state: not state["problems"] and not state["pending"], "all is well")
        assert len(ovs.flows("br-int")) == state["nodes"]["node1"]["flows"]["total"]
        log = controller.log
        assert log.count("ZeroDivisionError: stumbled") == 3
        assert log.count("internal error; what is programmed stays") == 2
        assert log.count("node node1: its tables cannot be made; what is programmed stays") == 1


LOSING = """
import sys
from romana_ovs.cli.main import main
from romana_ovs.kube.cache.cluster_cache import ClusterCache

def broken(*_):
    raise ZeroDivisionError("stumbled")

ClusterCache.apply = broken
sys.exit(main(["controller", *sys.argv[1:]]))
"""


def test_events_that_cannot_be_applied_end_the_process(tmp_path: Path) -> None:
    """They would not come again: a new process lists everything."""
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    (tmp_path / "romana.conf").write_text(
        f"[romana]\nkubeconfig = {tmp_path / 'kubeconfig'}\nregistry_only = yes\n"
        f"state_file = {tmp_path / 'state'}\nstatus_socket = {tmp_path / 'status'}\n"
    )
    listen = ("--ofp-listen-host", f"unix:{tmp_path / 'openflow'}")
    done = subprocess.run(
        [sys.executable, "-c", LOSING, "--config-file", str(tmp_path / "romana.conf"), *listen],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1 and "stumbled" in done.stderr, done.stderr
    assert "a new process lists everything" in done.stderr
