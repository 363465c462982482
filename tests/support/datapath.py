"""Reads ROMANA_DATAPATH: which datapath the bridges of tests run on, `netdev` (userspace, the default) or `system`."""

from __future__ import annotations

import os

import pytest

from romana_ovs.model.bridge import DatapathType
from romana_ovs.model.errors import SetupError
from romana_ovs_emulate.datapath import choose_datapath

VARIABLE = "ROMANA_DATAPATH"

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

    Raises pytest.UsageError for an invalid ROMANA_DATAPATH, and for `system` without its module.
    """
    try:
        choose_datapath(datapath_type())
    except SetupError as error:
        raise pytest.UsageError(str(error)) from error
