"""How long a switch may be busy with flushes: each request is a search of its whole connection table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import cast

import pytest

from romana_ovs import runtime
from romana_ovs.controller.flush_queue import BUDGET_SECONDS, MAX_PENDING, PAUSES, FlushQueue
from romana_ovs.pipeline.zones import common_zone, zone
from romana_ovs.switch.channel import Channel, ConnectionLost, NoAnswer, SwitchRefused
from romana_ovs.sync.attached_pods import AttachedPod

assert runtime.OFP_VERSION == 6, "Ryu's modules can be imported in its own order alone: runtime comes first"

HOST, TENANT = 3, 5
PODS = {IPv4Address(number): AttachedPod(number, pre_restart=False, zone=TENANT) for number in range(1, 101)}
ZONES = 2


@dataclass
class SlowChannel:
    """A switch that needs `seconds` for a request, and what it was asked for."""

    seconds: float
    now: float = 100.0
    asked: list[tuple[int | None, IPv4Address]] = field(default_factory=list)
    error: Exception | None = None
    dpid: int = 1

    def flush_connections(self, zone: int | None, addresses: Iterable[IPv4Address]) -> None:
        self.now += self.seconds
        if self.error is not None:
            raise self.error
        self.asked += [(zone, address) for address in addresses]


def _queue(seconds: float, error: Exception | None = None) -> tuple[SlowChannel, FlushQueue]:
    channel = SlowChannel(seconds, error=error)
    return channel, FlushQueue(cast(Channel, channel), lambda: channel.now)


def test_a_quick_switch_flushes_every_address_at_once() -> None:
    channel, queue = _queue(0.001)
    queue.flush_now(HOST, PODS)
    zones = sorted({zone(HOST, TENANT), common_zone(HOST)})
    assert channel.asked == [(number, address) for address in PODS for number in zones]
    assert queue.skipped == 0


def test_all_zones_of_a_shared_tenant_are_one_request() -> None:
    channel, queue = _queue(0.001)
    address = IPv4Address("10.0.0.1")
    queue.flush_now(HOST, {address: AttachedPod(1, pre_restart=False, shared=True)})
    assert channel.asked == [(None, address)]


def test_a_slow_switch_delays_new_pods_for_a_bounded_time() -> None:
    """A hundred new pods at a table of a million connections: without a limit they would wait for minutes."""
    channel, queue = _queue(0.4)
    begun = channel.now
    queue.flush_now(HOST, PODS)
    assert channel.now - begun <= BUDGET_SECONDS + ZONES * channel.seconds
    assert queue.skipped == len(PODS) - len(channel.asked) / ZONES > 90
    before = len(channel.asked)
    queue.flush_now(HOST, PODS)
    assert len(channel.asked) == before, "no more before the switch had time for others"
    channel.now += PAUSES * 2 * BUDGET_SECONDS
    queue.flush_now(HOST, PODS)
    assert len(channel.asked) == 2 * before


def test_removed_pods_are_flushed_one_at_a_time_with_pauses() -> None:
    channel, queue = _queue(0.4)
    queue.flush_later(HOST, PODS)
    assert channel.asked == [] and queue.pending == len(PODS)
    assert queue.flush_one() == pytest.approx(PAUSES * ZONES * 0.4)
    assert len(channel.asked) == ZONES and queue.pending == len(PODS) - 1


def test_an_address_that_has_a_pod_again_is_not_flushed_later() -> None:
    channel, queue = _queue(0.001)
    first, second, third = list(PODS)[:3]
    queue.flush_later(HOST, {address: PODS[address] for address in (first, second, third)})
    queue.cancel([first])
    queue.flush_now(HOST, {second: PODS[second]})
    queue.flush_one()
    assert queue.pending == 0
    assert [address for _, address in channel.asked[::ZONES]] == [second, third]


def test_more_than_can_wait_are_counted() -> None:
    _, queue = _queue(0.001)
    pods = {IPv4Address(number): PODS[IPv4Address(1)] for number in range(1, MAX_PENDING + 11)}
    queue.flush_later(HOST, pods)
    assert (queue.pending, queue.skipped) == (MAX_PENDING, 10)


def test_a_switch_without_an_answer_is_left_alone() -> None:
    """It answers late. Its tables do not wait for it, and the connection to it is kept."""
    channel, queue = _queue(10.0, NoAnswer("no answer"))
    queue.flush_now(HOST, PODS)
    assert channel.now == 110.0 and queue.skipped == len(PODS)
    queue.flush_later(HOST, PODS)
    assert queue.flush_one() == PAUSES * 10.0 and queue.skipped == len(PODS) + 1


def test_a_refusal_is_not_fatal_and_a_lost_connection_is() -> None:
    _, refusing = _queue(0.1, SwitchRefused([(None, "bad type")]))
    refusing.flush_now(HOST, PODS)
    _, lost = _queue(0.1, ConnectionLost("gone"))
    with pytest.raises(ConnectionLost):
        lost.flush_now(HOST, PODS)
