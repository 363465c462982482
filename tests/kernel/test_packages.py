"""What is asked of apt, and what is made of its answers."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.kernel import packages
from tests.kernel.packages import (
    GUEST_PACKAGES,
    HOST_PROGRAMS,
    NoPackagesError,
    find_packages,
    missing_host_packages,
    parse_kernel,
    parse_sources,
    parse_versions,
)

TARGETS = """Debian|http://mirror/debian/|bookworm|main
Debian|http://mirror/debian/|bookworm-updates|main
Debian|http://mirror/debian-security/|bookworm-security|main
Debian|http://mirror/debian/|bookworm|main
elsewhere|http://other/|stable|main
"""


def test_debians_own_archives_become_sources() -> None:
    suite, sources = parse_sources(TARGETS)
    assert suite == "bookworm"
    assert sources == (
        "deb http://mirror/debian/ bookworm main",
        "deb http://mirror/debian/ bookworm-updates main",
        "deb http://mirror/debian-security/ bookworm-security main",
    )


@pytest.mark.parametrize("targets", ["", "elsewhere|http://other/|stable|main\n"])
def test_without_lists_the_command_is_named(targets: str) -> None:
    with pytest.raises(NoPackagesError, match="run apt-get update"):
        parse_sources(targets)


def test_the_newest_kernel_is_the_one_depended_on() -> None:
    depends = "linux-image-amd64\n  Depends: linux-image-6.1.0-57-amd64\n"
    assert parse_kernel(depends) == "linux-image-6.1.0-57-amd64"
    with pytest.raises(NoPackagesError, match="does not know linux-image-amd64"):
        parse_kernel("")


def test_versions_are_sorted_by_package() -> None:
    shown = (
        "Package: kmod\nVersion: 30+2\nDepends: libc6\n\nPackage: curl\nDescription: Version: none\nVersion: 7.88-1\n"
    )
    assert parse_versions(shown) == ("curl 7.88-1", "kmod 30+2")


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def which(program: str, path: str = "") -> str | None:
        return None if program in ("cpio", "qemu-system-x86_64") else f"/usr/bin/{program}"

    monkeypatch.setattr(shutil, "which", which)
    assert missing_host_packages() == ["cpio", "qemu-system-x86"]


def test_another_distribution_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(NoPackagesError, match="apt-get"):
        find_packages()


def test_a_failed_command_is_one_line() -> None:
    with pytest.raises(NoPackagesError) as caught:
        packages.apt("sh", "-c", "echo first >&2; echo last >&2; exit 3")
    assert str(caught.value) == "`sh -c` failed: last"


def test_what_the_makefile_installs_is_in_the_machine() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    match = re.search(r"^SYSTEM := (.*)$", makefile, re.MULTILINE)
    assert match is not None
    assert set(match[1].split()) <= set(GUEST_PACKAGES)
    match = re.search(r"^test-kernel.*: (SYSTEM \+= .*)$", makefile, re.MULTILINE)
    assert match is not None
    assert set(match[1].split()[2:]) == set(HOST_PROGRAMS.values())
