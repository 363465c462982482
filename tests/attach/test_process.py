"""The agent as a process: no eventlet in it, and options that are checked."""

from __future__ import annotations

import subprocess
import sys

from tests.support.controller_process import ROOT

LOADED = """
import sys
from romana_ovs.attach.without_eventlet import block_eventlet
block_eventlet()
import romana_ovs.attach.agent
print([name for name, module in sys.modules.items() if module and name.partition(".")[0] in ("eventlet", "greenlet")])
print("ovs.db.idl" in sys.modules)
"""


def test_the_agents_process_has_no_eventlet() -> None:
    """Also not by way of the ovs package, which imports it where it is installed."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    assert done.stdout.split("\n")[:2] == ["[]", "True"] and done.stderr == ""


def test_options_are_checked() -> None:
    for option, text, words in (
        ("--mtu", "99999", "--mtu: 99999 is not from 576 to 65535"),
        ("--wait", "0", "--wait: 0 is not from 0 to 60 seconds"),
        ("--bridge", "a/b", "--bridge: 'a/b' is no name of a bridge"),
    ):
        command = [sys.executable, "-m", "romana_ovs", "attach", option, text]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
        assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
