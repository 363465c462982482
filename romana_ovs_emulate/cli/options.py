"""Declares the options that `demo` and `emulate` share: how nodes are joined, and on which datapath they are."""

from __future__ import annotations

import argparse
from pathlib import Path

from romana_ovs.config import datapath_in
from romana_ovs.model.bridge import DatapathType
from romana_ovs.option_values import AUTO
from romana_ovs_emulate.fabric import Fabric


def add_fabric(parser: argparse.ArgumentParser) -> None:
    """Add the argument --fabric, as `args.fabric`."""
    parser.add_argument(
        "--fabric",
        choices=[fabric.value for fabric in Fabric],
        default=Fabric.LINK.value,
        help="how nodes are joined (default link)",
    )


def add_datapath(parser: argparse.ArgumentParser) -> None:
    """Add the argument --datapath, as `args.datapath`; None when it is not given."""
    parser.add_argument(
        "--datapath",
        choices=[AUTO, *(one.value for one in DatapathType)],
        help="what forwards packets: system (the kernel's module), netdev (userspace) or auto, which is system where "
        "this kernel has it (default: the setting datapath, which is auto)",
    )


def asked_datapath(argument: str | None, settings: Path | None) -> DatapathType | None:
    """The datapath of the argument, else of the configuration file `settings`; None for `auto`. Raises InputError."""
    if argument is not None:
        return DatapathType(argument) if argument != AUTO else None
    return datapath_in(settings) if settings is not None else None
