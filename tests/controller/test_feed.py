"""The status socket, in a process of its own: its green threads need the patched standard library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import eventlet
eventlet.monkey_patch()
import json, socket, sys
from pathlib import Path
from romana_ovs.controller.feed import Feed

state = None
asked = []

def now():
    asked.append(state)
    return state

def until(condition):
    while not condition():
        eventlet.sleep(0.001)

path = Path(sys.argv[1])
feed = Feed(path, now)
feed.listen()
eventlet.spawn(feed.serve)
eventlet.spawn(feed.publish)
with eventlet.Timeout(20):
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    lines = client.makefile("rb")
    until(lambda: len(asked) == 2)  # at the connection, and because of it once more
    feed.tell({"event": "refused"})
    print(json.loads(lines.readline()))
    state = {"n": 1}
    feed.changed()
    print(json.loads(lines.readline()))
    other = socket.socket(socket.AF_UNIX)
    other.connect(str(path))
    print(json.loads(other.makefile("rb").readline()))
    before = len(asked)
    feed.changed()
    until(lambda: len(asked) > before)  # the same again is not told again
    state = None
    before = len(asked)
    feed.changed()
    until(lambda: len(asked) > before)
    state = {"n": 2}
    feed.changed()
    print(json.loads(lines.readline()))
print(oct(path.stat().st_mode & 0o777))
"""


def test_a_state_that_is_not_to_be_had_is_told_later(tmp_path: Path) -> None:
    """While the world is worked on there is none; who connects then gets the next one, and events before it."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, str(tmp_path / "socket")],
        capture_output=True, text=True, timeout=60, check=False,
    )
    told = ["{'event': 'refused'}", "{'n': 1}", "{'n': 1}", "{'n': 2}", "0o600"]
    assert done.stdout.splitlines() == told, done.stderr
