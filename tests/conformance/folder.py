"""An emulated cluster whose source is a folder of manifests, for the runner of the table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from romana_ovs_emulate.emulation import Emulation
from romana_ovs_emulate.fabric import Fabric
from tests.conformance.offline import MODES
from tests.conformance.runners import LANES, objects_of
from tests.conformance.states import lane_name, text_of
from tests.conformance.words import ALL_PORTS, SHARED, Manifest, namespace
from tests.support.editable_cluster import EditableCluster


def settings_of(mode: str) -> str:
    """The configuration of a mode; every lane has a shared tenant."""
    shared = ",".join(lane_name(SHARED, lane) for lane in range(LANES))
    return f"[romana]\nisolation = {MODES[mode].isolation.value}\nshared_tenants = {shared}\n"


class FolderCluster:
    """Live manifests: every `show` replaces the one file, and what is programmed then is all of it."""

    patience = 0.0

    def __init__(self, live: EditableCluster, settings: str) -> None:
        self._live = live
        self._settings = settings
        self._shown = count(1)

    @property
    def emulation(self) -> Emulation:
        """Its nodes and pods."""
        return self._live.emulation

    def show(self, manifests: Sequence[Manifest]) -> None:
        """Write them. The label of a namespace counts, so that there is a change to wait for."""
        told = namespace("shown", times=str(next(self._shown)))
        self._live.show(self._settings, text_of([*manifests, told]))


@contextmanager
def folder_cluster(folder: Path, mode: str) -> Iterator[FolderCluster]:
    """The cluster with the base in every lane."""
    settings = settings_of(mode)
    base = text_of(objects_of(None, [None] * LANES))
    ports = tuple(ALL_PORTS.split())
    with EditableCluster(folder, Fabric.LINK, ports=ports, settings=settings, manifests=base, warned=True) as live:
        yield FolderCluster(live, settings)
