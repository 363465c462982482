"""The status socket, in a process of its own: its green threads need the patched standard library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import eventlet
eventlet.monkey_patch()
import json, socket, sys
from pathlib import Path
from romana_ovs.controller.status_server import StatusServer

state = None
asked = []

def now():
    asked.append(state)
    return state

def until(condition):
    while not condition():
        eventlet.sleep(0.001)

path = Path(sys.argv[1])
feed = StatusServer(path, now)
feed.listen()
eventlet.spawn(feed.serve)
eventlet.spawn(feed.publish)
with eventlet.Timeout(20):
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    lines = client.makefile("rb")
    until(lambda: len(asked) == 2)  # at the connection, and because of it once more
    feed.broadcast({"event": "refused"})
    print(json.loads(lines.readline()))
    state = {"n": 1}
    feed.changed()
    print(json.loads(lines.readline()))
    other = socket.socket(socket.AF_UNIX)
    other.connect(str(path))
    print(json.loads(other.makefile("rb").readline()))
    before = len(asked)
    feed.changed()
    until(lambda: len(asked) > before)  # an equal state is not sent again
    state = None
    before = len(asked)
    feed.changed()
    until(lambda: len(asked) > before)
    state = {"n": 2}
    feed.changed()
    print(json.loads(lines.readline()))
print(oct(path.stat().st_mode & 0o777))
"""


def test_a_state_that_is_not_available_is_sent_later(tmp_path: Path) -> None:
    """While the world is worked on there is none; who connects then gets the next one, and events before it."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, str(tmp_path / "socket")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = ["{'event': 'refused'}", "{'n': 1}", "{'n': 1}", "{'n': 2}", "0o600"]
    assert done.stdout.splitlines() == lines, done.stderr


DEAF = """
import eventlet
eventlet.monkey_patch()
import json, os, socket, sys
from pathlib import Path
from romana_ovs.controller import status_server as module
from romana_ovs.controller.status_server import StatusServer

module.BACKLOG, module.BACKLOG_BYTES = int(sys.argv[2]), int(sys.argv[3])
number = 0

def state():
    return {"n": number, "text": "x" * 300_000}

def descriptors():
    return len(os.listdir("/proc/self/fd"))

path = Path(sys.argv[1])
feed = StatusServer(path, state)
feed.listen()
eventlet.spawn(feed.serve)
eventlet.spawn(feed.publish)
with eventlet.Timeout(30):
    reader = socket.socket(socket.AF_UNIX)
    reader.connect(str(path))
    lines = reader.makefile("rb")
    lines.readline()
    deaf = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    before = descriptors()
    for one in deaf:
        one.connect(str(path))
    for number in range(1, 30):
        feed.changed()
        while json.loads(lines.readline())["n"] != number:
            pass
    while descriptors() > before:
        eventlet.sleep(0.01)
print("closed")
"""


@pytest.mark.parametrize("limits", [("10", "1000000000"), ("1000", "2000000")], ids=["lines", "bytes"])
def test_a_client_that_does_not_read_is_hung_up_on(tmp_path: Path, limits: tuple[str, str]) -> None:
    """Else its connection, and all that it was to be sent, would be kept for as long as it likes to be there."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DEAF, str(tmp_path / "socket"), *limits],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "closed\n", done.stderr
