"""What fails is told, and tried again after a while or when it is asked for otherwise."""

from __future__ import annotations

# mypy: ignore-errors
from pathlib import Path
from types import SimpleNamespace

from romana_ovs.addressing.plan import Plan as AddressPlan
from romana_ovs.model.settings import Settings
from romana_ovs_emulate.emulation import Emulation, Plan
from romana_ovs_emulate.troubles import RETRY_SECONDS, Troubles


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_failed_is_due_again_after_a_while_or_otherwise() -> None:
    clock = Clock()
    troubles = Troubles(clock)
    assert troubles.due("a", 1) and troubles.reasons == {}
    troubles.failed("a", 1, "why")
    assert not troubles.due("a", 1) and troubles.due("a", 2) and troubles.due("b", 1)
    assert troubles.reasons == {"a": "why"}
    clock.now += RETRY_SECONDS
    assert troubles.due("a", 1)
    troubles.failed("a", 1, "why else")
    assert not troubles.due("a", 1) and troubles.reasons == {"a": "why else"}
    troubles.over("a")
    troubles.over("b")
    assert troubles.due("a", 1) and troubles.reasons == {}


def test_that_ports_are_not_filtered_is_told_once() -> None:
    said: list[str] = []
    emulation = Emulation(Plan(Path(), ("node1",), None, AddressPlan.of(Settings())), complain=said.append)
    emulation._pods = SimpleNamespace(failed={}, unfiltered="")  # type: ignore[assignment]
    emulation._tell_troubles()
    assert said == []
    emulation._pods.unfiltered = "why"  # type: ignore[misc]
    emulation._tell_troubles()
    emulation._tell_troubles()
    assert said == ["why"] and emulation.troubles == ("why",)
