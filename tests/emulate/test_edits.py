"""Edits in words: what opened, what closed, what it cost."""

from __future__ import annotations

from collections.abc import Sequence

from romana_ovs.emulate.controller import Programmed, Refused, State
from romana_ovs.emulate.edits import Edit, Edits, refusal_lines
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.matrix import Matrix, Opening

A, B = PodKey("x/a"), PodKey("x/b")
NOTHING = Matrix.of((A, B), ("80/tcp",), ())
OPEN = Matrix.of((A, B), ("80/tcp",), (Opening(A, B, "80/tcp"),))


def test_an_edit_is_told_by_its_difference() -> None:
    matrices = iter([NOTHING, OPEN, OPEN, NOTHING])
    told: list[Edit] = []
    refused: list[Sequence[str]] = []
    edits = Edits(lambda: next(matrices), edited=told.append, refused=refused.append)
    programmed = Programmed(2, 7.4, {"node1": 3, "node2": 0})
    edits.take(programmed)
    assert told == [], "what happens before `begin` is the start, not an edit"
    edits.begin()
    edits.take(State())
    for _ in range(3):
        edits.take(programmed)
    edits.take(Refused(("a.yaml: bad",)))
    assert [edit.lines() for edit in told] == [
        ["programmed in 7 ms (flow messages: node1 3)", "  opened: x/a -> x/b 80/tcp"],
        ["programmed in 7 ms (flow messages: node1 3); no path opened or closed"],
        ["programmed in 7 ms (flow messages: node1 3)", "  closed: x/a -> x/b 80/tcp"],
    ]
    assert refused == [("a.yaml: bad",)]


def test_json_of_an_edit() -> None:
    edit = Edit([Opening(A, B, "80/tcp")], [], Programmed(2, 7.4, {"node1": 3}))
    assert edit.to_json() == {
        "opened": [{"from": "x/a", "to": "x/b", "port": "80/tcp"}], "closed": [], "milliseconds": 7.4,
        "sent": {"node1": 3},
    }


def test_long_lists_are_cut_and_say_so() -> None:
    many = [Opening(A, PodKey(f"x/{number}"), "80/tcp") for number in range(25)]
    lines = Edit([], many, Programmed(2, 1.0, {})).lines()
    assert lines[0] == "programmed in 1 ms (flow messages: nothing)"
    assert len(lines) == 22
    assert lines[-1] == "  closed: and 5 more"


def test_a_refusal_says_that_the_version_before_stays() -> None:
    assert refusal_lines(["a.yaml: bad"]) == ["refused: a.yaml: bad", "the version before it stays in force"]
