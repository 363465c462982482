"""etc/openvswitch/restart.sh: in which order it does what, and that it leaves nothing waiting, whatever fails.

Open vSwitch's programs are stubs here; `tests/integration/test_switch_restart.py` restarts real switches.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "etc" / "openvswitch" / "restart.sh"
WAIT, GO = "vsctl wait", "vsctl go"
STUBS = {
    "ovs-vsctl": """
        case "$*" in
        *datapath_type=system*) echo $SYSTEM ;;
        *find*) ;;
        *list*) cat $FOLDER/ports ;;
        *remove*) echo vsctl go >> $FOLDER/log ;;
        *set*) echo vsctl wait >> $FOLDER/log ;;
        esac
    """,
    "ovs-ofctl": """
        case "$*" in
        *dump-meters*)
            echo "OFPST_METER_CONFIG reply (OF1.5) (xid=0x2):"
            for number in 7 9; do
                printf 'meter=%s pktps burst stats bands=\\ntype=drop rate=50 burst_size=100\\n\\n' $number
            done ;;
        *get-frags*) echo nx-match ;;
        *) echo "ofctl $*" | sed 's/-O OpenFlow15 //' >> $FOLDER/log; exit ${OFCTL:-0} ;;
        esac
    """,
    "scripts/ovs-save": 'echo "echo flows of $* >> $FOLDER/log; exit ${FLOWS:-0}"',
}


@dataclass
class Machine:
    """A folder of stubs, and what they did."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def restart(self, command: str = "true", system: str = "br-int") -> int:
        """The exit status of the script, for these bridges of the kernel's datapath."""
        environment = {
            **os.environ,
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "FOLDER": str(self.folder),
            "TMPDIR": str(self.folder / "tmp"),
            "OVS_PKGDATADIR": str(self.folder),
            "SYSTEM": system,
            **self.environment,
        }
        return subprocess.run(
            [str(SCRIPT), "sh", "-c", f"echo command >> {self.folder}/log; {command}"], env=environment, check=False
        ).returncode

    @property
    def log(self) -> list[str]:
        """What was done, in order but for the meters, which are added at once."""
        lines = (self.folder / "log").read_text().splitlines()
        meters = sorted(line for line in lines if "add-meter" in line)
        return [meters.pop(0) if "add-meter" in line else line for line in lines]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """One bridge of the kernel's datapath, two meters."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / "scripts").mkdir()
    (tmp_path / "ports").write_text("p1,1\np2,2\n")
    for name, text in STUBS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    return Machine(tmp_path)


def _meter(number: int) -> str:
    return f"ofctl add-meter br-int meter={number} pktps burst stats bands= type=drop rate=50 burst_size=100"


def test_flows_follow_their_meters_before_the_switch_goes_on(machine: Machine) -> None:
    assert machine.restart() == 0
    restored = [_meter(7), _meter(9), "ofctl set-frags br-int nx-match", "flows of save-flows br-int"]
    assert machine.log == [WAIT, "command", *restored, GO]
    assert list((machine.folder / "tmp").iterdir()) == []


def test_ports_of_other_numbers_get_no_old_flows(machine: Machine) -> None:
    assert machine.restart(f"echo p1,2 > {machine.folder}/ports") == 1
    assert machine.log == [WAIT, "command", GO]


@pytest.mark.parametrize("refused", ["OFCTL", "FLOWS"])
def test_what_is_refused_leaves_nothing_waiting(machine: Machine, refused: str) -> None:
    machine.environment[refused] = "1"
    assert machine.restart() == 1
    assert machine.log[-1] == GO


def test_a_command_that_fails_leaves_nothing_waiting(machine: Machine) -> None:
    assert machine.restart("exit 7") == 7
    assert machine.log == [WAIT, "command", GO]


def test_a_userspace_bridge_is_restarted_without_its_flows(machine: Machine) -> None:
    """Its connections are lost; with its flows in place the controller would not notice."""
    assert machine.restart("exit 3", system="") == 3
    assert machine.log == ["command"]
