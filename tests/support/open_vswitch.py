"""Reads ROMANA_OVS: the prefix of the Open vSwitch that tests use, such as `/opt/ovs`; without it that in the PATH.

A prefix is what `./configure --prefix` of Open vSwitch's sources takes. Its programs are put first in the PATH, so
everything that a test starts uses them: switches, the emulator, Mininet, shell scripts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from romana_ovs.model.errors import SetupError
from romana_ovs_emulate.system import SCHEMA

VARIABLE = "ROMANA_OVS"
FOLDERS = ("sbin", "bin")
"""Where the programs are, below the prefix."""
PROGRAMS = ("ovs-vswitchd", "ovsdb-server", "ovsdb-tool", "ovs-vsctl", "ovs-ofctl", "ovs-appctl")


def chosen_prefix() -> Path | None:
    """The prefix that ROMANA_OVS names, or None. Raises SetupError when it has not all that tests need."""
    text = os.environ.get(VARIABLE, "")
    if not text:
        return None
    prefix = Path(text).absolute()
    for program in PROGRAMS:
        if shutil.which(program, path=_search_path(prefix)) is None:
            raise SetupError(f"{VARIABLE} is {text}, but there is no {program} in its {' or '.join(FOLDERS)}")
    if not (prefix / SCHEMA).is_file():
        raise SetupError(f"{VARIABLE} is {text}, but there is no {SCHEMA} in it")
    return prefix


def use_open_vswitch() -> None:
    """Put the programs of ROMANA_OVS first in the PATH of this process. Raises pytest.UsageError if one is missing."""
    try:
        prefix = chosen_prefix()
    except SetupError as error:
        raise pytest.UsageError(str(error)) from error
    if prefix is None:
        return
    first, inherited = _search_path(prefix), os.environ.get("PATH", os.defpath)
    # Workers inherit what was set before.
    if not inherited.startswith(first + os.pathsep):
        os.environ["PATH"] = os.pathsep.join([first, inherited])


def open_vswitch_version() -> str:
    """The version of the Open vSwitch in the PATH, such as `3.1.0`; empty without one."""
    if shutil.which("ovs-vswitchd") is None:
        return ""
    shown = subprocess.run(["ovs-vswitchd", "--version"], capture_output=True, text=True, check=False, timeout=60)
    return shown.stdout.partition("\n")[0].rpartition(" ")[2]


def _search_path(prefix: Path) -> str:
    return os.pathsep.join(str(prefix / folder) for folder in FOLDERS)
