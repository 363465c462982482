"""Copies the locked Python packages of this environment, and romana-ovs itself, for the image.

The environment that runs this was made from the lock file, so nothing is fetched; versions are compared with the file.
"""

from __future__ import annotations

import configparser
import fnmatch
import re
import shutil
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from romana_ovs.model.errors import SetupError

LOCK = "requirements.lock"
PACKAGE, PTH, SETUP = "romana_ovs", "romana-ovs-ryu.pth", "setup.cfg"
UNUSED_PACKAGES = frozenset(
    {
        # Only the asynchronous half of `kubernetes` needs them, which is left out.
        "aiohappyeyeballs", "aiohttp", "aiohttp-retry", "aiosignal", "frozenlist", "multidict", "propcache", "yarl",
        "attrs",
        # For Markdown and source code, which no command prints by `rich`.
        "markdown-it-py", "mdurl", "pygments",
        # They install packages.
        "pbr", "setuptools",
    }
)  # fmt: skip
"""Locked packages that nothing of romana-ovs imports. `tests/emulate/test_image.py` imports everything without them."""
UNUSED_FILES = (
    # Credentials are read by kubernetes.config. The clients of all API groups and their objects are loaded when asked
    # for, and the controller has its own.
    "kubernetes/aio/*",
    "kubernetes/client/api/*_api.py",
    "kubernetes/client/models/[!_]*",
    "netaddr/eui/*.txt",
    "netaddr/eui/*.idx",
    "ryu/tests/*",
    "ryu/contrib/*",
    "*/tests/*",
)
"""Files of the other packages, as patterns of paths below site-packages."""
_COMPILED = ("*.pyc", "*/__pycache__/*")
_RECORDS = ("*.dist-info/RECORD", "*.dist-info/INSTALLER", "*.dist-info/REQUESTED", "*.dist-info/direct_url.json")


def locked_versions(lock: str) -> Mapping[str, str]:
    """The version of each package in the text of a lock file."""
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock, re.MULTILINE))


def copy_locked(checkout: Path, site_packages: Path) -> None:
    """Copy the packages of the lock file but the unused ones. Raises SetupError for one that is not as locked."""
    for name, version in sorted(locked_versions((checkout / LOCK).read_text()).items()):
        if name not in UNUSED_PACKAGES:
            _copy(_installed(name, version), site_packages)


def _installed(name: str, version: str) -> Distribution:
    try:
        installed = distribution(name)
    except PackageNotFoundError as error:
        raise SetupError(f"{name} {version} of {LOCK} is not installed here: make clean, then again") from error
    if installed.version != version:
        raise SetupError(f"{name} is {installed.version} here, and {version} in {LOCK}: make clean, then again")
    return installed


def _copy(package: Distribution, site_packages: Path) -> None:
    for file in package.files or ():
        # Programs stand outside of site-packages.
        if file.parts[0] == ".." or _is_unused(str(file)):
            continue
        target = site_packages / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(file.locate()), target)
        if file.suffix == ".so":
            target.chmod(0o755)


def _is_unused(path: str) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in (*_COMPILED, *_RECORDS, *UNUSED_FILES))


def copy_product(checkout: Path, site_packages: Path, prefix: Path) -> None:
    """Copy the package romana_ovs, its `.pth` file, and the data files of setup.cfg, which go below `prefix`."""
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(checkout / PACKAGE, site_packages / PACKAGE, ignore=ignore)
    shutil.copy(checkout / PTH, site_packages / PTH)
    for folder, path in data_files(checkout):
        target = prefix / folder / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def data_files(checkout: Path) -> Iterator[tuple[str, Path]]:
    """Each data file of the distribution: the folder that it is installed in, below the prefix, and the file."""
    declared = configparser.ConfigParser()
    declared.read_string((checkout / SETUP).read_text())
    for folder, patterns in declared["options.data_files"].items():
        for pattern in patterns.split():
            yield from ((folder, path) for path in sorted(checkout.glob(pattern)) if path.is_file())


def product_files(checkout: Path) -> list[Path]:
    """All files that `copy_product` copies, sorted: what the image's last layer depends on."""
    modules = (path for path in (checkout / PACKAGE).rglob("*") if path.is_file() and path.suffix != ".pyc")
    return sorted({*modules, checkout / PTH, checkout / SETUP, *(path for _, path in data_files(checkout))})
