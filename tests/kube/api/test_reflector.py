"""What is asked of an API server, and what its answers mean: no sockets, no clock."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable

import pytest

from romana_ovs.backoff import Backoff
from romana_ovs.kube.api.messages import (
    LONGEST_FRAME,
    Health,
    ListCompleted,
    ListStarted,
    LogLine,
    ObjectsObserved,
    Update,
    frame,
)
from romana_ovs.kube.api.object_decoder import decoder
from romana_ovs.kube.api.reflector import (
    CHUNK,
    GRACE_SECONDS,
    NOT_INSTALLED_SECONDS,
    PAGE,
    STABLE_SECONDS,
    WATCH_SECONDS,
    ListPage,
    Reflector,
    Watch,
)
from romana_ovs.kube.api.resources import NAMESPACES, PODS, ROMANA_POLICIES, TENANTS, Resource, pods_of
from romana_ovs.kube.decode.objects import ObjectId
from romana_ovs.model.errors import (
    ApiError,
    BusyError,
    DeniedError,
    ExpiredError,
    FaultyError,
    MissingError,
    RefusedError,
    TornError,
    UnreachableError,
)
from romana_ovs.model.objects import Namespace
from romana_ovs.model.settings import Settings

BEGAN, LISTED = ListStarted("namespaces"), ListCompleted("namespaces")
ERRORS = (UnreachableError, TornError, DeniedError, BusyError, FaultyError, ExpiredError, MissingError, RefusedError)


def reflector(resource: Resource = NAMESPACES) -> Reflector:
    return Reflector(resource, decoder(resource, Settings()), Backoff(lambda: 0.0), jitter=0.5)


def thing(name: str, version: str, uid: str = "", **labels: str) -> dict[str, object]:
    return {"metadata": {"name": name, "uid": uid or f"u-{name}", "resourceVersion": version, "labels": labels}}


def page(*items: object, version: str = "10", rest: str = "") -> dict[str, object]:
    metadata = {"resourceVersion": version, **({"continue": rest} if rest else {})}
    return {"kind": "NamespaceList", "apiVersion": "v1", "metadata": metadata, "items": list(items)}


def event(kind: str, value: object) -> bytes:
    return json.dumps({"type": kind, "object": value}).encode()


def key(name: str) -> ObjectId:
    return ObjectId("Namespace", "", name)


def seen(messages: Iterable[object]) -> list[tuple[str, str, bool]]:
    """Name, version and presence of every object in the updates."""
    return [
        (update.id.name, update.version, update.exists)
        for message in messages
        if isinstance(message, ObjectsObserved)
        for update in message.updates
    ]


def listed(*items: object, version: str = "10") -> Reflector:
    """One that has listed these and is about to watch."""
    made = reflector()
    list(made.on_page(page(*items, version=version), 0))
    return made


def watched_from(made: Reflector) -> object:
    ask = made.next_request()
    assert isinstance(ask, Watch)
    return ask.query["resourceVersion"]


def test_a_list_comes_in_pages_and_then_a_watch_goes_on_from_it() -> None:
    """docs/hazards.md C4 and C9: pages, and bookmarks asked for."""
    made = reflector()
    assert made.next_request() == ListPage("/api/v1/namespaces", {"limit": PAGE})
    first = list(made.on_page(page(thing("a", "3"), thing("b", "4"), rest="more"), 1.5))
    assert first[0] == BEGAN and seen(first) == [("a", "3", True), ("b", "4", True)] and len(first) == 2
    assert isinstance(first[1], ObjectsObserved) and first[1].at == 1.5
    assert made.next_request() == ListPage("/api/v1/namespaces", {"limit": PAGE, "continue": "more"})
    second = list(made.on_page(page(thing("c", "5")), 2))
    assert seen(second) == [("c", "5", True)] and second[-1] == LISTED
    seconds = int(WATCH_SECONDS * 1.5)
    query: dict[str, str | int] = {
        "watch": "true",
        "allowWatchBookmarks": "true",
        "timeoutSeconds": seconds,
        "resourceVersion": "10",
    }
    assert made.next_request() == Watch("/api/v1/namespaces", query, seconds + GRACE_SECONDS)


def test_objects_as_large_as_etcd_takes_them_fit_into_frames() -> None:
    """Whoever may make some hundred pods of a megabyte each must not keep a listing from ever being told."""
    text = "".join(f"{number:05}" for number in range(200_000))
    large = thing("large", "1", **{text[at : at + 60]: text[at : at + 63] for at in range(0, 700_000, 60)})
    assert 1_500_000 < len(json.dumps(large)) < 1.5 * 2**20
    [_, told, _] = reflector().on_page(page(large), 0.0)
    assert CHUNK * len(frame(told)) < LONGEST_FRAME
    messages = list(reflector().on_page(page(*(thing(f"n{number:03}", "1") for number in range(PAGE))), 0.0))
    portions = [len(message.updates) for message in messages if isinstance(message, ObjectsObserved)]
    assert portions == [CHUNK] * (PAGE // CHUNK) and messages[0] == BEGAN and messages[-1] == LISTED


def test_a_node_lists_its_own_pods_only() -> None:
    made = reflector(pods_of("node1"))
    assert made.next_request() == ListPage("/api/v1/pods", {"fieldSelector": "spec.nodeName=node1", "limit": PAGE})
    list(made.on_page(page(), 0))
    assert made.next_request().query["fieldSelector"] == "spec.nodeName=node1"


def test_events_are_updates_and_move_the_version_on() -> None:
    made = listed(thing("a", "3"))
    assert seen(made.on_event(event("ADDED", thing("b", "11")), 0)) == [("b", "11", True)]
    assert seen(made.on_event(event("MODIFIED", thing("a", "12", team="x")), 0)) == [("a", "12", True)]
    assert seen(made.on_event(event("DELETED", thing("b", "13")), 0)) == [("b", "13", False)]
    assert watched_from(made) == "13"


def test_an_update_holds_what_counts() -> None:
    value = {"metadata": {"name": "a", "uid": "u", "resourceVersion": "11", "generation": 4, "labels": {"x": "y"}}}
    [message] = listed().on_event(event("ADDED", value), 7.0)
    assert isinstance(message, ObjectsObserved)
    [update] = message.updates
    assert isinstance(update.value, Namespace) and update.value.labels["x"] == "y"
    assert (update.id, update.uid, update.version, update.generation) == (key("a"), "u", "11", 4)
    assert (message.resource, message.at) == ("namespaces", 7.0)


def test_bookmarks_keep_a_quiet_watch_fresh() -> None:
    """docs/hazards.md C4: an hour in which nothing happened is no reason to list anew."""
    made = listed()
    for version in ("60", "120", "3600"):
        bookmark = {"kind": "Namespace", "metadata": {"resourceVersion": version, "creationTimestamp": None}}
        assert list(made.on_event(event("BOOKMARK", bookmark), 0)) == []
    assert made.on_ended(lasted=3600) == 0
    assert watched_from(made) == "3600"
    assert list(made.on_event(event("BOOKMARK", None), 0)) == []
    assert watched_from(made) == "3600"


def test_versions_that_are_no_numbers_are_as_good() -> None:
    """docs/hazards.md C5."""
    made = listed(thing("a", "zz-9"), version="zz-10")
    assert watched_from(made) == "zz-10"
    assert seen(made.on_event(event("ADDED", thing("b", "aa-1")), 0)) == [("b", "aa-1", True)]
    assert watched_from(made) == "aa-1"


def test_an_event_from_before_is_no_news() -> None:
    made = listed(thing("a", "9"))
    list(made.on_event(event("MODIFIED", thing("a", "12")), 0))
    assert list(made.on_event(event("MODIFIED", thing("a", "9")), 0)) == []
    assert list(made.on_event(event("DELETED", thing("a", "11")), 0)) == []
    assert watched_from(made) == "12"


def test_an_expired_version_is_listed_again_and_differences_sent() -> None:
    """docs/hazards.md C2 and C6: `c` is another object of its name by now."""
    made = listed(thing("a", "3"), thing("b", "4"), thing("c", "5"), thing("d", "6"))
    status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
    with pytest.raises(ExpiredError) as caught:
        list(made.on_event(event("ERROR", status), 0))
    messages, wait = made.on_failed(caught.value, lasted=200)
    assert messages == () and 0 < wait <= 1
    assert made.next_request() == ListPage("/api/v1/namespaces", {"limit": PAGE})
    told = list(made.on_page(page(thing("a", "3"), thing("b", "14"), thing("c", "15", uid="other"), version="20"), 0))
    assert seen(told) == [("b", "14", True), ("c", "15", True)]
    assert [message.kept for message in told if isinstance(message, ObjectsObserved)] == [(key("a"),)]
    assert (told[0], told[-1]) == (BEGAN, LISTED)
    # `d` is not remembered: coming back just as it was it is news again.
    assert seen(made.on_event(event("ADDED", thing("d", "6")), 0)) == []
    assert seen(made.on_event(event("ADDED", thing("d", "26")), 0)) == [("d", "26", True)]


def test_a_loop_of_expired_versions_slows_down() -> None:
    """docs/hazards.md C2."""
    made = reflector()
    waits = []
    for _ in range(6):
        list(made.on_page(page(), 0))
        waits.append(made.on_failed(ExpiredError("410", status=410), lasted=0.01)[1])
    assert waits == [1, 2, 4, 8, 16, 30]


def test_a_listing_that_expires_twice_is_requested_in_one_piece() -> None:
    """docs/hazards.md C9: 410 between two pages."""
    made = reflector()
    for _ in range(2):
        assert made.next_request() == ListPage("/api/v1/namespaces", {"limit": PAGE})
        assert list(made.on_page(page(thing("a", "3"), rest="more"), 0))[0] == BEGAN
        made.on_failed(ExpiredError("410", status=410), lasted=0)
    assert made.next_request() == ListPage("/api/v1/namespaces", {})
    assert list(made.on_page(page(thing("a", "3")), 0))[-1] == LISTED
    made.on_failed(ExpiredError("410", status=410), lasted=0)
    assert made.next_request() == ListPage("/api/v1/namespaces", {"limit": PAGE})


def test_a_page_that_fails_is_requested_again() -> None:
    made = reflector()
    list(made.on_page(page(thing("a", "3"), rest="more"), 0))
    for kind in (UnreachableError, TornError, DeniedError, BusyError, FaultyError):
        made.on_failed(kind("x"), lasted=0)
        assert made.next_request() == ListPage("/api/v1/namespaces", {"limit": PAGE, "continue": "more"})


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("listing", [True, False])
def test_no_error_is_tried_again_at_once_or_loses_anything(kind: type[ApiError], listing: bool) -> None:
    """docs/hazards.md C3."""
    made = reflector() if listing else listed(thing("a", "3"))
    told: list[object] = []
    waits = []
    for _ in range(8):
        messages, wait = made.on_failed(kind("because"), lasted=0)
        told += messages
        waits.append(wait)
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]
    assert [m for m in told if not isinstance(m, Health)] == []
    assert told == ([] if kind is ExpiredError else [Health("namespaces", "namespaces: because")])
    if kind not in (ExpiredError, MissingError, RefusedError) and not listing:
        assert watched_from(made) == "10"
    else:
        assert isinstance(made.next_request(), ListPage)


def test_retry_after_is_obeyed() -> None:
    assert listed().on_failed(BusyError("429", retry_after=17), lasted=0)[1] == 17


def test_an_error_is_reported_once_and_its_end_too() -> None:
    made = reflector()
    assert made.on_failed(DeniedError("403, no"), lasted=0)[0] == (Health("namespaces", "namespaces: 403, no"),)
    assert made.on_failed(DeniedError("403, no"), lasted=0)[0] == ()
    assert list(made.on_page(page(), 0))[-1] == Health("namespaces")
    assert made.on_failed(FaultyError("500"), lasted=0)[0] == (Health("namespaces", "namespaces: 500"),)
    assert list(made.on_connected()) == [Health("namespaces")]
    assert list(made.on_connected()) == []


def test_one_torn_watch_is_everyday_life_two_at_once_are_not() -> None:
    made = listed()
    assert made.on_failed(TornError("cut"), lasted=STABLE_SECONDS)[0] == ()
    assert made.on_failed(TornError("cut"), lasted=STABLE_SECONDS)[0] == ()
    assert made.on_failed(TornError("cut"), lasted=0.1)[0] == (Health("namespaces", "namespaces: cut"),)


@pytest.mark.parametrize("sign", [event("BOOKMARK", thing("", "12")), event("ADDED", thing("b", "12"))])
def test_a_flapping_watch_is_not_reported_as_recovered(sign: bytes) -> None:
    made, trouble = listed(), Health("namespaces", "namespaces: cut")
    told: list[object] = []
    for _ in range(5):
        made.next_request()
        told += made.on_connected()
        told += made.on_failed(TornError("cut"), lasted=0.1)[0]
    assert told == [trouble]
    made.next_request()
    assert list(made.on_connected()) == []
    assert [message for message in made.on_event(sign, 0) if isinstance(message, Health)] == [Health("namespaces")]


def test_a_quiet_watch_is_well_again_soon_after_others_broke_off() -> None:
    made = listed()
    for _ in range(2):
        made.next_request()
        assert list(made.on_connected()) == []
        made.on_failed(TornError("cut"), lasted=0.1)
    tried = made.next_request()
    assert isinstance(tried, Watch) and STABLE_SECONDS < int(tried.query["timeoutSeconds"]) < 2 * STABLE_SECONDS
    assert list(made.on_connected()) == [], "that it begins says nothing yet"
    assert made.on_ended(float(tried.query["timeoutSeconds"])) == 0.0
    usual = made.next_request()
    assert isinstance(usual, Watch) and int(usual.query["timeoutSeconds"]) >= WATCH_SECONDS
    assert list(made.on_connected()) == [Health("namespaces")]


def test_watches_that_end_at_once_are_repeated_with_pauses() -> None:
    made = listed()
    assert [made.on_ended(0.1) for _ in range(3)] == [1, 2, 4]
    assert made.on_ended(STABLE_SECONDS) == 0
    assert made.on_ended(0.1) == 1


@pytest.mark.parametrize("line", [b'{"type":"ADDED","object":{"meta', b"", b"[" * 100_000, b"\xff\xfe"])
def test_a_torn_line_is_an_error_and_the_watch_goes_on_before_it(line: bytes) -> None:
    made = listed()
    list(made.on_event(event("ADDED", thing("a", "11")), 0))
    with pytest.raises(TornError):
        list(made.on_event(line, 0))
    made.on_failed(TornError("x"), lasted=1)
    assert watched_from(made) == "11"


@pytest.mark.parametrize("line", [b"[]", b"1", event("RENAMED", thing("a", "11")), event("ADDED", {"spec": {}}), b"{}"])
def test_an_unknown_event_is_logged_and_ignored(line: bytes) -> None:
    made = listed()
    [said] = made.on_event(line, 0)
    assert isinstance(said, LogLine) and said.level == logging.WARNING and "namespaces: an event" in said.text
    assert watched_from(made) == "10"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ({"code": 410, "message": "gone"}, ExpiredError),
        ({"code": 403, "message": "no"}, DeniedError),
        ({"code": 500, "message": "etcd"}, FaultyError),
        ({"code": "x"}, FaultyError),
        (None, FaultyError),
    ],
)
def test_an_error_event_is_an_error_of_its_kind(status: object, kind: type[ApiError]) -> None:
    with pytest.raises(kind):
        list(listed().on_event(event("ERROR", status), 0))


@pytest.mark.parametrize(
    "value", [None, [], {}, {"metadata": {}}, {**page(), "items": {}}, page({"spec": {}}), page(version="")]
)
def test_an_answer_that_is_no_list_deletes_nothing(value: object) -> None:
    made = reflector()
    told: list[object] = []
    with pytest.raises(TornError):
        told.extend(made.on_page(value, 0))
    assert LISTED not in told
    assert isinstance(made.next_request(), ListPage)


def test_an_absent_list_is_an_empty_one() -> None:
    made = reflector()
    assert list(made.on_page({"metadata": {"resourceVersion": "1"}, "items": None}, 0))[-1] == LISTED


def test_a_resource_that_is_not_installed_counts_as_empty() -> None:
    made = reflector(ROMANA_POLICIES)
    name = "networkpolicies.romana.io"
    missing = MissingError("404", status=404)
    for _ in range(2):  # An API server that has just started may not know its definitions yet.
        messages, wait = made.on_failed(missing, lasted=0)
        assert messages == () and wait >= 1 and not made.listed
    messages, wait = made.on_failed(missing, lasted=0)
    assert [type(message) for message in messages] == [LogLine, ListStarted, ListCompleted]
    assert isinstance(messages[0], LogLine) and "not installed" in messages[0].text
    assert messages[1:] == (ListStarted(name), ListCompleted(name))
    assert wait == NOT_INSTALLED_SECONDS
    assert made.on_failed(missing, lasted=0) == ((), NOT_INSTALLED_SECONDS)
    assert isinstance(made.next_request(), ListPage)


def test_a_crd_that_is_missing_for_a_moment_loses_no_objects() -> None:
    made = reflector(TENANTS)
    list(made.on_page(page(thing("a", "3")), 0))
    missing = MissingError("404", status=404)
    assert made.on_failed(missing, lasted=100)[0] == (Health("tenants.romana.io", "tenants.romana.io: 404"),)
    for _ in range(2):
        messages, wait = made.on_failed(missing, lasted=0)
        assert messages == () and wait >= 1
    told = [type(message) for message in made.on_failed(missing, lasted=0)[0]]
    assert told == [Health, LogLine, ListStarted, ListCompleted]


def test_undecoded_objects_are_passed_on_without_managed_fields() -> None:
    made = reflector(TENANTS)
    value = thing("acme", "3")
    value["metadata"]["managedFields"] = [{}]  # type: ignore[index]
    value["spec"] = {"tenant": "Acme"}
    messages = list(made.on_page(page(value), 0))
    [update] = [update for message in messages if isinstance(message, ObjectsObserved) for update in message.updates]
    assert isinstance(update, Update)
    assert update.raw == {"metadata": thing("acme", "3")["metadata"], "spec": {"tenant": "Acme"}}
    assert update.id == ObjectId("Tenant", "", "acme") and update.value is None


def test_an_object_that_we_choke_on_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def choke(value: dict[str, dict[str, str]], *_: object) -> object:
        raise RecursionError(value["metadata"]["name"])

    monkeypatch.setattr("romana_ovs.kube.api.object_decoder.decode_served", choke)
    made = reflector(ROMANA_POLICIES)
    policy = {"metadata": {"name": "p", "namespace": "shop", "uid": "u", "resourceVersion": "3"}}
    messages = list(made.on_page(page(policy), 0))
    [update] = [update for message in messages if isinstance(message, ObjectsObserved) for update in message.updates]
    assert update.value is None and update.fallback is not None
    assert [str(problem) for problem in update.problems] == [
        "RomanaNetworkPolicy shop/p: internal error while decoding"
    ]
    assert messages[-1] == ListCompleted("networkpolicies.romana.io")


def test_a_pod_without_a_change_is_not_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made = reflector(PODS)
    pod = {"metadata": {"name": "p", "namespace": "n", "uid": "u", "resourceVersion": "3"}, "spec": {}}
    list(made.on_page(page(pod), 0))
    made.on_failed(ExpiredError("410"), lasted=0)
    monkeypatch.setattr("romana_ovs.kube.api.object_decoder.decode_served", None)
    assert seen(made.on_page(page(pod), 0)) == []
