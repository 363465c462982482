"""What the controller writes at ports."""

from __future__ import annotations

from romana_ovs.switch.ovsdb import changed_problems

A, B = "row-a", "row-b"


def test_a_new_problem_is_written_and_an_old_one_removed() -> None:
    assert changed_problems({A: "old"}, {A: "old"}, {B: "new"}) == {A: "", B: "new"}


def test_a_problem_that_is_stored_is_not_written_again() -> None:
    assert changed_problems({A: "same"}, {A: "same"}, {A: "same"}) == {}


def test_a_queued_problem_that_is_gone_is_removed() -> None:
    assert changed_problems({}, {A: "not stored yet"}, {}) == {A: ""}


def test_a_queued_text_that_changes_back_is_written_again() -> None:
    assert changed_problems({A: "first"}, {A: "second"}, {A: "first"}) == {A: "first"}


def test_the_problems_of_a_former_process_are_removed() -> None:
    assert changed_problems({A: "of before"}, {}, {}) == {A: ""}
