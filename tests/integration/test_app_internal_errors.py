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
app.RomanaOvs._finish = stumbles(app.RomanaOvs._finish)
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


HELD = """
from romana_ovs import runtime
from romana_ovs.controller.offload import Offload
offload = Offload()

def work():
    offload.defer({first})
    offload.defer(lambda: print("the second", flush=True))

try:
    offload.run(work)
except Exception:
    pass  # As the application does, which goes on after an internal error.
offload.defer(lambda: print("the third", flush=True))
"""


@pytest.mark.parametrize(
    ("first", "status", "said"),
    [
        ("lambda: print('the first', flush=True)", 0, "the first\nthe second\nthe third\n"),
        ("lambda: 1 / 0", 1, ""),
    ],
)
def test_what_had_to_wait_is_done_or_the_process_ends(first: str, status: int, said: str) -> None:
    """Objects that were told of while something was worked out aside: nobody tells of them again."""
    done = subprocess.run(
        [sys.executable, "-c", HELD.format(first=first)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (status, said), done.stderr
    assert ("ZeroDivisionError" in done.stderr) == bool(status)
