"""Requests to an API server: what comes back, and which error says what went wrong."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from email.utils import formatdate
from functools import partial
from pathlib import Path

import pytest

from romana_ovs.kube.api import client
from romana_ovs.kube.api.client import Api
from romana_ovs.kube.api.source import ApiSource
from romana_ovs.model.errors import (
    ApiError,
    BusyError,
    ConflictError,
    CredentialsError,
    DeniedError,
    ExpiredError,
    FaultyError,
    MissingError,
    RefusedError,
    TornError,
    UnreachableError,
)
from tests.support.scripted_server import Exchange, ScriptedServer, kubeconfig


@pytest.fixture
def api(server: ScriptedServer, tmp_path: Path) -> Api:
    return Api(kubeconfig(tmp_path, server.url))


def test_a_request_and_its_answer(server: ScriptedServer, api: Api) -> None:
    server.then(lambda exchange: exchange.answer(201, {"a": 1}, X_Some="thing"))
    answer = api.request("POST", "/api/v1/x", query={"limit": 5, "continue": "a b"}, body={"kind": "X"})
    assert (answer.status, answer.headers["x-some"], answer.json()) == (201, "thing", {"a": 1})
    [request] = server.requests
    assert (request.method, request.path, request.query) == ("POST", "/api/v1/x", {"limit": "5", "continue": "a b"})
    assert json.loads(request.body) == {"kind": "X"}
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("romana-ovs/")


def test_connections_are_used_again(server: ScriptedServer, api: Api) -> None:
    for status in (200, 404, 200):
        server.then(partial(Exchange.answer, status=status, body={}))
    api.request("GET", "/a")
    with pytest.raises(MissingError):
        api.request("GET", "/b")
    api.request("GET", "/c")
    assert len(server.connections) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, RefusedError),
        (401, DeniedError),
        (403, DeniedError),
        (404, MissingError),
        (409, ConflictError),
        (410, ExpiredError),
        (422, RefusedError),
        (429, BusyError),
        (500, FaultyError),
        (504, FaultyError),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_every_refusal_is_an_error_of_its_kind(
    server: ScriptedServer, api: Api, status: int, kind: type[ApiError], streamed: bool
) -> None:
    """And the server's words are on one line, plain (docs/hazards.md E11)."""
    server.then(lambda exchange: exchange.answer(status, {"kind": "Status", "message": "so\nit \x1b[1mis"}))
    with pytest.raises(kind) as caught:
        list(api.stream("/w", deadline=5)) if streamed else api.request("GET", "/w")
    assert type(caught.value) is kind
    assert caught.value.status == status
    assert str(caught.value) == f"GET /w: {status}, so it \\x1b[1mis"


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("soon", None), ("9" * 400, 21600.0), (formatdate(0, usegmt=True), 0.0)]
)
def test_retry_after_is_read(server: ScriptedServer, api: Api, header: str, seconds: float | None) -> None:
    server.then(lambda exchange: exchange.answer(429, b"slow down", Retry_After=header))
    with pytest.raises(BusyError, match="429, slow down") as caught:
        api.request("GET", "/x")
    assert caught.value.retry_after == seconds


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(UnreachableError, match=f"^http://127.0.0.1:{port}: Connection refused$"):
        Api(kubeconfig(tmp_path, f"http://127.0.0.1:{port}")).request("GET", "/x")


def test_an_answer_that_does_not_come(server: ScriptedServer, api: Api) -> None:
    asked, done = threading.Event(), threading.Event()

    def silent(exchange: Exchange) -> None:
        asked.set()
        done.wait(10)

    server.then(silent)
    begin = time.monotonic()
    with pytest.raises(UnreachableError, match="no data in time"):
        api.request("GET", "/x", deadline=0.3)
    assert asked.is_set() and time.monotonic() - begin < 5
    done.set()


def test_an_answer_that_trickles_has_a_deadline_too(server: ScriptedServer, api: Api) -> None:
    def trickle(exchange: Exchange) -> None:
        exchange.begin()
        while True:  # until the connection is closed by the other side
            exchange.chunk(b"x")
            time.sleep(0.01)

    server.then(trickle)
    with pytest.raises(TornError, match="longer than its deadline"):
        api.request("GET", "/x", deadline=0.5)


def test_an_answer_that_breaks_off_leaves_no_broken_connection(server: ScriptedServer, api: Api) -> None:
    def torn(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}")
        exchange.hang_up()

    server.then(torn, lambda exchange: exchange.answer(200, {}))
    with pytest.raises(TornError):
        api.request("GET", "/x")
    assert api.request("GET", "/x").json() == {}


def test_an_answer_that_is_no_json(server: ScriptedServer, api: Api) -> None:
    server.then(lambda exchange: exchange.answer(200, b"<html>"), lambda exchange: exchange.answer(200, b"[" * 100000))
    for _ in range(2):
        with pytest.raises(TornError, match="not valid JSON"):
            api.request("GET", "/x").json()


def test_a_stream_gives_lines_as_they_come(server: ScriptedServer, api: Api) -> None:
    more = threading.Event()

    def streamed(exchange: Exchange) -> None:
        exchange.begin()
        for piece in (b'{"a":', b"1}\n{", b'"b":2}\n'):
            exchange.chunk(piece)
        more.wait(10)
        exchange.chunk(b"last\n")
        exchange.chunk(b"")

    server.then(streamed)
    lines = api.stream("/w", query={"watch": "true"}, deadline=30)
    assert [next(lines), next(lines)] == [b'{"a":1}', b'{"b":2}']
    more.set()
    assert list(lines) == [b"last"]


def test_a_stream_that_ends_inside_an_object(server: ScriptedServer, api: Api) -> None:
    def clean(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(b'one\n{"type":"ADD')
        exchange.chunk(b"")

    def cut(exchange: Exchange) -> None:
        exchange.begin()
        exchange.send(b"30\r\none\n{")
        exchange.hang_up()

    for step in (clean, cut):
        server.then(step)
        seen: list[bytes] = []
        with pytest.raises(TornError):
            seen.extend(api.stream("/w", deadline=30))


def test_a_silent_stream_is_given_up(server: ScriptedServer, api: Api) -> None:
    done = threading.Event()

    def silent(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(b"one\n")
        done.wait(10)

    server.then(silent)
    lines = api.stream("/w", deadline=30, silent=0.3)
    assert next(lines) == b"one"
    with pytest.raises(TornError, match="no data in time"):
        next(lines)
    done.set()


def test_a_token_file_is_read_again_when_it_is_another(server: ScriptedServer, tmp_path: Path) -> None:
    """docs/hazards.md C11: as kubelet writes it anew, long before the hour is over."""
    token = tmp_path / "token"
    token.write_text("first\n")
    api = Api(kubeconfig(tmp_path, server.url, tokenFile="token"))
    for _ in range(3):
        server.then(lambda exchange: exchange.answer(200, {}))
    api.request("GET", "/x")
    (tmp_path / "new").write_text("second")
    os.replace(tmp_path / "new", token)
    api.request("GET", "/x")
    token.unlink()
    with pytest.raises(CredentialsError, match="token"):
        api.request("GET", "/x")
    token.write_text("third")
    api.request("GET", "/x")
    sent = [request.headers["authorization"] for request in server.requests]
    assert sent == ["Bearer first", "Bearer second", "Bearer third"]


def test_a_plugin_is_run_again_after_401(server: ScriptedServer, tmp_path: Path) -> None:
    """docs/hazards.md C11."""
    count, plugin = tmp_path / "count", tmp_path / "plugin"
    status = '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"t%s"}}'
    plugin.write_text(f"#!/bin/sh\necho >> '{count}'\nprintf '{status}' $(wc -l < '{count}')\n")
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    command = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin)}
    api = Api(kubeconfig(tmp_path, server.url, exec=command))
    for status_code in (200, 401, 200):
        server.then(partial(Exchange.answer, status=status_code, body={}))
    api.request("GET", "/x")
    with pytest.raises(DeniedError):
        api.request("GET", "/x")
    api.request("GET", "/x")
    assert [request.headers["authorization"] for request in server.requests] == ["Bearer t1", "Bearer t1", "Bearer t2"]


def test_a_plugin_that_hangs_is_an_error(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else all threads would wait for the one that asked it, and everything would look well."""
    monkeypatch.setattr(client, "CREDENTIALS_SECONDS", 0.1)
    plugin, go = tmp_path / "plugin", tmp_path / "go"
    token = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "late"}}
    plugin.write_text(
        f"#!/bin/sh\ntouch {tmp_path}/asked\nuntil [ -e {go} ]; do sleep 0.02; done\necho '{json.dumps(token)}'\n"
    )
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    exec_ = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin), "interactiveMode": "Never"}
    api = Api(kubeconfig(tmp_path, server.url, exec=exec_))
    for _ in range(2):
        server.then(lambda exchange: exchange.answer(200, {}))
    first = threading.Thread(target=lambda: api.request("GET", "/version"), daemon=True)
    first.start()
    while not (tmp_path / "asked").exists():
        time.sleep(0.01)
    with pytest.raises(CredentialsError, match="their plugin does not respond"):
        api.request("GET", "/version")
    go.touch()
    first.join(20)
    assert not first.is_alive() and api.request("GET", "/version").status == 200


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "No such file"),
        ("", "config"),
        ("- a\n", "is no kubeconfig"),
        ("a: [", "is no kubeconfig"),
        ("clusters: {}\ncontexts: []\ncurrent-context: x\n", "Expected object with name x"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used(tmp_path: Path, text: str | None, reason: str) -> None:
    path = tmp_path / "config"
    if text is not None:
        path.write_text(text)
    with pytest.raises(CredentialsError, match=reason) as caught:
        Api(ApiSource(str(path))).request("GET", "/x")
    assert str(path) in str(caught.value)


def test_outside_a_pod_there_is_no_account() -> None:
    with pytest.raises(CredentialsError, match="the service account of this pod"):
        Api(ApiSource()).request("GET", "/x")


def test_nobody_loads_the_kubernetes_package_before_it_is_needed() -> None:
    program = "import sys, romana_ovs.cli.main, romana_ovs.kube.api.client\nprint('kubernetes' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
