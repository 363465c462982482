"""Reads ROMANA_DATAPATH: which datapath the bridges of tests run on, `netdev` (userspace, the default) or `system`."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from romana_ovs.model.bridge import DatapathType

VARIABLE = "ROMANA_DATAPATH"
MODULE = Path("/sys/module/openvswitch")

on_netdev = pytest.mark.skipif(
    os.environ.get(VARIABLE) == DatapathType.SYSTEM.value, reason="is about the userspace datapath"
)
on_system = pytest.mark.skipif(
    os.environ.get(VARIABLE) != DatapathType.SYSTEM.value,
    reason="is about the kernel's datapath",
)


def datapath_type() -> DatapathType:
    """The datapath of this run's bridges. Raises pytest.UsageError for any other value of ROMANA_DATAPATH."""
    text = os.environ.get(VARIABLE, "") or DatapathType.NETDEV.value
    try:
        return DatapathType(text)
    except ValueError as error:
        values = " or ".join(one.value for one in DatapathType)
        raise pytest.UsageError(f"{VARIABLE} is {text!r}; it must be {values}") from error


def check_datapath() -> None:
    """Check that tests can run on the datapath that is asked for.

    Raises pytest.UsageError for an invalid value, and for `system` where the kernel has no module for it.
    """
    if datapath_type() is DatapathType.SYSTEM and not (MODULE.exists() or _loads()):
        raise pytest.UsageError(f"{VARIABLE}=system: this kernel has no module openvswitch, so use netdev here")


def _loads() -> bool:
    """Whether the module could be loaded."""
    modprobe = shutil.which("modprobe")
    return modprobe is not None and not subprocess.run([modprobe, "-q", "openvswitch"], check=False).returncode
