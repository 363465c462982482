"""How the process ends: never quietly, never as if all were well; and that nothing stalls it.

See docs/hazards.md D10 and D11.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import COMMAND, ROOT, run_command


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=30
    )


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ("lambda: 1 / 0", "ZeroDivisionError"),
        ("lambda: None", "has ended"),
        ("lambda: (_ for _ in ()).throw(runtime.RomanaError('no inotify'))", "no inotify"),
    ],
)
def test_the_process_ends_with_an_essential_green_thread(job: str, said: str) -> None:
    done = _python(f"from romana_ovs import runtime; runtime.spawn_essential({job}); runtime.hub.sleep(5)")
    assert done.returncode == 1
    assert said in done.stderr


def test_another_job_ends_alone() -> None:
    done = _python("from romana_ovs import runtime; runtime.spawn(lambda: 1 / 0).wait(); print('goes on')")
    assert done.returncode == 0
    assert done.stdout == "goes on\n"
    assert "ZeroDivisionError" in done.stderr


BUSY = """
import time
from romana_ovs import runtime

def burn():
    end = time.monotonic() + 3
    while time.monotonic() < end:
        sum(range(1000))

gaps, done = [], []

def tick():
    last = time.monotonic()
    while not done:
        runtime.hub.sleep(0.01)
        now = time.monotonic()
        gaps.append(now - last)
        last = now

ticking = runtime.spawn(tick)
runtime.run_in_thread(burn)
done.append(True)
ticking.wait()
print(len(gaps), max(gaps))
"""


@pytest.mark.alone
def test_a_long_computation_blocks_no_green_thread() -> None:
    """docs/hazards.md D10: echoes are answered by green threads, which do not wait for who computes."""
    done = _python(BUSY)
    assert done.returncode == 0, done.stderr
    count, longest = done.stdout.split()
    assert int(count) > 20 and float(longest) < 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--config-file", "/nonexistent.conf"], "/nonexistent.conf"),
        ([], "names no folder of manifests"),
    ],
)
def test_unusable_settings_are_one_sentence(options: list[str], said: str, tmp_path: Path) -> None:
    if not options:
        (tmp_path / "empty.conf").write_text("[romana]\nmanifests =\n")
        options = ["--config-file", str(tmp_path / "empty.conf")]
    done = run_command("controller", *options, seconds=30)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_cannot_be_listened_on_ends_it(tmp_path: Path) -> None:
    settings = tmp_path / "c.conf"
    settings.write_text(f"[romana]\nmanifests = {tmp_path}\novsdb = unix:{tmp_path}/none\n")
    done = run_command("controller", "--config-file", str(settings), "--ofp-listen-host", "192.0.2.1", seconds=30)
    assert done.returncode == 1
    assert "cannot listen" in done.stderr


def test_a_registry_alone_listens_for_no_switch(tmp_path: Path) -> None:
    """So that it may stand beside a node's controller: an address that is nobody's is no trouble to it."""
    words = ["controller", "--registry", "--kubeconfig", str(tmp_path / "none"), "--ofp-listen-host", "192.0.2.1"]
    process = subprocess.Popen(
        [*COMMAND, *words],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        said = iter(process.stderr.readline, "")
        assert any("listens for no switch" in line for line in said)
        assert process.poll() is None
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0


LOGGING = """
import logging, sys
import eventlet
eventlet.monkey_patch()
from romana_ovs import runtime

logging.basicConfig(stream=sys.stderr, level=logging.INFO)
runtime.use_native_log_locks()
LOG = logging.getLogger("both")
LINES = 20_000

def green():
    for number in range(LINES):
        LOG.info("green %d", number)
        eventlet.sleep(0)

writer = eventlet.spawn(green)
runtime.run_in_thread(lambda: [LOG.info("native %d", number) for number in range(LINES)])
writer.wait()
print("done")
"""


def test_green_and_native_threads_log_at_the_same_time() -> None:
    """With green locks one of them waits for ever."""
    done = subprocess.run(
        [sys.executable, "-c", LOGGING], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-500:]
    assert done.stderr.count("INFO:both:") == 40_000
