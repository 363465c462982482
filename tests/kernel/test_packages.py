"""What is asked of apt, and what is made of its answers."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from romana_ovs.model.errors import SetupError
from romana_ovs_emulate import debian_packages
from romana_ovs_emulate.debian_packages import NoPackagesError, parse_sources, parse_versions
from tests.kernel import packages
from tests.kernel.packages import (
    GUEST_PACKAGES,
    missing_host_packages,
    parse_kernel,
    prepare_host,
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
    with pytest.raises(NoPackagesError, match="there is no apt-get"):
        prepare_host(print)


def test_a_failed_command_is_one_line() -> None:
    with pytest.raises(NoPackagesError) as caught:
        debian_packages.apt("sh", "-c", "echo first >&2; echo last >&2; exit 3")
    assert str(caught.value) == "`sh -c` failed: last"


def test_what_the_makefile_installs_is_in_the_machine() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    match = re.search(r"^SYSTEM := (.*)$", makefile, re.MULTILINE)
    assert match is not None
    assert set(match[1].split()) <= set(GUEST_PACKAGES)


APT = """#!/bin/bash
echo "${0##*/} $*" >> "$APT_CALLS"
case "$*" in
    pkgnames*) echo "$APT_KNOWS";;
    update*) [ -z "$APT_OFFLINE" ] || { echo "E: Could not resolve 'mirror'" >&2; exit 100; };;
    *) [ -z "$APT_BROKEN" ] || { echo "E: Unable to locate package cpio" >&2; exit 100; };;
esac
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with what was asked of an apt that does as the environment says, on a machine without the programs."""
    for name in ("apt-get", "apt-cache"):
        (tmp_path / name).write_text(APT)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name in ("APT_KNOWS", "APT_OFFLINE", "APT_BROKEN"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("APT_CALLS", str(tmp_path / "calls"))
    monkeypatch.setattr(packages, "HOST_PROGRAMS", {"no-such-program": "cpio"})
    return tmp_path / "calls"


def test_what_is_missing_is_installed(calls: Path) -> None:
    said: list[str] = []
    prepare_host(said.append)
    assert said == ["Fetching the lists of Debian's packages", "Installing system packages: cpio"]
    update, install = calls.read_text().splitlines()
    assert update.startswith("apt-get update ")
    assert re.fullmatch(r"apt-get install .* cpio", install)


def test_with_all_there_apt_is_asked_for_lists_only(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "HOST_PROGRAMS", {"sh": "dash"})
    monkeypatch.setenv("APT_KNOWS", packages.KERNEL)
    prepare_host(lambda text: None)
    assert calls.read_text().splitlines() == [f"apt-cache pkgnames {packages.KERNEL}"]


def test_without_lists_they_are_fetched(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "HOST_PROGRAMS", {"sh": "dash"})
    prepare_host(lambda text: None)
    assert calls.read_text().splitlines()[1].startswith("apt-get update ")


def test_an_unreachable_mirror_is_one_line(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APT_OFFLINE", "yes")
    with pytest.raises(NoPackagesError, match=r"^`apt-get update` failed: E: Could not resolve 'mirror'$"):
        prepare_host(lambda text: None)


def test_a_failed_installation_says_the_command(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APT_BROKEN", "yes")
    with pytest.raises(NoPackagesError, match="missing are cpio .*: apt-get install --no-install-recommends cpio$"):
        prepare_host(lambda text: None)


def test_a_long_command_reports_that_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian_packages, "PROGRESS_SECONDS", 0.2)
    said: list[str] = []
    assert debian_packages.run_command(["sh", "-c", "echo out; sleep 0.7"], seconds=10, progress=said.append) == "out\n"
    assert len(said) >= 2


def test_a_command_that_hangs_is_ended() -> None:
    with pytest.raises(SetupError, match=r"^`sleep 60` did not end within 0 s$"):
        debian_packages.run_command(["sleep", "60"], seconds=0.2)


def test_a_command_that_is_not_there_is_named() -> None:
    with pytest.raises(SetupError, match=r"^no-such-program is not installed$"):
        debian_packages.run_command(["no-such-program"], seconds=1)
