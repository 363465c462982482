"""The Kubernetes process as its controller meets it."""

from __future__ import annotations

import logging
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from romana_ovs.kube.api.messages import Health, ListCompleted, LogLine, Start, frame
from romana_ovs.kube.api.resources import NAMESPACES, NODES
from romana_ovs.kube.api.source import ApiSource
from romana_ovs.model.settings import Settings
from tests.support.kubernetes_process import COMMAND, SECONDS, KubeProcess, kubernetes_process
from tests.support.scripted_server import Exchange, ScriptedServer, kubeconfig, page, scripted_server, watch


@pytest.fixture
def child() -> Iterator[KubeProcess]:
    with kubernetes_process() as made:
        yield made


def silent(exchange: Exchange) -> None:
    """Begin a watch, then nothing any more."""
    exchange.begin()
    threading.Event().wait(SECONDS)


def start(source: ApiSource) -> Start:
    return Start(source, Settings(), (NAMESPACES,))


def test_it_lists_and_ends_with_its_controller(server: ScriptedServer, child: KubeProcess, tmp_path: Path) -> None:
    server.then(page("a"), silent)
    child.send(start(kubeconfig(tmp_path, server.url)))
    child.until(lambda message: message == ListCompleted("namespaces"))
    assert child.process.stdin is not None
    child.process.stdin.close()
    assert child.process.wait(SECONDS) == 0


def test_it_ends_at_once_when_stopped(server: ScriptedServer, child: KubeProcess, tmp_path: Path) -> None:
    server.then(page("a"), silent)
    child.send(start(kubeconfig(tmp_path, server.url)))
    child.until(lambda message: message == ListCompleted("namespaces"))
    begin = time.monotonic()
    child.process.terminate()
    assert child.process.wait(SECONDS) == -signal.SIGTERM
    assert time.monotonic() - begin < 5


def test_ctrl_c_is_not_for_it(server: ScriptedServer, child: KubeProcess, tmp_path: Path) -> None:
    server.then(page("a"), silent)
    child.send(start(kubeconfig(tmp_path, server.url)))
    child.until(lambda message: message == ListCompleted("namespaces"))
    child.process.send_signal(signal.SIGINT)
    child.send("nobody's")
    said = child.until(lambda message: isinstance(message, LogLine) and message.level == logging.ERROR)
    assert said == LogLine(
        logging.ERROR, "romana_ovs.kube", "internal error: no component handles message str, please report"
    )


def test_it_ends_when_its_controller_was_killed() -> None:
    """Nobody says goodbye: the pipes just break."""
    program = (
        "import subprocess, sys, time\n"
        f"p = subprocess.Popen({COMMAND!r}, stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "print(p.pid, flush=True)\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + SECONDS
    while running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_an_unreachable_server_is_reported_and_recovers(child: KubeProcess, tmp_path: Path) -> None:
    with scripted_server() as server:
        port = server.port
    child.send(start(kubeconfig(tmp_path, f"http://127.0.0.1:{port}")))
    health = child.until(lambda message: isinstance(message, Health))
    assert health.error == f"namespaces: http://127.0.0.1:{port}: Connection refused"
    with scripted_server(port=port) as server:
        server.then(page("a"), silent)
        child.until(lambda message: message == ListCompleted("namespaces"))
        child.until(lambda message: message == Health("namespaces"))


def test_a_kubeconfig_that_is_not_there_yet(server: ScriptedServer, child: KubeProcess, tmp_path: Path) -> None:
    child.send(start(ApiSource(str(tmp_path / "config"))))
    health = child.until(lambda message: isinstance(message, Health))
    assert health.error == f"namespaces: {tmp_path}/config: No such file or directory"
    server.then(page("a"), silent)
    kubeconfig(tmp_path, server.url)
    child.until(lambda message: message == ListCompleted("namespaces"))


def test_a_plugin_that_reads_and_prints_does_not_disturb(
    server: ScriptedServer, child: KubeProcess, tmp_path: Path
) -> None:
    plugin = tmp_path / "plugin"
    status = '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"t"}}'
    plugin.write_text(f"#!/bin/sh\ncat\necho noise >&2\necho '{status}'\n")
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    command = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin)}
    server.then(page("a"), silent)
    child.send(start(kubeconfig(tmp_path, server.url, exec=command)), "after")
    child.until(lambda message: message == ListCompleted("namespaces"))
    child.until(lambda message: isinstance(message, LogLine) and "no component handles" in message.text)
    assert server.requests[0].headers["authorization"] == "Bearer t"


def test_one_resource_in_trouble_does_not_hold_up_another(
    server: ScriptedServer, child: KubeProcess, tmp_path: Path
) -> None:
    def first_come(exchange: Exchange) -> None:
        if exchange.request.path.endswith("nodes"):
            silent(exchange)
        elif "watch" in exchange.request.query:
            watch()(exchange)
        else:
            page("a")(exchange)

    server.then(*[first_come] * 20)
    child.send(Start(kubeconfig(tmp_path, server.url), Settings(), (NODES, NAMESPACES)))
    child.until(lambda message: message == ListCompleted("namespaces"))


def test_an_end_in_the_middle_of_its_words(child: KubeProcess) -> None:
    assert child.process.stdin is not None
    child.process.stdin.write(frame("x")[:-1])
    child.process.stdin.close()
    assert child.process.wait(SECONDS) == 0


def test_what_is_no_frame_ends_it_with_a_line_in_the_log(child: KubeProcess) -> None:
    assert child.process.stdin is not None
    child.process.stdin.write(b"\0\0\0\3abc")
    said = child.until(lambda message: isinstance(message, LogLine))
    assert "internal error" in said.text
    assert child.process.wait(SECONDS) == 1
