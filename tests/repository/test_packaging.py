"""What an installation of each distribution contains, and that plain ryu-manager starts in it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from configparser import ConfigParser
from pathlib import Path

import pytest

from romana_ovs import __version__

ROOT = Path(__file__).parents[2]
DECLARED = ("setup.cfg", "setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE", "README.md", "romana-ovs-ryu.pth")
SOURCES = (*DECLARED, "distributions", "romana_ovs", "romana_ovs_emulate", "etc")
EMULATE = Path("distributions", "emulate")
MODES = {"wheel": (), "editable": ("--editable",)}
STARTUP_MICROSECONDS = 1000

pytestmark = [
    pytest.mark.sessions,
    pytest.mark.skipif(
        not importlib.util.find_spec("wheel"), reason="needs the wheel package (`make test` installs it)"
    ),
]


@pytest.fixture(scope="module", params=MODES)
def environment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with `romana-ovs` installed in one of the ways, and its dependencies lent by ours."""
    return _environment(tmp_path_factory.mktemp(request.param), MODES[request.param])


@pytest.fixture(scope="module", params=MODES)
def emulating(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Likewise with both distributions."""
    return _environment(tmp_path_factory.mktemp(request.param), MODES[request.param], emulate=True)


def _environment(folder: Path, mode: Sequence[str], *, emulate: bool = False) -> Path:
    """An environment in `folder`, with a copy of the sources beside it.

    Dependencies are lent as a mere folder on the path: `.pth` files in it are not read, so the one that works is the
    installed one.
    """
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("build", "__pycache__"))
        else:
            shutil.copy2(source, folder / name)
    home = folder / "env"
    _run(sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", str(home))
    lent = [sysconfig.get_path("purelib"), str(Path(pytest.__file__).parents[1])]
    (_site_packages(home) / "lent.pth").write_text("\n".join(lent) + "\n")
    _run(
        *(sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "install", "--quiet", "--no-deps"),
        *("--no-build-isolation", *mode, str(folder)),
        *((*mode, str(folder / EMULATE)) if emulate else ()),
    )
    return home


def _run(*command: str, cwd: Path = Path("/")) -> str:
    """What the command prints on stdout and stderr; away from the checkout, so that nothing is imported from there."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE", "PIP_CONSTRAINT")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def _site_packages(home: Path) -> Path:
    return home / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def test_plain_ryu_manager_imports_what_it_needs(environment: Path) -> None:
    program = "import sys; sys.argv = ['ryu-manager', '--version']; from ryu.cmd.manager import main; main()"
    assert "4.34" in _run(str(environment / "bin" / "python"), "-c", program)


def test_without_the_file_it_does_not(environment: Path) -> None:
    """So that the test above cannot pass for another reason; should it fail some day, the file may go."""
    program = (
        "import sys; sys.meta_path[:] = [each for each in sys.meta_path if 'romana' not in type(each).__module__]\n"
        "import ryu.app.wsgi"
    )
    with pytest.raises(AssertionError, match="ALREADY_HANDLED"):
        _run(str(environment / "bin" / "python"), "-c", program)


def test_other_interpreters_hardly_notice(environment: Path) -> None:
    python = str(environment / "bin" / "python")
    loaded = _run(python, "-c", "import sys; print(*sys.modules)").split()
    assert "romana_ovs._ryu_shim" in loaded
    assert not {"eventlet", "ryu"} & set(loaded)
    own = re.compile(r"^import time:\s*(\d+) \|\s*\d+ \|\s*romana_ovs(?:\._ryu_shim)?$", re.MULTILINE)
    times = [sum(map(int, own.findall(_run(python, "-X", "importtime", "-c", "")))) for _ in range(10)]
    assert 0 < min(times) < STARTUP_MICROSECONDS, f"microseconds: {times}"


def test_the_command_is_there(environment: Path) -> None:
    assert re.search(r"\d+\.\d+\.\d+", _run(str(environment / "bin" / "romana-ovs"), "--version"))


def test_a_node_needs_no_emulator(environment: Path) -> None:
    command = str(environment / "bin" / "romana-ovs")
    example = str(ROOT / "docs" / "examples" / "shop")
    assert not list(_site_packages(environment).glob("*romana_ovs_emulate*"))
    for words in (["controller", "--help"], ["check", example], ["flows", example, "--node", "node1"]):
        assert _run(command, *words)
    with pytest.raises(AssertionError, match=re.escape("demo needs the package romana-ovs-emulate: pip install")):
        _run(command, "demo", "--help")


def test_both_distributions_together_emulate(emulating: Path) -> None:
    command = str(emulating / "bin" / "romana-ovs")
    for name in ("demo", "emulate", "clean"):
        assert f"usage: romana-ovs {name}" in _run(command, name, "--help")
    place = "import romana_ovs_emulate.cli.demo as demo; print(demo.demo_folder())"
    assert (Path(_run(str(emulating / "bin" / "python"), "-c", place).strip()) / "policy" / "policy1.yaml").is_file()
    beside = "import importlib.util; print(importlib.util.find_spec('distributions'))"
    assert _run(str(emulating / "bin" / "python"), "-c", beside).strip() == "None", "the whole checkout is on the path"


def test_the_two_distributions_have_one_version() -> None:
    declared = ConfigParser()
    declared.read(ROOT / EMULATE / "setup.cfg")
    assert declared["metadata"]["version"] == "attr: romana_ovs.__version__"
    assert f"romana-ovs=={__version__}" in declared["options"]["install_requires"].split()


def test_other_projects_see_the_types(environment: Path) -> None:
    """PEP 561."""
    found = _run(str(environment / "bin" / "python"), "-c", "import romana_ovs; print(romana_ovs.__path__[0])")
    assert Path(found.strip(), "py.typed").is_file()


def test_nothing_is_declared_that_is_not_imported() -> None:
    """Neither what the lock would bring for nobody."""
    declared = ConfigParser()
    declared.read(ROOT / "setup.cfg")
    modules = {"pyyaml": "yaml", "oslo-config": "oslo_config"}
    sources = "\n".join(path.read_text() for path in (ROOT / "romana_ovs").rglob("*.py"))
    for name in _names(declared["options"]["install_requires"]):
        assert re.search(rf"^\s*(import|from) {modules.get(name, name)}\b", sources, re.MULTILINE), name


def test_wheels_bring_everything_of_etc(emulating: Path) -> None:
    share = emulating / "share" / "romana-ovs"
    if (_site_packages(emulating) / "romana_ovs").is_dir():
        assert _files(share) == _files(ROOT / "etc")
    else:
        assert not share.exists(), "an editable install uses the files of the checkout"


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-test.lock"])
def test_the_lock_is_exact_and_names_no_host(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text
    assert not re.search(r"^\s*--(index|extra-index|find-links|trusted)", text, re.MULTILINE)
    pinned = set(re.findall(r"^([a-z0-9-]+)==\S+ \\\n    --hash=sha256:", text, re.MULTILINE))
    named = set(re.findall(r"^([A-Za-z0-9][\w.-]*)", text, re.MULTILINE))
    assert named == pinned


def test_the_locks_hold_what_setup_cfg_asks_for() -> None:
    declared = ConfigParser()
    declared.read(ROOT / "setup.cfg")
    runtime = _names(declared["options"]["install_requires"])
    test = _names(declared["options.extras_require"]["test"])
    locks = [_pins((ROOT / name).read_text()) for name in ("requirements.lock", "requirements-test.lock")]
    assert runtime - {"ovs"} <= set(locks[0])
    assert test <= set(locks[1])
    assert locks[0].items() <= locks[1].items()


def _names(requirements: str) -> set[str]:
    return {re.split(r"[<>=!~; ]", line)[0].lower().replace(".", "-") for line in requirements.split("\n") if line}


def _pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+) ", lock, re.MULTILINE))
