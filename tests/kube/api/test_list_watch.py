"""A follower and a server that does all the things that servers do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from romana_ovs.kube.api.client import Api
from romana_ovs.kube.api.list_watch import ListWatcher
from romana_ovs.kube.api.messages import Health, ListCompleted, ListStarted, ObjectsObserved
from romana_ovs.kube.api.resources import NAMESPACES
from romana_ovs.model.settings import Settings
from tests.support.scripted_server import (
    EXPIRED,
    Exchange,
    ScriptedServer,
    event,
    kubeconfig,
    page,
    refuse,
    watch,
)

BEGAN, LISTED = ListStarted("namespaces"), ListCompleted("namespaces")


class Told(list[object]):
    """Everything that a follower sent."""

    @property
    def names(self) -> list[str]:
        """The objects of all updates, in order; those that are gone with a minus."""
        updates = [update for message in self if isinstance(message, ObjectsObserved) for update in message.updates]
        return [("" if update.exists else "-") + update.id.name for update in updates]

    @property
    def trouble(self) -> list[str]:
        """What was wrong, in order; nothing where it was well again."""
        return [message.error for message in self if isinstance(message, Health)]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def follower(server: ScriptedServer, tmp_path: Path, told: Told) -> ListWatcher:
    api = Api(kubeconfig(tmp_path, server.url))
    return ListWatcher(api, NAMESPACES, Settings(), told.append, pause=lambda _: pytest.fail("it slept"), silent=0.3)


def test_a_watch_goes_on_where_it_was_after_every_kind_of_end(
    server: ScriptedServer, follower: ListWatcher, told: Told
) -> None:
    done = threading.Event()
    server.then(
        page("a"),
        watch(event("ADDED", "b", "v11")),
        watch(event("ADDED", "c", "v12"), b'{"type":"ADDED","object":{"metadata":{"name":"to'),
        watch(event("ADDED", "d", "v13"), after=Exchange.hang_up),
        watch(event("ADDED", "e", "v14"), after=lambda exchange: done.wait(10)),
        refuse(500),
        refuse(403),
        watch(event("DELETED", "a", "v15")),
    )
    waits = [follower.step() for _ in range(8)]
    done.set()
    assert waits[0] == 0 and all(wait >= 0.5 for wait in waits[1:])
    assert told.names == ["a", "b", "c", "d", "e", "-a"]
    asked = [request.query.get("resourceVersion") for request in server.requests]
    assert asked == [None, "v10", "v11", "v12", "v13", "v14", "v14", "v14"]
    assert told.count(BEGAN) == told.count(LISTED) == 1
    last = server.requests[-1].query
    assert last["allowWatchBookmarks"] == last["watch"] == "true" and int(last["timeoutSeconds"]) >= 290


def test_an_expired_watch_lists_anew(server: ScriptedServer, follower: ListWatcher, told: Told) -> None:
    """docs/hazards.md C2, from the wire."""
    server.then(
        page("a", "b"), watch(EXPIRED), page("b", "c", version="v20"), refuse(410), page("c", version="v30"), watch()
    )
    waits = [follower.step() for _ in range(6)]
    assert min(waits[1], waits[3]) > 0
    assert told.names == ["a", "b", "c"]
    assert [message.kept for message in told if isinstance(message, ObjectsObserved)][1][0].name == "b"
    assert told.count(LISTED) == 3 and told.trouble == []
    assert server.requests[-1].query["resourceVersion"] == "v30"


def test_a_listing_that_expires_in_the_middle(server: ScriptedServer, follower: ListWatcher, told: Told) -> None:
    server.then(page("a", rest="x"), refuse(410), page("a", rest="y"), refuse(503), page("b"), watch())
    for _ in range(6):
        follower.step()
    assert [request.query.get("continue") for request in server.requests] == [None, "x", None, "y", "y", None]
    assert [message for message in told if message in (BEGAN, LISTED)] == [BEGAN, BEGAN, LISTED]


def test_retry_after_of_a_list_is_obeyed(server: ScriptedServer, follower: ListWatcher, told: Told) -> None:
    """docs/hazards.md C3: Retry-After."""
    server.then(refuse(429, Retry_After=20), refuse(429, Retry_After=1), page("a"))
    assert follower.step() >= 20
    assert told == []
    assert follower.step() >= 1
    follower.step()
    assert told.names == ["a"]
    assert told.trouble == ["namespaces: GET /api/v1/namespaces: 429, no", ""]


def test_a_server_that_refuses_is_asked_at_growing_intervals(
    server: ScriptedServer, follower: ListWatcher, told: Told
) -> None:
    """docs/hazards.md C3."""
    server.then(*[refuse(401) for _ in range(12)])
    waits = [follower.step() for _ in range(12)]
    assert sum(waits) > 100 and max(waits) <= 30
    assert len(told.trouble) == 1 and LISTED not in told


def test_an_answer_that_is_no_list_deletes_nothing(server: ScriptedServer, follower: ListWatcher, told: Told) -> None:
    server.then(page("a"), refuse(410), lambda exchange: exchange.answer(200, b"<html>"), page("a"))
    for _ in range(4):
        follower.step()
    assert told.names == ["a"] and told.count(LISTED) == 2


def test_an_internal_error_does_not_end_the_thread(server: ScriptedServer, tmp_path: Path) -> None:
    """docs/hazards.md C8: what the event was about is listed anew."""
    told: Told = Told()
    api = Api(kubeconfig(tmp_path, server.url))
    again = threading.Event()
    waits: list[float] = []

    def pause(seconds: float) -> None:
        waits.append(seconds)
        if LISTED in told:
            again.set()
            threading.Event().wait(30)

    def mistake(_: object) -> None:
        raise ZeroDivisionError

    mistakes: list[Callable[[object], None]] = [mistake]
    server.then(page("a"), page("a"))

    def send(message: object) -> None:
        (mistakes.pop() if mistakes else told.append)(message)

    ListWatcher(api, NAMESPACES, Settings(), send, pause=pause).start()
    assert again.wait(10)
    assert told.names == ["a"] and waits[0] >= 1


def test_a_stopped_watcher_sends_no_request(server: ScriptedServer, tmp_path: Path) -> None:
    """Also while it waits to ask a server again that refuses: its thread ends at once."""
    others, refused = set(threading.enumerate()), threading.Event()
    follower = ListWatcher(Api(kubeconfig(tmp_path, server.url)), NAMESPACES, Settings(), lambda _: refused.set())
    follower.start()
    (thread,) = [one for one in threading.enumerate() if one not in others and one.name == "watch namespaces"]
    assert refused.wait(10)
    follower.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert len(server.requests) <= 2
