"""What fails is told, and tried again after a while or when it is asked for otherwise."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.model.settings import Settings
from romana_ovs_emulate.emulation import Emulation, Plan
from romana_ovs_emulate.failures import RETRY_SECONDS, Failures


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_failure_is_due_after_a_while_or_when_changed() -> None:
    clock = Clock()
    failures = Failures(clock)
    assert failures.due("a", 1) and failures.reasons == {}
    failures.record("a", 1, "why")
    assert not failures.due("a", 1) and failures.due("a", 2) and failures.due("b", 1)
    assert failures.reasons == {"a": "why"}
    clock.now += RETRY_SECONDS
    assert failures.due("a", 1)
    failures.record("a", 1, "why else")
    assert not failures.due("a", 1) and failures.reasons == {"a": "why else"}
    failures.clear("a")
    failures.clear("b")
    assert failures.due("a", 1) and failures.reasons == {}


def test_unfiltered_ports_are_reported_once() -> None:
    said: list[str] = []
    emulation = Emulation(Plan(Path(), ("node1",), None, AddressPlan.of(Settings())), on_error=said.append)
    pods = SimpleNamespace(failed={}, unfiltered="")
    emulation._pods = pods  # type: ignore[assignment]
    emulation._report_failures()
    assert said == []
    pods.unfiltered = "why"
    emulation._report_failures()
    emulation._report_failures()
    assert said == ["why"] and emulation.failures == ("why",)
