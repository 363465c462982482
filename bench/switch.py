"""Starts a node to measure on: a real Open vSwitch in a network namespace, removed at the end."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from romana_ovs.model.bridge import POD_ID, TUNNEL_ID, DatapathType
from romana_ovs.model.errors import SetupError
from romana_ovs_emulate.controller import controller_socket
from romana_ovs_emulate.datapath import choose_datapath
from romana_ovs_emulate.nodes import BRIDGE, Node, start_node
from romana_ovs_emulate.runs import Run, start_run

TUNNEL_ADDRESS = "172.16.0.1"
DATAPATH = "ROMANA_DATAPATH"
"""The environment variable with the datapath to measure on: `netdev` (the default) or `system`."""


def datapath_type() -> DatapathType:
    """The datapath that is measured. Raises SetupError for `system` without its module, and for any other value."""
    text = os.environ.get(DATAPATH, "") or DatapathType.NETDEV.value
    if text not in {one.value for one in DatapathType}:
        raise SetupError(f"{DATAPATH} is {text!r}; it must be system or netdev")
    return choose_datapath(DatapathType(text))


@contextmanager
def node(name: str) -> Iterator[tuple[Run, Node]]:
    """A run with one node."""
    run = start_run()
    try:
        yield run, start_node(run, name, controller=controller_socket(run), datapath=datapath_type())
    finally:
        run.close()


def plug(here: Node, pods: Iterable[str]) -> None:
    """Ports for `pods` (`namespace/name`), numbered from 1 on in their order, and a tunnel port."""
    words: list[str] = []
    for number, pod in enumerate(pods, start=1):
        name = f"p{number}"
        words += ["--", "add-port", BRIDGE, name, "--", "set", "interface", name, "type=internal"]
        words += [f"ofport_request={number}", f"external_ids:{POD_ID}={pod}"]
    words += ["--", "add-port", BRIDGE, "tunnel", "--", "set", "interface", "tunnel", "type=geneve"]
    words += ["options:remote_ip=flow", f"options:local_ip={TUNNEL_ADDRESS}", "options:key=7"]
    words += [f"external_ids:{TUNNEL_ID}=yes"]
    here.vsctl(*words)


@contextmanager
def folder() -> Iterator[Path]:
    """An empty folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="romana-bench-") as name:
        yield Path(name)
