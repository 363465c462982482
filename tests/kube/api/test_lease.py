"""The thread that keeps a lease, against a server that does what no real one can be made to do on demand."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from romana_ovs.kube.api.client import Api
from romana_ovs.kube.api.desired import Leadership
from romana_ovs.kube.api.election import Timing
from romana_ovs.kube.api.lease import Elector, LeaseName
from romana_ovs.kube.api.messages import Health
from tests.support.scripted_server import Exchange, ScriptedServer, kubeconfig

TIMING = Timing(lease_duration=3, renew_deadline=1, retry_period=0.1, request_timeout=10)
SECONDS = 20.0


class Told:
    """What an elector says."""

    def __init__(self) -> None:
        self.messages: list[object] = []
        self._news = threading.Condition()

    def __call__(self, message: object) -> None:
        with self._news:
            self.messages.append(message)
            self._news.notify_all()

    def until(self, wanted: object) -> None:
        with self._news:
            assert self._news.wait_for(lambda: wanted in self.messages, SECONDS), self.messages


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def elector(server: ScriptedServer, told: Told, tmp_path: Path) -> Iterator[Elector]:
    """An elector in its thread, ended with the test."""
    made = Elector(Api(kubeconfig(tmp_path, server.url)), LeaseName(), identity="me", notify=told, timing=TIMING)
    thread = threading.Thread(target=made.run, daemon=True)
    thread.start()
    yield made
    made.stop()
    for connection in server.connections:
        connection.close()
    thread.join(SECONDS)
    assert not thread.is_alive()


def store(exchange: Exchange) -> None:
    """Take what is written."""
    body = json.loads(exchange.request.body)
    body["metadata"]["resourceVersion"] = str(time.monotonic_ns())
    exchange.answer(200, body)


def absent(exchange: Exchange) -> None:
    exchange.answer(404, {"kind": "Status", "message": "there is no such lease"})


def hang(exchange: Exchange) -> None:
    """Say nothing, for longer than anybody waits."""
    threading.Event().wait(SECONDS)


@pytest.mark.alone
def test_a_hung_renewal_costs_the_right_to_write_in_time(server: ScriptedServer, told: Told, elector: Elector) -> None:
    """docs/hazards.md C12: a PUT that hangs."""
    server.then(absent, store, hang, *[hang] * 10)
    told.until(Leadership(True, "me"))
    began = time.monotonic()
    while elector.guard.may_write():
        assert time.monotonic() - began < TIMING.lease_duration, (
            "the fence looks at the clock, whatever the thread does"
        )
        time.sleep(0.01)
    told.until(Leadership(False, "me"))
    assert time.monotonic() - began < TIMING.lease_duration, "so nobody else can lead yet"


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"metadata": {}}', b'{"metadata": {"resourceVersion": "1"}, "spec": 7}']
)
def test_an_answer_that_is_no_lease_is_trouble_and_no_end(
    body: bytes, server: ScriptedServer, told: Told, elector: Elector
) -> None:
    server.then(lambda exchange: exchange.answer(200, body), absent, store, store, store)
    told.until(Leadership(True, "me"))
    assert any(isinstance(one, Health) and one.error for one in told.messages)
    told.until(Health("lease kube-system/romana-ovs"))


def test_a_denied_lease_is_reported_once(server: ScriptedServer, told: Told, elector: Elector) -> None:
    no = {"kind": "Status", "message": 'User "x" cannot get resource "leases"'}
    server.then(*[lambda exchange: exchange.answer(403, no)] * 4, absent, store, store, store)
    told.until(Leadership(True, "me"))
    assert len([one for one in told.messages if isinstance(one, Health) and one.error]) == 1
