"""A bare Mininet joins by `iface-id` and gets the same verdicts. All of it in a network namespace of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from romana_ovs.model.bridge import DatapathType
from romana_ovs.switch.sctp_probe import PROBE_ZONE
from romana_ovs_emulate.patience import patience
from tests.support.datapath import datapath_type
from tests.support.private_ovs import START_SWITCH

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("mn") is None, reason="needs Mininet"),
]

MININET_NAME = "kernel" if datapath_type() is DatapathType.SYSTEM else "user"
"""What Mininet calls the datapath of this run."""

START = f"""
set -e
{START_SWITCH}cd {ROOT}
set +e
"$@"
code=$?
kill $(cat "$OVS_RUNDIR/v.pid") $(cat "$OVS_RUNDIR/o.pid")
exit $code
"""

# The zones of tracked connections while a command runs, and those that the bridges' flows name.
WATCHED = """
"$@" &
running=$!
switch="$OVS_RUNDIR/ovs-vswitchd.$(cat "$OVS_RUNDIR/v.pid").ctl"
while kill -0 $running 2> "$OVS_RUNDIR/null"; do
    for bridge in node1 node2; do
        ovs-ofctl -O OpenFlow15 dump-flows $bridge 2> "$OVS_RUNDIR/null" | sed "s/^/$bridge /" >> "$OVS_RUNDIR/flows"
    done
    ovs-appctl -t "$switch" dpctl/dump-conntrack >> "$OVS_RUNDIR/tracked" 2> "$OVS_RUNDIR/null"
    sleep 0.1
done
wait $running
"""


@pytest.fixture
def rundir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rmn-") as name:
        yield Path(name)


def apart(rundir: Path, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command in a namespace of its own, with an Open vSwitch of its own."""
    folders = dict.fromkeys(("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"), str(rundir))
    env = {**os.environ, "PYTHONPATH": str(ROOT), **folders}
    return subprocess.run(
        ["unshare", "--net", "sh", "-c", START, "sh", *argv],
        env=env,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=patience(120),
        check=False,
    )


@pytest.mark.parametrize("with_policy", [False, True])
def test_two_switches_give_the_verdicts_of_the_demonstration(tmp_path: Path, rundir: Path, with_policy: bool) -> None:
    demo = ROOT / "etc" / "demo"
    for path in demo.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    if with_policy:
        shutil.copy(demo / "policy" / "policy1.yaml", tmp_path)
    done = apart(
        rundir, "sh", "-c", WATCHED, "sh", sys.executable, "mininet/demo_two_switches.py", str(tmp_path), MININET_NAME
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert ("default/nginx-frontend -> default/nginx-backend 80/tcp" in lines) == with_policy
    assert "default/nginx-default-0 -> default/nginx-default-1 80/tcp" in lines
    assert len(lines) == 6 + with_policy
    check_zones((rundir / "flows").read_text(), (rundir / "tracked").read_text())


def check_zones(flows: str, tracked: str) -> None:
    """One process, one conntrack table: the two bridges must share no zone in it, nor use the host's, which is 0."""
    loaded = {
        bridge: re.findall(rf"^{bridge} .*set_field:(0x[0-9a-f]+)/0xffff0000->reg11", flows, re.MULTILINE)
        for bridge in ("node1", "node2")
    }
    numbers = {bridge: {int(value, 0) >> 16 for value in values} for bridge, values in loaded.items()}
    assert all(numbers.values())
    assert not numbers["node1"] & numbers["node2"]
    assert 0 not in numbers["node1"] | numbers["node2"]
    assert not re.search(r"\bct\((?![^)]*zone=)", flows), "every use of conntrack names its zone"
    assert {int(zone, 0) for zone in re.findall(r"zone=(\w+)", tracked)} <= {
        *numbers["node1"],
        *numbers["node2"],
        PROBE_ZONE,
    }


def test_mn_makes_bridges_that_name_their_pods_and_links(rundir: Path) -> None:
    asked = (
        "sh ovs-vsctl get bridge node1 fail_mode datapath_type protocols external_ids:romana-node\n"
        "sh ovs-vsctl get interface node1-eth1 external_ids\n"
        "sh ovs-vsctl get interface node2-eth2 external_ids\n"
        "sh ovs-ofctl -O OpenFlow15 dump-flows node1\n"
        "pod1 ethtool -k pod1-eth0 | grep tx-checksumming\n"
        'py pod1.become("10.0.64.0", "0a:58:0a:00:40:00")\n'
        "pod1 ip -br addr show dev pod1-eth0\n"
    )
    done = apart(
        rundir,
        "mn",
        "--custom",
        "mininet/romana_topo.py",
        "--topo",
        f"romana,2,4,datapath={MININET_NAME}",
        "--controller",
        "none",
        "--switch",
        "romana",
        stdin=asked,
    )
    said = done.stdout + done.stderr
    column = "netdev" if datapath_type() is DatapathType.NETDEV else '""'
    assert f"secure\n{column}\n[OpenFlow15]\nnode1" in said, said
    assert "{romana-link=node2}" in said
    assert '{iface-id="default/pod2"}' in said
    assert "tx-checksumming: off" in said
    assert "10.0.64.0/32" in said
    assert "NORMAL" not in said
