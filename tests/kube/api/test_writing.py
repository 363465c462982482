"""Which statuses and Events are written when: bounded, newest first, never what is there already."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from romana_ovs.kube.api import event_queue, status_queue
from romana_ovs.kube.api.desired import (
    MAX_MESSAGE,
    Condition,
    ConditionStatus,
    ObjectWarning,
    PolicyStatus,
    ReplaceStatuses,
    TenantStatus,
    TierStatus,
    single_line,
)
from romana_ovs.kube.api.event_queue import CreateEvent, EventQueue, RenewEvent, event_name
from romana_ovs.kube.api.events import event_body
from romana_ovs.kube.api.lease import wall
from romana_ovs.kube.api.status_queue import COUNT_SECONDS, Create, Observed, Patch, StatusQueue, rendered
from romana_ovs.kube.api.token_bucket import TokenBucket
from romana_ovs.kube.decode.objects import ObjectId, Version

AT, LATER = "2026-01-01T00:00:00Z", "2026-01-01T00:00:07Z"
WEB = ObjectId("RomanaNetworkPolicy", "shop", "web")
T1 = ObjectId("Tenant", "", "t1")


def policy_status(generation: int = 1, *, programmed: bool = True, uid: str = "u", message: str = "") -> PolicyStatus:
    truth = ConditionStatus.TRUE if programmed else ConditionStatus.FALSE
    return PolicyStatus(Version(uid, generation), (Condition("Programmed", truth, "Why", message),))


class Server:
    """Does the tasks of a book at once, and counts them."""

    def __init__(self, book: StatusQueue) -> None:
        self.book = book
        self.objects: dict[ObjectId, Observed] = {}
        self.done: list[object] = []

    def add(self, key: ObjectId, uid: str = "u", generation: int = 1, status: dict[str, Any] | None = None) -> None:
        self.objects[key] = Observed(uid, generation, f"r{len(self.done)}", status or {})

    def drain(self, now: float, at: str = AT) -> float | None:
        """Carry out all that can be done at `now`; returns what the book says then."""
        while not isinstance(task := self.book.next_task(now, at), (float, int)) and task is not None:
            self.done.append(task)
            found = self.objects.get(task.id)
            if isinstance(task, Create):
                self.objects[task.id] = found = Observed("made", 1, f"r{len(self.done)}")
            if not isinstance(task, Patch) or found is None:
                self.book.on_read(task.id, found)
            elif found.version != task.observed.version:
                self.book.on_conflict(task.id)
            else:
                new = replace(found, version=f"r{len(self.done)}", status={**found.status, **task.body})
                self.objects[task.id] = new
                self.book.on_written(task, new, now)
        return task

    def trouble(self, now: float, answers: Iterator[str]) -> None:
        """Carry out what can be done at `now`, each with what `answers` says becomes of it."""
        while not isinstance(task := self.book.next_task(now, AT), (float, int)) and task is not None:
            answer = next(answers, None)
            if answer is None:
                self.done.append(task)
                return
            found = self.objects.get(task.id)
            if answer == "refused":
                self.book.on_refused(task.id, now)
            elif answer in ("lost", "unheard") or not isinstance(task, Patch):
                if answer == "unheard" and isinstance(task, Patch) and found and found.version == task.observed.version:
                    self.objects[task.id] = replace(found, version=f"h{now}", status={**found.status, **task.body})
                self.book.on_conflict(task.id)
            elif found is None:
                self.book.on_read(task.id, None)
            elif found.version != task.observed.version:
                self.book.on_conflict(task.id)
            else:
                self.done.append(task)
                new = replace(found, version=f"w{now}{len(self.done)}", status={**found.status, **task.body})
                self.objects[task.id] = new
                self.book.on_written(task, new, now)

    @property
    def patches(self) -> list[Patch]:
        return [task for task in self.done if isinstance(task, Patch)]


def listed(*keys: ObjectId) -> Server:
    server = Server(StatusQueue())
    for key in keys:
        server.add(key)
    return server


# Statuses.


def test_what_is_there_already_is_not_written() -> None:
    server = listed(WEB)
    server.book.replace_all({WEB: policy_status()})
    server.book.on_listed(server.objects)
    assert server.drain(0) is None
    assert len(server.patches) == 1
    server.book.replace_all({WEB: policy_status()})
    server.book.on_listed(server.objects)
    assert server.drain(100, LATER) is None
    assert len(server.patches) == 1


def test_a_transition_has_its_time_and_anything_else_keeps_it() -> None:
    server = listed(WEB)
    for now, at, status in [
        (0, AT, policy_status()),
        (1, "2026-01-01T00:00:01Z", policy_status(2, message="still")),
        (7, LATER, policy_status(2, programmed=False)),
    ]:
        server.book.update({WEB: status})
        server.drain(now, at)
        (condition,) = server.objects[WEB].status["conditions"]
        assert condition["lastTransitionTime"] == (
            LATER if status.conditions[0].status is ConditionStatus.FALSE else AT
        )
    assert server.objects[WEB].status["observedGeneration"] == 2


def test_conditions_of_others_stay() -> None:
    theirs = {"type": "Blessed", "status": "True", "reason": "R", "message": "", "lastTransitionTime": AT}
    body = rendered(policy_status(), 1, {"conditions": [theirs]}, LATER)
    assert body["conditions"][0] is theirs
    assert [one["type"] for one in body["conditions"]] == ["Blessed", "Programmed"]


def test_unknown_does_not_replace_a_condition_of_the_generation() -> None:
    unknown = Condition("Programmed", ConditionStatus.UNKNOWN, "Starting")
    server = listed(WEB)
    for now, generation, condition, writes in [
        (0, 1, unknown, 1),
        (1, 1, policy_status().conditions[0], 2),
        (2, 1, unknown, 2),
        (3, 2, unknown, 3),
    ]:
        server.book.update({WEB: PolicyStatus(Version("u", generation), (condition,))})
        server.drain(now)
        assert len(server.patches) == writes


def test_a_thousand_changes_of_one_object_are_a_few_writes() -> None:
    """docs/hazards.md C14."""
    server = listed(WEB)
    for number in range(1000):
        server.book.update({WEB: policy_status(programmed=bool(number % 2), message=str(number))})
        server.drain(number / 1000)
    server.drain(60)
    assert server.objects[WEB].status["conditions"][0]["message"] == "999"
    assert len(server.done) <= status_queue.WRITES_AT_ONCE + status_queue.WRITES_A_SECOND + 2


def test_a_thousand_objects_are_written_within_the_rate_limit() -> None:
    """docs/hazards.md C14."""
    keys = [ObjectId("RomanaNetworkPolicy", "shop", f"p{number}") for number in range(1000)]
    server = listed(*keys)
    server.book.replace_all({key: policy_status() for key in keys})
    server.book.on_listed(server.objects)
    server.drain(0)
    assert len(server.done) == status_queue.WRITES_AT_ONCE
    for tenth in range(1, 101):
        server.drain(tenth / 10)
        assert len(server.done) <= status_queue.WRITES_AT_ONCE + status_queue.WRITES_A_SECOND * tenth / 10
    for second in range(11, 60):
        server.drain(float(second))
    assert {patch.id for patch in server.patches} == set(keys)
    assert len(server.done) == 1000


def test_an_object_that_keeps_changing_does_not_starve_others() -> None:
    keys = [ObjectId("RomanaNetworkPolicy", "shop", f"p{number}") for number in range(200)]
    server = listed(WEB, *keys)
    server.book.replace_all({key: policy_status() for key in (WEB, *keys)})
    server.book.on_listed(server.objects)
    for number in range(300):
        server.book.update({WEB: policy_status(message=str(number))})
        server.drain(number / 10)
    assert {patch.id for patch in server.patches} >= set(keys)


def test_a_conflict_is_read_and_tried_again() -> None:
    """docs/hazards.md C14: 409."""
    server = listed(WEB)
    server.book.update({WEB: policy_status()})
    server.book.on_listed(server.objects)
    server.add(WEB, status={"other": 1})
    server.objects[WEB] = replace(server.objects[WEB], version="newer")
    server.drain(0)
    assert [type(task).__name__ for task in server.done] == ["Patch", "Get", "Patch"]
    assert server.objects[WEB].status["observedGeneration"] == 1


def test_a_status_is_not_written_to_another_object_of_that_name() -> None:
    server = listed(WEB)
    server.book.update({WEB: policy_status(uid="old")})
    server.add(WEB, uid="new")
    server.drain(0)
    assert server.patches == []
    server.book.update({WEB: policy_status(uid="new")})
    server.drain(1)
    assert len(server.patches) == 1


def test_a_status_about_a_newer_generation_is_not_set_back() -> None:
    server = listed()
    server.add(WEB, generation=5, status={"observedGeneration": 5, "conditions": []})
    server.book.update({WEB: policy_status(4)})
    server.drain(0)
    assert server.patches == []


def test_an_object_that_is_gone_costs_one_look() -> None:
    server = listed()
    server.book.update({WEB: policy_status()})
    assert server.drain(0) is None
    assert len(server.done) == 1


def test_what_the_server_refuses_is_tried_again_ever_more_rarely() -> None:
    book, attempts, now = StatusQueue(), 0, 0.0
    book.update({WEB: policy_status()})
    while now < 3600:
        task = book.next_task(now, AT)
        if isinstance(task, Patch):
            attempts += 1
            book.on_refused(WEB, now)
        elif isinstance(task, (int, float)) or task is None:
            now += task or 3600
        else:
            book.on_read(WEB, Observed("u", 1, "r"))
    assert 10 < attempts < 25


def test_a_status_that_the_server_prunes_is_not_sent_again() -> None:
    book = StatusQueue()
    book.update({WEB: policy_status()})
    book.on_read(WEB, Observed("u", 1, "r1"))
    patch = book.next_task(0, AT)
    assert isinstance(patch, Patch)
    book.on_written(patch, Observed("u", 1, "r2", {"observedGeneration": 1}), 0)
    assert book.next_task(1, AT) is None


def tenant_status(
    pods: int, *, ranges: tuple[str, ...] = ("10.16.0.0/16",), version: Version | None = None
) -> TenantStatus:
    tiers = (TierStatus("web", 5, ranges, pods),)
    return TenantStatus("t1", (Condition("Ready", ConditionStatus.TRUE, "Allocated"),), ranges, tiers, pods, version)


def test_a_tenant_that_nobody_made_is_made_and_then_described() -> None:
    server = listed()
    server.book.update({T1: tenant_status(1)})
    server.book.on_listed({})
    server.drain(0)
    assert [type(task).__name__ for task in server.done] == ["Create", "Patch"]
    status = server.objects[T1].status
    assert (status["pods"], status["tierNames"], status["observedGeneration"]) == (1, ["web"], 1)
    # The controller learns of the object and names its version: nothing to write.
    server.book.update({T1: tenant_status(1, version=Version("made", 1))})
    server.drain(1)
    assert len(server.patches) == 1


def test_pod_counts_are_written_less_often_than_other_fields() -> None:
    server = listed(T1)
    version = Version("u", 1)
    for number in range(1000):
        server.book.update({T1: tenant_status(number, version=version)})
        server.drain(number / 50)
    assert len(server.patches) <= 1 + 20 / COUNT_SECONDS
    writes = len(server.patches)
    server.book.update({T1: tenant_status(1000, ranges=("10.16.0.0/15",), version=version)})
    server.drain(20.01)
    assert len(server.patches) == writes + 1


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["want", "drop", "relist", "edit", "remake", "remove", "pass"]),
        st.integers(0, 2),
        st.integers(0, 3),
    ),
    max_size=40,
)
ANSWERS = st.lists(st.sampled_from(["ok", "ok", "lost", "unheard", "refused"]), max_size=40)


@given(STEPS, ANSWERS)
def test_the_newest_status_is_always_written_last(steps: list[tuple[str, int, int]], answers: list[str]) -> None:
    """Writes that are lost, or done but not heard of; objects that others change, remove and make anew."""
    keys = [ObjectId("RomanaNetworkPolicy", "shop", name) for name in "abc"]
    server, coming, now = listed(*keys), iter(answers), 0.0
    wanted: dict[ObjectId, PolicyStatus] = {}
    for step, which, number in steps:
        key, now = keys[which], now + 0.7
        found = server.objects.get(key)
        if step == "want":
            uid = found.uid if found is not None else "u"
            wanted[key] = policy_status(number + 1, programmed=number > 1, message=str(number), uid=uid)
            server.book.update({key: wanted[key]})
        elif step == "drop":
            wanted.pop(key, None)
            server.book.update({key: None})
        elif step == "relist":
            server.book.on_listed(dict(server.objects))
        elif step == "edit" and found is not None:
            server.objects[key] = replace(found, version=f"e{now}")
        elif step == "remake":
            server.objects[key] = Observed(f"u{now}", 1, f"n{now}")
        elif step == "remove":
            server.objects.pop(key, None)
        server.trouble(now, coming)
    # Everything that is wanted of the objects that there are, said once more by a controller that sees them now.
    for key, found in server.objects.items():
        if key in wanted:
            generation = 9
            wanted[key] = replace(wanted[key], version=Version(found.uid, generation))
            server.book.update({key: wanted[key]})
    while isinstance(pause := server.drain(now), float):
        now += pause
    for key, found in server.objects.items():
        if key in wanted:
            assert [one["message"] for one in found.status["conditions"]] == [wanted[key].conditions[0].message]
            assert found.status["observedGeneration"] == 9
    done = len(server.patches)
    server.book.on_listed(dict(server.objects))
    assert server.drain(now + 1000) is None
    assert len(server.patches) == done


@given(st.lists(st.tuples(st.floats(0, 5), st.booleans()), max_size=200))
def test_a_bucket_never_gives_more_than_its_size_and_rate(steps: list[tuple[float, bool]]) -> None:
    bucket, now, taken = TokenBucket.full(2, 3), 0.0, 0
    for pause, hurry in steps:
        now += pause if hurry else bucket.wait(now) + 1e-9
        if bucket.wait(now) == 0:
            bucket, taken = bucket.take(now), taken + 1
        assert taken <= 3 + 2 * now + 1e-6


# Events.


def refused(note: str = "bad", uid: str = "u") -> ObjectWarning:
    return ObjectWarning(Version(uid, 1), "Invalid", note)


def run_events(book: EventQueue, until: float, now: float = 0.0) -> list[tuple[float, event_queue.Task]]:
    """Do all that the book wants from `now` to `until`."""
    done: list[tuple[float, event_queue.Task]] = []
    while now < until:
        task = book.next_task(now)
        if task is None:
            break
        if isinstance(task, (int, float)):
            now += task
            continue
        done.append((now, task))
        if isinstance(task, CreateEvent):
            book.on_created(task, now)
        elif isinstance(task, RenewEvent):
            book.on_renewed(task, now)
        else:
            book.on_read(task, 4)
    return done


def test_a_refusal_is_one_event_renewed_before_it_expires() -> None:
    book = EventQueue()
    book.replace_all({WEB: refused()})
    book.update({WEB: ObjectWarning(Version("u", 2), "Invalid", "bad")})
    done = run_events(book, 3600)
    assert [type(task).__name__ for _, task in done] == ["CreateEvent", "RenewEvent", "RenewEvent"]
    assert [task.count for _, task in done if isinstance(task, RenewEvent)] == [2, 3]
    assert all(later - sooner < 3600 for (sooner, _), (later, _) in zip(done, done[1:], strict=False))


def test_an_object_that_is_edited_over_and_over_has_few_events() -> None:
    book, done = EventQueue(), []
    for number in range(1000):
        book.update({WEB: refused(f"bad {number}")})
        done += run_events(book, (number + 1) / 10, number / 10)
        book.update({WEB: None})
    assert len(done) <= 100 / event_queue.QUIET_SECONDS + 1


def test_a_flood_of_refusals_is_bounded() -> None:
    book = EventQueue()
    book.replace_all({ObjectId("Pod", "shop", f"p{number}"): refused() for number in range(5000)})
    assert len(run_events(book, 10)) <= event_queue.WRITES_AT_ONCE + 10 * event_queue.WRITES_A_SECOND + 1


def test_after_a_restart_the_event_that_is_there_goes_on() -> None:
    book = EventQueue()
    book.replace_all({WEB: refused()})
    post = book.next_task(0)
    assert isinstance(post, CreateEvent)
    book.on_exists(post)
    look, renew = [task for _, task in run_events(book, 1)]
    assert isinstance(renew, RenewEvent) and (look.name, renew.count) == (post.name, 5)


def test_a_corrected_object_has_no_more_events() -> None:
    book = EventQueue()
    book.update({WEB: refused()})
    book.update({WEB: None})
    assert book.next_task(0) is None


NASTY = st.text(st.characters(codec="utf-8"), max_size=3000)


@given(NASTY)
def test_no_text_breaks_out_of_its_line(text: str) -> None:
    """docs/hazards.md E11."""
    line = single_line(text)
    assert len(line.encode()) <= MAX_MESSAGE and line.isascii() and (not line or line.isprintable())


def test_what_a_message_repeats_is_escaped_once() -> None:
    assert single_line('say "hi"') == 'say "hi"'
    assert single_line("a\r\n\x1b[31mred\u202e\x7f") == "a\\r\\n\\u001b[31mred\\u202e\\u007f"
    assert single_line(r"label value \"\u001b\" is") == r"label value \"\u001b\" is"


@given(NASTY)
def test_an_event_is_what_the_api_server_takes(text: str) -> None:
    """docs/hazards.md E11: whatever stands in its note."""
    key = ObjectId("RomanaNetworkPolicy", "shop", "a." * 120 + "b")
    task = CreateEvent(key, refused(text), event_name(key, refused(text)))
    body = event_body(task, "host_1", wall())
    assert len(body["note"].encode()) <= 1024
    assert len(body["metadata"]["name"]) <= 253
    assert body["regarding"] == {
        "apiVersion": "romana.io/v1",
        "kind": "NetworkPolicy",
        "namespace": "shop",
        "name": key.name,
        "uid": "u",
    }
    assert json.loads(json.dumps(body)) == body


@pytest.mark.parametrize("message", [ReplaceStatuses({WEB: policy_status(), T1: tenant_status(3)})])
def test_messages_go_through_a_pipe(message: object) -> None:
    assert pickle.loads(pickle.dumps(message)) == message
