"""What every test gets: hypothesis profiles, golden files, and the proof that nothing of ours stays behind."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# What they assert is told as plainly as what tests assert themselves.
pytest.register_assert_rewrite("tests.support", "tests.integration", "tests.apiserver", "tests.attacks")
pytest.register_assert_rewrite("tests.conformance", "tests.properties")

from tests.support import leak_check, limits  # noqa: E402
from tests.support.control_plane import admin, control_plane, namespace  # noqa: E402
from tests.support.datapath import check_datapath  # noqa: E402
from tests.support.hypothesis_profiles import PROFILE, USUAL, examples  # noqa: E402
from tests.support.isolation import AloneLock, isolate_session  # noqa: E402
from tests.support.open_vswitch import open_vswitch_version, use_open_vswitch  # noqa: E402
from tests.support.xdist_workers import Workers, death_of_another, shared_folder  # noqa: E402

__all__ = ["admin", "control_plane", "namespace"]  # Fixtures for every folder.

GOLDENS = Path(__file__).parent / "goldens"
INTEGRATION = Path(__file__).parent / "integration"
API_SERVER = Path(__file__).parent / "apiserver"
DEADLINE = pytest.StashKey[float]()
TURNS = pytest.StashKey[AloneLock]()

# The machine may be slow and shared: time per example says nothing. CI asks the same questions every time.
_COMMON = settings(deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", _COMMON, max_examples=USUAL, derandomize=bool(os.environ.get("CI")))
settings.register_profile("brief", _COMMON, max_examples=examples(USUAL))
settings.register_profile("long", _COMMON, max_examples=3000)
settings.load_profile(PROFILE)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--rewrite-goldens`, `--time-limit` and `--attacks`."""
    parser.addoption("--rewrite-goldens", action="store_true", help="write the expected texts instead of comparing")
    parser.addoption("--time-limit", type=float, default=0, metavar="SECONDS", help="begin no test after this time")
    parser.addoption(
        "--attacks", choices=("short", "all"), default="short", help="which of tests/attacks, on one fabric or on all"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Chooses Open vSwitch, checks the datapath, bounds memory, looks after workers and the time of each test."""
    use_open_vswitch()
    check_datapath()
    limits.limit_memory()
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Workers(), "romana-workers")
        if PROFILE != "long":
            config.pluginmanager.register(limits.Durations(), "romana-durations")


def pytest_report_header() -> str:
    """The line that names the Open vSwitch of this run."""
    return f"Open vSwitch: {open_vswitch_version() or 'none'}"


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Notes when the session has to stop."""
    if (folder := shared_folder(session.config)) is not None:
        session.config.stash[TURNS] = AloneLock(folder)
    limit = session.config.getoption("--time-limit")
    session.config.stash[DEADLINE] = time.monotonic() + limit if limit else float("inf")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Among several workers, tests that are marked so run alone."""
    if TURNS not in item.config.stash:
        return (yield)
    with item.config.stash[TURNS].taken(alone=item.get_closest_marker("alone") is not None):
        return (yield)


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Stops in good order at the time limit, and when another worker has died: everything is torn down, and the closing
    line says how far it came."""
    if time.monotonic() > item.config.stash[DEADLINE]:
        item.session.shouldfail = "the time limit is reached"
    elif death := death_of_another(item.config):
        item.session.shouldfail = death


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what needs root or an API server, and skips those marked `root` where they cannot run (never in CI)."""
    lacking = _lacking()
    for item in items:
        limits.check_marker(item)
        if INTEGRATION in item.path.parents:
            item.add_marker("root")
        if API_SERVER in item.path.parents or "control_plane" in getattr(item, "fixturenames", ()):
            item.add_marker("apiserver")
        if lacking and not os.environ.get("CI") and item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason=lacking))


def _lacking() -> str:
    if os.geteuid() != 0:
        return "needs root"
    return "" if shutil.which("ovs-vswitchd") else "needs Open vSwitch"


@pytest.fixture(scope="session", autouse=True)
def nothing_stays_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fails the session when a process, network namespace, run or temporary folder of it outlives its tests."""
    if os.geteuid() == 0:
        isolate_session()
    tmp_path_factory.getbasetemp()  # Made before temporary files move to a folder that is watched.
    watch = leak_check.LeakCheck.start()
    yield
    left = watch.finish()
    assert not left, "left behind by the tests:\n" + "\n".join(left)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden(name, text)`: compares `text` with tests/goldens/NAME, or writes it under `--rewrite-goldens`."""

    def compare(name: str, text: str) -> None:
        path = GOLDENS / name
        if request.config.getoption("--rewrite-goldens"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert path.is_file(), f"{path} is missing: write it with `make goldens` and review it"
        assert text.splitlines() == path.read_text().splitlines()

    return compare
