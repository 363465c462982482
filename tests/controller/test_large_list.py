"""A controller that lists a large cluster, and lists it anew: it answers its switches meanwhile, in little memory.

The API server is one of our own, whose pods are nothing to make; what a real one costs, `make bench` measures.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.echo import EchoProbe
from tests.support.scripted_server import Exchange, ScriptedServer, kubeconfig, scripted_server
from tests.support.split_cluster import SplitController
from tests.support.waiting import eventually

FIRST, THEN = 20_000, 10_000
"""Pods of the first listing, and of those after it, in which every one is other than it was."""
SECONDS = 60.0
LONGEST_ECHO = 4000.0
"""Milliseconds, where others load the machine; alone it is a tenth. A switch asks every 5 s, and hangs up after 10."""
MAX_MIB = 200
"""What each of the two processes may have in memory; 20,000 whole pods as Python values would be 230 more."""
PADDING = ",".join(f'{{"name":"SETTING_{number}","value":"of a container, {number:040}"}}' for number in range(25))
POD = (
    '{"metadata":{"name":"p%(number)d","namespace":"shop","uid":"u%(number)d","resourceVersion":"%(version)d",'
    '"labels":{"app":"web","tier":"t%(tier)d"}},"spec":{"nodeName":"n%(node)d","containers":[{"name":"c","image":"i",'
    '"ports":[{"containerPort":80,"name":"http"}],"env":[' + PADDING + "]}]},"
    '"status":{"phase":"Pending"}}'
)
EXPIRED = b'{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old"}}\n'
LAST = (
    b'{"type":"ADDED","object":{"metadata":{"name":"last","namespace":"shop","uid":"u","resourceVersion":"999"},'
    b'"spec":{"containers":7}}}\n'
)
"""An invalid pod, which is logged: then all messages before it have been applied."""


class Quiet(SplitController):
    """A controller of which nobody asks how all of 20,000 pods are at every change."""

    def _follow(self, events: list[dict[str, Any]]) -> None:
        """Ask nothing."""


class Large:
    """What the server answers: pods in pages as the client asks, versions of its own at every listing."""

    def __init__(self) -> None:
        self.listings = 0
        self.first_listed = threading.Event()
        self.relist = threading.Event()
        self.done = threading.Event()
        self.expired_pages = 0

    def __call__(self, exchange: Exchange) -> None:
        path, query = exchange.request.path, exchange.request.query
        if path.endswith("/pods"):
            (self._watch if "watch" in query else self._page)(exchange)
        elif exchange.request.method != "GET" or "/leases/" in path:
            exchange.answer(403, {"kind": "Status", "message": "nobody leads here"})
        elif "watch" in query:
            exchange.begin()
            self.done.wait()
        else:
            exchange.answer(200, {"metadata": {"resourceVersion": "1"}, "items": []})

    def _page(self, exchange: Exchange) -> None:
        """The next page; in the second listing the page in the middle has expired, once."""
        limit, begin = int(exchange.request.query["limit"]), int(exchange.request.query.get("continue", 0))
        if not begin:
            self.listings += 1
        pods = FIRST if self.listings == 1 else THEN
        if self.listings == 2 and begin >= pods // 2:
            self.expired_pages += 1
            exchange.answer(410, {"kind": "Status", "message": "the continue parameter is too old"})
            return
        now = self.listings
        items = ",".join(
            POD % {"number": number, "version": now, "tier": (number + now) % 7, "node": number % 99}
            for number in range(begin, min(begin + limit, pods))
        )
        rest = f',"continue":"{begin + limit}"' if begin + limit < pods else ""
        head = f'{{"metadata":{{"resourceVersion":"{self.listings * 100}"{rest}}},"items":['
        exchange.answer(200, f"{head}{items}]}}".encode())

    def _watch(self, exchange: Exchange) -> None:
        """Expires after the first complete listing; after the last one it tells of a pod that is refused."""
        exchange.begin()
        if self.listings == 1:
            self.first_listed.set()
            self.relist.wait()
            exchange.chunk(EXPIRED)
            exchange.chunk(b"")
            return
        exchange.chunk(LAST)
        self.done.wait()


@pytest.fixture
def large() -> Iterator[tuple[Large, ScriptedServer]]:
    answers = Large()
    with scripted_server() as server:
        server.then(*[answers] * 2000)
        yield answers, server
        answers.relist.set()
        answers.done.set()


def most(pid: int) -> float:
    """The most memory that a process has had, in MiB (proc(5))."""
    match = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1]) / 1024


@pytest.mark.alone
def test_listing_a_large_cluster_twice_keeps_no_switch_waiting(
    large: tuple[Large, ScriptedServer], tmp_path: Path
) -> None:
    """docs/hazards.md C9, C10 and D10: pages, one expired; every pod decoded anew; echoes answered meanwhile."""
    answers, server = large
    with Quiet("large", Path(kubeconfig(tmp_path, server.url).kubeconfig), []) as controller:
        controller.start()
        with EchoProbe(Path(controller.openflow)) as echo:
            eventually(answers.first_listed.is_set, "all pods are listed", SECONDS)
            first = len(echo.delays)
            answers.relist.set()
            eventually(lambda: "refused: Pod shop/last: " in controller.log, "they are listed anew", SECONDS)
        assert controller.process is not None
        memory = most(controller.process.pid), most(controller.child())
    assert answers.listings == 3 and answers.expired_pages == 1
    assert first > 10 and len(echo.delays) > first + 20
    assert echo.longest < LONGEST_ECHO
    assert max(memory) < MAX_MIB
