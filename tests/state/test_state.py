"""The state file: whatever a crash leaves of it, numbers are found again or the loss is said aloud."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from romana_ovs import state
from romana_ovs.model.errors import InputError
from romana_ovs.state import Encoded, StateFile

OLD = {"numbers": {"a": 1}, "list": [1, 2, 3]}
NEW = {"numbers": {"a": 1, "b": 2}, "list": []}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "romana.state"


def test_nothing_saved_is_none(path: Path) -> None:
    assert StateFile(path).load() is None


def test_what_was_saved_is_loaded_by_another(path: Path) -> None:
    StateFile(path).save(OLD)
    assert StateFile(path).load() == OLD
    StateFile(path).save(NEW)
    assert StateFile(path).load() == NEW


def test_a_file_torn_at_any_byte_gives_way_to_the_previous_one(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = StateFile(path)
    file.save(OLD)
    file.save(NEW)
    whole = path.read_bytes()
    for kept in range(len(whole)):
        path.write_bytes(whole[:kept])
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger=state.__name__):
            assert StateFile(path).load() == OLD, kept
        assert str(path) in caplog.text


def test_a_file_with_any_byte_changed_is_never_taken_for_good(path: Path) -> None:
    file = StateFile(path)
    file.save(OLD)
    file.save(NEW)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x15]) + whole[place + 1 :])
        assert StateFile(path).load() in (OLD, NEW)
        if place > whole.index(b"\n"):
            assert StateFile(path).load() == OLD


@pytest.mark.parametrize("fill", [b"", b"\0" * 400, b"{}\n{}", b"[]\n"], ids=["empty", "zeros", "json", "list"])
def test_a_damaged_file_without_a_backup_is_a_named_error(path: Path, fill: bytes) -> None:
    path.write_bytes(fill)
    with pytest.raises(InputError, match="romana.state.*damaged.*missing"):
        StateFile(path).load()
    assert path.read_bytes() == fill


def test_saving_over_a_damaged_file_keeps_the_good_previous_one(path: Path) -> None:
    file = StateFile(path)
    file.save(OLD)
    file.save(NEW)
    path.write_bytes(b"torn")
    again = StateFile(path)
    assert again.load() == OLD
    again.save(NEW)
    path.write_bytes(b"torn again")
    assert StateFile(path).load() == OLD


@pytest.mark.parametrize("when", range(5))
def test_a_crash_at_any_step_of_saving_loses_at_most_that_save(
    path: Path, monkeypatch: pytest.MonkeyPatch, when: int
) -> None:
    StateFile(path).save(OLD)
    steps = iter(range(100))

    class Crash(Exception):
        pass

    def crashing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if next(steps) == when:
                raise Crash
            return real(*arguments)

        return call

    monkeypatch.setattr(os, "fsync", crashing(os.fsync))
    monkeypatch.setattr(os, "replace", crashing(os.replace))
    with pytest.raises(Crash):
        StateFile(path).save(NEW)
    monkeypatch.undo()
    assert StateFile(path).load() == (NEW if when == 4 else OLD)
    StateFile(path).save(NEW)
    assert StateFile(path).load() == NEW


def test_a_newer_version_is_refused_and_named(path: Path) -> None:
    StateFile(path).save(OLD)
    path.write_bytes(path.read_bytes().replace(b'"version": 1', b'"version": 9'))
    with pytest.raises(InputError, match="version 9"):
        StateFile(path).load()


def test_a_folder_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent/file: the state cannot be written: No such file"):
        StateFile(tmp_path / "absent" / "file").save(OLD)


def test_a_path_that_is_a_folder_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        StateFile(tmp_path).load()


def test_an_encoded_value_is_saved_as_it_is(path: Path) -> None:
    StateFile(path).save({"b": Encoded.of({"x": [1, "\u00e9"]}), "a": 2})
    assert StateFile(path).load() == {"a": 2, "b": {"x": [1, "\u00e9"]}}
    plain = path.with_name("plain")
    StateFile(plain).save({"a": 2, "b": {"x": [1, "\u00e9"]}})
    assert plain.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("when", range(5))
def test_saving_works_again_after_any_file_system_error(path: Path, monkeypatch: pytest.MonkeyPatch, when: int) -> None:
    file = StateFile(path)
    file.save(OLD)
    steps = iter(range(100))

    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if next(steps) == when:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(*arguments)

        return call

    monkeypatch.setattr(os, "fsync", failing(os.fsync))
    monkeypatch.setattr(os, "replace", failing(os.replace))
    with pytest.raises(InputError, match="the state cannot be written: Input/output error"):
        file.save(NEW)
    file.save(NEW)
    assert StateFile(path).load() == NEW
    assert file.previous.exists()
