"""An emulation that has ended is left alone by those who tell it of pods."""

from __future__ import annotations

from pathlib import Path

from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.model.settings import Settings
from romana_ovs_emulate.emulation import Emulation, Plan


class PodsThatMayNotChange:
    """Stands for the pods of an emulation: what runs is asked, not changed."""

    running: dict[str, object] = {}

    def follow(self, places: object) -> None:
        raise AssertionError("the namespaces and bridges of these pods are gone")


def test_a_closed_emulation_reconciles_nothing(tmp_path: Path) -> None:
    """The API server goes on telling of pods after the end: that of the kubelets is one more reason to."""
    emulation = Emulation(Plan(tmp_path, ("node1",), None, AddressPlan.of(Settings()), follows_api=True))
    emulation._pods = PodsThatMayNotChange()  # type: ignore[assignment]
    emulation.close()
    emulation.reconcile()
    assert emulation.pods == {}
