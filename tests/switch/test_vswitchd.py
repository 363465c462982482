"""The control socket of an ovs-vswitchd, with another at its end that says what the test wants."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import eventlet
import pytest

from romana_ovs.model.errors import SwitchError
from romana_ovs.switch import vswitchd
from romana_ovs.switch.vswitchd import Vswitchd, VswitchdUnavailable
from romana_ovs.switch.zone_limits import ZoneLimits, ZoneUse

Serve = Callable[[bytes], list[tuple[str, list[str]]]]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Answers every connection with these bytes; returns the list of what is asked."""
    listener = socket.socket(socket.AF_UNIX)
    asked: list[tuple[str, list[str]]] = []

    def start(answer: bytes) -> list[tuple[str, list[str]]]:
        (tmp_path / "ovs-vswitchd.pid").write_text("17\n")
        listener.bind(str(tmp_path / "ovs-vswitchd.17.ctl"))
        listener.listen()
        threading.Thread(target=run, args=(answer,), daemon=True).start()
        return asked

    def run(answer: bytes) -> None:
        try:
            while True:
                connection, _ = listener.accept()
                request = json.loads(connection.recv(65536))
                asked.append((request["method"], request["params"]))
                for at in range(0, len(answer), 7):
                    connection.sendall(answer[at : at + 7])
                if not answer:
                    threading.Event().wait(10)
                connection.close()
        except OSError:
            return

    yield start
    listener.close()


def _remote(folder: Path) -> str:
    return f"unix:{folder}/db.sock"


def test_limits_are_read_and_set_in_one_command_each(tmp_path: Path, serve: Serve) -> None:
    text = "default limit=0\nzone=5,limit=4,count=0\nzone=4097,limit=250000,count=1234\n"
    asked = serve(json.dumps({"error": None, "id": 0, "result": text}).encode())
    zones = ZoneLimits(_remote(tmp_path), "netdev")
    assert zones.read() == {5: ZoneUse(4, 0), 4097: ZoneUse(250_000, 1234)}
    zones.set({7: 8, 6: 9})
    zones.remove({9, 8})
    zones.set_fragments(2000)
    zones.set({})
    zones.remove(())
    assert asked == [
        ("dpctl/ct-get-limits", ["netdev@ovs-netdev"]),
        ("dpctl/ct-set-limits", ["netdev@ovs-netdev", "zone=6,limit=9", "zone=7,limit=8"]),
        ("dpctl/ct-del-limits", ["netdev@ovs-netdev", "zone=8,9"]),
        ("dpctl/ipf-set-max-nfrags", ["netdev@ovs-netdev", "2000"]),
    ]


def test_zones_of_the_kernel_are_read_in_batches(tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer is one message of a page; and of a zone without a limit it says that it is 0."""
    text = "default limit=0\nzone=5,limit=4,count=3\nzone=6,limit=0,count=0\n"
    asked = serve(json.dumps({"error": None, "id": 0, "result": text}).encode())
    kernel = ZoneLimits(_remote(tmp_path), "system")
    assert kernel.read(range(1, 301)) == {5: ZoneUse(4, 3)}
    parts = (range(1, 251), range(251, 301))
    assert asked == [
        ("dpctl/ct-get-limits", ["system@ovs-system", "zone=" + ",".join(map(str, part))]) for part in parts
    ]
    assert kernel.read_any() == {5: ZoneUse(4, 3)}
    assert asked[2:] == [("dpctl/ct-get-limits", ["system@ovs-system"])], "the answer is short, so it is whole"
    monkeypatch.setattr("romana_ovs.switch.zone_limits.SET_BATCH", 2)
    kernel.set({1: 7, 2: 7, 3: 8})
    assert [words[1:] for _, words in asked[3:]] == [["zone=1,limit=7", "zone=2,limit=7"], ["zone=3,limit=8"]]


def test_a_cut_answer_of_the_kernel_is_not_the_whole(tmp_path: Path, serve: Serve) -> None:
    text = "".join(f"zone={zone},limit=4,count=3\n" for zone in range(1, 251))
    asked = serve(json.dumps({"error": None, "id": 0, "result": text}).encode())
    assert len(ZoneLimits(_remote(tmp_path), "system").read_any()) == 250
    zones = [int(zone) for _, words in asked[1:] for zone in words[1].removeprefix("zone=").split(",")]
    assert zones == list(range(1, 1 << 16))


def test_the_size_of_the_table_is_the_switch_s_or_the_kernel_s(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = serve(b'{"error":null,"id":0,"result":"3000000\\n"}')
    assert ZoneLimits(_remote(tmp_path), "netdev").table_size() == 3_000_000
    monkeypatch.setattr("romana_ovs.switch.zone_limits.KERNEL_TABLE", tmp_path / "max")
    kernel = ZoneLimits(_remote(tmp_path), "system")
    assert kernel.table_size() is None
    (tmp_path / "max").write_text("262144\n")
    assert kernel.table_size() == 262_144
    kernel.set_fragments(2000)
    assert len(asked) == 1


def test_a_refused_command_raises(tmp_path: Path, serve: Serve) -> None:
    serve(b'{"error":"\\"dpctl/ct-get-limits\\" is not a valid command\\n","id":0,"result":null}')
    with pytest.raises(SwitchError, match=r"^dpctl/ct-get-limits: .* is not a valid command$") as caught:
        ZoneLimits(_remote(tmp_path), "netdev").read()
    assert not isinstance(caught.value, VswitchdUnavailable)


@pytest.mark.parametrize(
    ("answer", "reason"), [(b"{}" * 3, "disconnected"), (b"nonsense}", "disconnected"), (b"[1]", "disconnected")]
)
def test_an_invalid_answer_raises(tmp_path: Path, serve: Serve, answer: bytes, reason: str) -> None:
    serve(answer)
    with pytest.raises(VswitchdUnavailable, match=reason):
        Vswitchd(_remote(tmp_path)).transact("version")


def test_a_silent_process_blocks_no_other_green_thread(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(b"")
    monkeypatch.setattr(vswitchd, "ANSWER_SECONDS", 0.2)
    ticks: list[float] = []

    def tick() -> None:
        while True:
            ticks.append(time.monotonic())
            eventlet.sleep(0.01)

    other = eventlet.spawn(tick)
    with pytest.raises(VswitchdUnavailable, match=r"no answer to version within 0\.2 s"):
        Vswitchd(_remote(tmp_path)).transact("version")
    other.kill()
    assert len(ticks) >= 5


@pytest.mark.parametrize(
    ("pidfile", "remote", "reason"),
    [
        (None, "", r"ovs-vswitchd\.pid: No such file or directory"),
        ("", "", r"ovs-vswitchd\.pid: no process id in it"),
        ("../../x", "", r"ovs-vswitchd\.pid: no process id in it"),
        ("4194304", "", r"ovs-vswitchd\.4194304\.ctl: No such file or directory"),
        ("17", "tcp:192.0.2.1:6640", r"at tcp:192\.0\.2\.1:6640 has no control socket on this machine$"),
    ],
)
def test_a_missing_process_raises_with_the_reason(
    tmp_path: Path, pidfile: str | None, remote: str, reason: str
) -> None:
    if pidfile is not None:
        (tmp_path / "ovs-vswitchd.pid").write_text(pidfile)
    with pytest.raises(VswitchdUnavailable, match=reason):
        Vswitchd(remote or _remote(tmp_path)).transact("version")
