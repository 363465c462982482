"""With `--best-effort` only a test that failed fails a run: not a machine that is slow or lacks something."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from romana_ovs.model.errors import SetupError
from romana_ovs_emulate.debian_packages import NoPackagesError
from tests.kernel import __main__ as program
from tests.kernel import slowness
from tests.kernel.image import Image
from tests.kernel.machine import EMULATION, NotBootedError
from tests.kernel.packages import Packages

ROOT = Path(__file__).parents[2]
TESTS = """
import time

def test_one():
    time.sleep(1.5)

def test_two():
    pass
"""
Outcome = Callable[[int | Exception], None]


@pytest.fixture
def outcome(monkeypatch: pytest.MonkeyPatch) -> Outcome:
    """Sets what comes of the machine: an exit code, or an error."""
    packages = Packages("bookworm", (), "linux-image-1-amd64", ())
    monkeypatch.setattr(program, "prepare_host", lambda progress: None)
    monkeypatch.setattr(program, "find_packages", lambda: packages)
    monkeypatch.setattr(program, "find_or_build", lambda packages, progress: Image(Path("/none")))

    def put(result: int | Exception) -> None:
        def run_job(*_: object) -> int:
            if isinstance(result, Exception):
                raise result
            return result

        monkeypatch.setattr(program, "run_job", run_job)

    return put


@pytest.mark.parametrize(("status", "expected"), [(0, 0), (1, 1), (5, 5), (124, 0), (137, 0), (75, 0)])
def test_a_timeout_is_no_failure(
    outcome: Outcome, capsys: pytest.CaptureFixture[str], status: int, expected: int
) -> None:
    outcome(status)
    assert program.main(["--best-effort"]) == expected
    assert ("are not run to their end" in capsys.readouterr().out) == (status > 70)
    assert program.main([]) == status


@pytest.mark.parametrize("error", [NotBootedError("no disk"), SetupError("it ended"), OSError(28, "disk full")])
def test_without_a_machine_one_line_says_why(
    outcome: Outcome, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    outcome(error)
    assert program.main(["--best-effort"]) == 0
    assert capsys.readouterr().out == f"The tests on the kernel's datapath are not run: {error}.\n"
    assert program.main([]) == 2
    assert capsys.readouterr().err == f"{error}\n"


def test_missing_packages_are_no_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def prepare_host(progress: object) -> None:
        raise NoPackagesError("no mirror")

    monkeypatch.setattr(program, "prepare_host", prepare_host)
    assert program.main(["--best-effort"]) == 0
    assert capsys.readouterr().out.endswith("are not run: no mirror.\n")


def test_preparation_has_a_limit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(program, "prepare_host", lambda progress: time.sleep(60))
    monkeypatch.setattr(program, "PREPARE_SECONDS", 0.2)
    assert program.main(["--best-effort"]) == 0
    assert capsys.readouterr().out.endswith("the virtual machine is not built after 0 s.\n")


def test_the_first_failure_ends_a_run_that_has_a_limit() -> None:
    script = program.Run(["tests/a.py"], 600.0, best_effort=True).script(EMULATION)
    assert "ROMANA_PATIENCE=$(python -m tests.kernel.slowness $ROMANA_PATIENCE)\n" in script
    assert "exec timeout --signal=INT --kill-after=30 780 python -m pytest " in script
    assert script.endswith(" -x --begin-limit=600 tests/a.py\n")


@pytest.mark.parametrize(("seconds", "printed", "status"), [(0.1, "8.0", 0), (0.6, "16.0", 0), (6.0, "160.0", 75)])
def test_a_slower_machine_gets_more_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seconds: float, printed: str, status: int
) -> None:
    monkeypatch.setattr(slowness, "measured_seconds", lambda: seconds)
    monkeypatch.setattr(slowness, "USUAL_SECONDS", 0.3)
    assert slowness.main(["8"]) == status
    assert capsys.readouterr().out == f"{printed}\n"


@pytest.mark.sessions
def test_tests_after_the_limit_are_not_run(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    argv = [sys.executable, "-m", "pytest", "-rs", "-p", "tests.kernel.begin_limit", "--begin-limit=1", "test_it.py"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin"}
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "1 passed, 1 skipped" in done.stdout
    assert "not run: no test begins after 1 s" in done.stdout
