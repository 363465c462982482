"""What an installation contains, and that plain ryu-manager starts in it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DECLARED = ("setup.cfg", "setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE", "romana-ovs-ryu.pth")
SOURCES = (*DECLARED, "romana_ovs", "etc")
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
    """An environment with the package installed in one of the ways, and its dependencies lent by ours.

    Lent as a mere folder on the path: `.pth` files in it are not read, so the one that works is the installed one.
    """
    folder = tmp_path_factory.mktemp(request.param)
    for name in SOURCES:
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy2
        copy(source, folder / name)
    home = folder / "env"
    _run(sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", str(home))
    lent = [sysconfig.get_path("purelib"), str(Path(pytest.__file__).parents[1])]
    (_site_packages(home) / "lent.pth").write_text("\n".join(lent) + "\n")
    _run(
        *(sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "install", "--quiet", "--no-deps"),
        *("--no-build-isolation", *MODES[request.param], str(folder)),
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


def test_other_projects_see_the_types(environment: Path) -> None:
    """PEP 561."""
    found = _run(str(environment / "bin" / "python"), "-c", "import romana_ovs; print(romana_ovs.__path__[0])")
    assert Path(found.strip(), "py.typed").is_file()


def test_nothing_is_declared_that_is_not_imported() -> None:
    """Neither what the lock would bring for nobody."""
    declared = ConfigParser()
    declared.read(ROOT / "setup.cfg")
    modules = {"pyyaml": "yaml", "oslo-config": "oslo_config"}
    # The commission names it; addressing is to use it.
    known = {"netaddr"}
    sources = "\n".join(path.read_text() for path in (ROOT / "romana_ovs").rglob("*.py"))
    for name in _names(declared["options"]["install_requires"]) - known:
        assert re.search(rf"^\s*(import|from) {modules.get(name, name)}\b", sources, re.MULTILINE), name


def test_a_wheel_brings_everything_of_etc(environment: Path) -> None:
    share = environment / "share" / "romana-ovs"
    if (_site_packages(environment) / "romana_ovs").is_dir():
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
