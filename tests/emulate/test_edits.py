"""Edits in words: what opened, what closed, what it cost."""

from __future__ import annotations

from collections.abc import Sequence

from romana_ovs.model.cluster import Cluster
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.matrix import Matrix, PodPath
from romana_ovs_emulate.controller import Programmed, Refused, State
from romana_ovs_emulate.edits import Edit, Edits, refusal_lines

A, B = PodKey("x/a"), PodKey("x/b")
NOTHING = Matrix.of((A, B), ("80/tcp",), ())
OPEN = Matrix.of((A, B), ("80/tcp",), (PodPath(A, B, "80/tcp"),))


class World:
    """A folder that changes, a clock, and what was told."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ready = True
        self.folder = (Cluster(), NOTHING)
        self.told: list[Edit] = []
        self.refused: list[Sequence[str]] = []
        self.edits = Edits(
            lambda: self.folder,
            settled=lambda: self.ready,
            on_edit=self.told.append,
            on_refusal=self.refused.append,
            clock=lambda: self.now,
        )

    def change(self, matrix: Matrix) -> None:
        self.folder = (Cluster(), matrix)


def test_an_edit_is_reported_with_its_difference() -> None:
    world = World()
    world.edits.on_event(Programmed(1, 5.0, {}))
    world.edits.start()
    for generation, matrix in ((2, OPEN), (3, OPEN), (4, NOTHING)):
        world.change(matrix)
        world.edits.on_event(Programmed(generation, 7.4, {"node1": 3, "node2": 0}))
        world.edits.on_event(State(generation - 1))
        assert len(world.told) == generation - 2, "a state from before the change proves nothing"
        world.edits.on_event(State(generation))
    world.edits.on_event(Programmed(5, 7.4, {"node1": 1}))
    world.edits.on_event(State(5))
    world.edits.on_event(Refused(("a.yaml: bad",)))
    assert [edit.lines() for edit in world.told] == [
        ["programmed in 7 ms (flow messages: node1 3)", "  opened: x/a -> x/b 80/tcp"],
        ["programmed in 7 ms (flow messages: node1 3); no path opened or closed"],
        ["programmed in 7 ms (flow messages: node1 3)", "  closed: x/a -> x/b 80/tcp"],
    ]
    assert world.refused == [("a.yaml: bad",)]


def test_an_edit_with_new_pods_is_reported_once_they_run() -> None:
    world = World()
    world.edits.start()
    world.ready = False
    world.change(OPEN)
    world.edits.on_event(Programmed(2, 7.0, {"node1": 3}))
    world.edits.on_event(State(2))
    assert world.told == []
    world.now = 0.050
    world.ready = True
    world.edits.on_event(Programmed(3, 2.0, {"node1": 1, "node2": 4}))
    world.edits.on_event(State(3))
    assert [edit.lines()[0] for edit in world.told] == ["programmed in 57 ms (flow messages: node1 4, node2 4)"]


def test_an_edit_whose_state_comes_before_its_event_is_reported() -> None:
    """The controller sends a state only when it differs from the last one: no further one may follow the event."""
    world = World()
    world.edits.start()
    world.change(OPEN)
    world.edits.on_event(State(2))
    assert world.told == []
    world.edits.on_event(Programmed(2, 7.0, {"node1": 3}))
    assert [edit.opened for edit in world.told] == [[PodPath(A, B, "80/tcp")]]


def test_an_edit_known_to_the_controller_first_is_reported() -> None:
    world = World()
    world.edits.start()
    world.edits.on_event(Programmed(2, 7.0, {"node1": 3}))
    world.edits.on_event(State(2))
    assert world.told == []
    world.now = 0.5
    world.change(OPEN)
    world.edits.catch_up()
    assert [edit.lines()[0] for edit in world.told] == ["programmed in 7 ms (flow messages: node1 3)"]
    world.edits.catch_up()
    assert len(world.told) == 1
    world.edits.on_event(Programmed(3, 7.0, {}))
    world.now = 60.0
    world.change(NOTHING)
    world.edits.catch_up()
    assert len(world.told) == 1, "what was programmed long ago was something else: this is still to come"
    world.edits.on_event(Programmed(4, 7.0, {"node2": 2}))
    world.edits.on_event(State(4))
    assert len(world.told) == 2


def test_an_edit_known_to_the_source_first_waits() -> None:
    world = World()
    world.edits.start()
    world.change(OPEN)
    world.edits.catch_up()
    assert world.told == []
    world.ready = False
    world.edits.on_event(Programmed(2, 7.0, {}))
    world.edits.catch_up()
    world.ready = True
    world.edits.on_event(State(2))
    assert len(world.told) == 1


def test_json_of_an_edit() -> None:
    edit = Edit([PodPath(A, B, "80/tcp")], [], Programmed(2, 7.4, {"node1": 3}))
    assert edit.to_json() == {
        "opened": [{"from": "x/a", "to": "x/b", "port": "80/tcp"}],
        "closed": [],
        "milliseconds": 7.4,
        "sent": {"node1": 3},
    }


def test_long_lists_are_cut_and_say_so() -> None:
    many = [PodPath(A, PodKey(f"x/{number}"), "80/tcp") for number in range(25)]
    lines = Edit([], many, Programmed(2, 1.0, {})).lines()
    assert lines[0] == "programmed in 1 ms (flow messages: nothing)"
    assert len(lines) == 22
    assert lines[-1] == "  closed: and 5 more"


def test_a_refusal_names_the_version_that_stays() -> None:
    assert refusal_lines(["a.yaml: bad"]) == [
        "refused: a.yaml: bad",
        "the last valid version stays in force; a policy that never had one allows nothing",
    ]
