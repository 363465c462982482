"""One query to a database: values as Python has them, and every way in which it can fail, in a sentence."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from romana_ovs.model.errors import SwitchError
from romana_ovs.switch import database_query
from romana_ovs.switch.database_query import read_tables
from tests.support.private_ovs import Ovs, needs_ovs

Serve = Callable[[bytes], str]
COLUMNS = {"Bridge": ("name", "ports", "external_ids", "fail_mode")}
ROW = {
    "_uuid": ["uuid", "b1"],
    "name": "br-int",
    "ports": ["set", [["uuid", "p1"], ["uuid", "p2"]]],
    "external_ids": ["map", [["a", "1"], ["b", "2"]]],
    "fail_mode": ["set", []],
}


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Answers one request with these bytes, or never for none; returns the remote."""
    listener = socket.socket(socket.AF_UNIX)
    ended = threading.Event()

    def start(answer: bytes) -> str:
        path = tmp_path / "db.sock"
        listener.bind(str(path))
        listener.listen()
        threading.Thread(target=run, args=(answer,), daemon=True).start()
        return f"unix:{path}"

    def run(answer: bytes) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)
            if not answer:
                ended.wait(10)

    yield start
    ended.set()
    listener.close()


def answer(result: object, error: object = None) -> bytes:
    """The bytes of a response."""
    return json.dumps({"id": 0, "result": result, "error": error}).encode()


def test_values(serve: Serve) -> None:
    assert read_tables(serve(answer([{"rows": [ROW]}])), COLUMNS) == {
        "Bridge": (
            {
                "_uuid": "b1",
                "name": "br-int",
                "ports": ("p1", "p2"),
                "external_ids": {"a": "1", "b": "2"},
                "fail_mode": (),
            },
        )
    }


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (answer(None, {"error": "unknown database"}), "the query was refused: .*unknown database"),
        (answer([]), "the query was refused"),
        (answer([{"error": "unknown column"}]), "the table Bridge cannot be read: .*unknown column"),
        (b"[1]", "disconnected without an answer"),
    ],
)
def test_answers_that_are_none(serve: Serve, given: bytes, reason: str) -> None:
    with pytest.raises(SwitchError, match=reason):
        read_tables(serve(given), COLUMNS)


def test_no_answer_in_time(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_query, "ANSWER_SECONDS", 0.2)
    with pytest.raises(SwitchError, match=r"no answer within 0\.2 s"):
        read_tables(serve(b""), COLUMNS)


@pytest.mark.parametrize("remote", ["tcp:192.0.2.1:6640", "unix:/nowhere/db.sock"])
def test_databases_that_are_not_here(remote: str) -> None:
    with pytest.raises(SwitchError, match=r"is not a unix socket of this machine|No such file or directory"):
        read_tables(remote, COLUMNS)


@needs_ovs
@pytest.mark.root
def test_a_real_database() -> None:
    with Ovs() as ovs:
        ovs.bridge("br-int", node="node1")
        row = read_tables(ovs.remote, COLUMNS)["Bridge"][0]
    assert (row["name"], row["fail_mode"], row["external_ids"]) == ("br-int", "secure", {"romana-node": "node1"})
