"""Attacks under pytest: which of them a session tries, where they take place, and how they are counted.

A test marked `attack` is one attack for each of its parameters. Its name is made of the fabric, the test and these.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import pytest

from romana_ovs_emulate.fabric import Fabric
from tests.attacks.ground import cluster as cluster_of
from tests.attacks.open_items import known
from tests.attacks.report import Outcome, Report
from tests.attacks.scene import NotHeldError, Scene, scene_of

REPORT = pytest.StashKey[Report]()
AFTER = "after"
"""The parameter of tests that says which node's switch died."""


def pytest_configure(config: pytest.Config) -> None:
    """Has the outcomes counted, unless they are another process's to count."""
    config.stash[REPORT] = Report()
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(config.stash[REPORT], "attacks")


def everything(config: pytest.Config) -> bool:
    """Whether all attacks are wanted on all fabrics."""
    return bool(config.getoption("--attacks") == "all")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One fabric, or all."""
    if "fabric" in metafunc.fixturenames:
        fabrics = list(Fabric) if everything(metafunc.config) else [Fabric.LINK]
        metafunc.parametrize("fabric", fabrics, ids=lambda fabric: fabric.value, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what only a whole session tries, and names attacks."""
    mine = [
        item for item in items if isinstance(item, pytest.Function) and item.get_closest_marker("attack") is not None
    ]
    if not everything(config):
        long = [item for item in mine if item.get_closest_marker("long") is not None]
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)
    for item in mine:
        name = name_of(item)
        item.user_properties.append(("attack", name))


@pytest.fixture(autouse=True)
def expected_to_come_through(request: pytest.FixtureRequest) -> None:
    """Expects an attack to come through that is known to do so on the switches of this run."""
    line = known(name_of(request.node)) if request.node.get_closest_marker("attack") is not None else None
    if line is not None and line.where(request.getfixturevalue("scene").cluster.emulation.state):
        request.applymarker(pytest.mark.xfail(strict=True, raises=NotHeldError, reason=line.sentence))


def name_of(item: pytest.Function) -> str:
    """An attack's name: `link: plain: UDP (other tenant, same node)`."""
    marker = item.get_closest_marker("attack")
    values: dict[str, Any] = item.callspec.params
    words = [marker.args[0]] if marker is not None and marker.args else []
    words[:1] = [f"{word} of {values[AFTER]}" for word in words[:1]] if AFTER in values else words[:1]
    words += [getattr(one, "name", str(one)) for name, one in values.items() if name not in ("fabric", "duel", AFTER)]
    where = f" ({values['duel'].name})" if "duel" in values else ""
    return f"{values['fabric'].value}: {': '.join(words)}{where}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Notes that it was an attack which came through, not a test which went wrong."""
    report = yield
    if call.excinfo is not None and call.excinfo.errisinstance(NotHeldError):
        report.user_properties.append(("came through", "yes"))
    return report


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In a session of all attacks, one that is known to come through is no success either."""
    outcomes = session.config.stash[REPORT].outcomes.values()
    if everything(session.config) and session.exitstatus == 0 and any(one is not Outcome.HELD for one in outcomes):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def scene(fabric: Fabric, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The ground with a raw socket in every pod, for attacks that restart nothing."""
    with cluster_of(tmp_path_factory.mktemp("ground"), fabric) as running, scene_of(running, fabric) as made:
        yield made
