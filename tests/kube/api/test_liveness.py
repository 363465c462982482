"""Streams that say nothing: their server is asked whether it is_alive, and when it says nothing either they end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from romana_ovs.kube.api.client import Api
from romana_ovs.kube.api.liveness import ANSWER_SECONDS, QUIET_SECONDS, LivenessCheck
from romana_ovs.model.errors import UnreachableError
from tests.support.scripted_server import Exchange, ScriptedServer, Step, kubeconfig, scripted_server

SECONDS = 30.0
"""What anything may take on a loaded machine."""
QUIET = 0.2
MANY = 5


@pytest.fixture
def api(server: ScriptedServer, tmp_path: Path) -> Api:
    return Api(kubeconfig(tmp_path, server.url), quiet=QUIET)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer has not answered after an instant."""
    monkeypatch.setattr("romana_ovs.kube.api.client.ANSWER_SECONDS", 0.3)


class Watched:
    """Streams that begin with a line and say nothing more until `end`; `versions` is who was asked for a pulse."""

    def __init__(self, server: ScriptedServer, pulse: Step) -> None:
        self._server = server
        self._liveness = pulse
        self.end = threading.Event()
        self.asked = threading.Semaphore(0)
        server.then(*[self._serve] * 1000)

    def _serve(self, exchange: Exchange) -> None:
        if exchange.request.path == "/version":
            self.asked.release()
            self._liveness(exchange)
            return
        exchange.begin()
        exchange.chunk(b"one\n")
        self.end.wait(SECONDS)
        exchange.chunk(b"last\n")
        exchange.chunk(b"")

    @property
    def pulses(self) -> int:
        return sum(request.path == "/version" for request in self._server.requests)

    def stand_still(self, exchange: Exchange) -> None:
        """What a server does that has stopped: nothing."""
        self.end.wait(SECONDS)


def no_pulse_thread() -> bool:
    return not any(thread.name == "pulse" for thread in threading.enumerate())


def test_it_is_noticed_within_a_minute() -> None:
    # A connection, with its handshake, may take five more seconds.
    assert QUIET_SECONDS + ANSWER_SECONDS + 5 < 60


def test_one_liveness_check_aborts_all_streams_of_a_hung_server(server: ScriptedServer, api: Api, short: None) -> None:
    stands = Watched(server, lambda exchange: stands.stand_still(exchange))

    together = threading.Barrier(MANY)

    def follow(number: int) -> str:
        lines = api.stream(f"/w{number}", deadline=300)
        together.wait(SECONDS)
        assert next(lines) == b"one"
        with pytest.raises(UnreachableError) as caught:
            next(lines)
        return str(caught.value)

    begin = time.monotonic()
    try:
        with ThreadPoolExecutor(MANY) as pool:
            said = set(pool.map(follow, range(MANY)))
        assert time.monotonic() - begin < SECONDS / 2
        assert said == {"no data for 0.2 s, and the server does not respond to requests either"}
        assert stands.pulses == 1
    finally:
        stands.end.set()
    _ended()


@pytest.mark.parametrize("status", [200, 401, 403, 404, 429, 500, 503])
def test_whatever_it_answers_it_lives(server: ScriptedServer, api: Api, status: int) -> None:
    quiet = Watched(server, lambda exchange: exchange.answer(status, {}))
    with ThreadPoolExecutor(MANY) as pool:
        streams = [pool.submit(lambda: list(api.stream("/w", deadline=300))) for _ in range(MANY)]
        for _ in range(3):
            assert quiet.asked.acquire(timeout=SECONDS)
        quiet.end.set()
        assert [stream.result(SECONDS) for stream in streams] == [[b"one", b"last"]] * MANY
    _ended()


def test_a_stream_that_speaks_is_sign_enough(server: ScriptedServer, tmp_path: Path) -> None:
    """Nobody is asked while anything comes from any stream."""
    never = threading.Event()

    def speak(exchange: Exchange) -> None:
        exchange.begin()
        for _ in range(30):
            exchange.chunk(b"x\n")
            never.wait(0.05)
        exchange.chunk(b"")

    server.then(speak)
    assert list(Api(kubeconfig(tmp_path, server.url), quiet=1.0).stream("/w", deadline=300)) == [b"x"] * 30
    assert [request.path for request in server.requests] == ["/w"]
    _ended()


def test_a_server_that_is_gone_has_no_pulse(tmp_path: Path) -> None:
    """A connection through something that keeps it open, to a server that nobody can connect to any more."""
    with scripted_server() as server:
        watched = Watched(server, Exchange.hang_up)
        lines = Api(kubeconfig(tmp_path, server.url), quiet=QUIET).stream("/w", deadline=300)
        assert next(lines) == b"one"
        with pytest.raises(UnreachableError, match="respond to requests either"):
            next(lines)
        watched.end.set()


def test_data_that_comes_during_a_check_counts() -> None:
    asked, more, done = threading.Event(), threading.Event(), threading.Event()
    questions: list[int] = []

    def is_alive() -> bool:
        questions.append(1)
        if len(questions) == 1:
            asked.set()
            assert done.wait(SECONDS)
            return False
        return True

    def pieces() -> Iterator[bytes]:
        yield b"a"
        assert asked.wait(SECONDS)
        yield b"b"
        done.set()
        more.wait(2 * QUIET)
        yield b"c"

    assert list(LivenessCheck(is_alive, quiet=QUIET).guard(pieces(), pytest.fail)) == [b"a", b"b", b"c"]
    assert questions
    _ended()


def test_an_internal_error_aborts_nothing(caplog: pytest.LogCaptureFixture) -> None:
    asked = threading.Semaphore(0)

    def is_alive() -> bool:
        asked.release()
        raise ZeroDivisionError

    def pieces() -> Iterator[bytes]:
        for _ in range(2):
            assert asked.acquire(timeout=SECONDS)
        yield b"a"

    assert list(LivenessCheck(is_alive, quiet=0.05).guard(pieces(), pytest.fail)) == [b"a"]
    assert "internal error" in caplog.text
    _ended()


def _ended() -> None:
    """The thread goes with the last stream."""
    limit = time.monotonic() + SECONDS
    while not no_pulse_thread():
        assert time.monotonic() < limit
        time.sleep(0.01)
