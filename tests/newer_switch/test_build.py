"""Where the newer packages come from, and that a prefix is built once."""

from __future__ import annotations

from pathlib import Path

import pytest

from romana_ovs_emulate.debian_packages import NoPackagesError
from romana_ovs_emulate.system import SCHEMA
from tests.newer_switch import build

SOURCES = (
    "deb http://mirror/debian/ bookworm-updates main",
    "deb http://mirror/debian/ bookworm contrib",
    "deb http://mirror/debian/ bookworm main",
    "deb http://mirror/debian-security/ bookworm-security main",
)


def test_the_newer_suite_is_of_the_same_mirror() -> None:
    assert build.newer_source(SOURCES) == f"deb http://mirror/debian/ {build.SUITE} main"


@pytest.mark.parametrize("sources", [(), SOURCES[:2], SOURCES[3:]])
def test_without_the_main_archive_the_command_is_named(sources: tuple[str, ...]) -> None:
    with pytest.raises(NoPackagesError, match="run apt-get update"):
        build.newer_source(sources)


PATCHELF = """#!/bin/bash
echo "$*" >> "$CALLS"
[[ $1 != --print-needed ]] || case $2 in
    */lib/*) ;;
    *) echo libc.so.6; echo ld-linux-x86-64.so.2;;
esac
"""
MMDEBSTRAP = """#!/bin/bash
root=${@: -2:1}
for file in PATHS; do mkdir -p "$root/${file%/*}"; echo "$file" > "$root/$file"; done
echo "${@: -1}" > "$CALLS"
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with the mirror's line and each call of patchelf, on a machine with packages of empty programs."""
    programs = tmp_path / "programs"
    programs.mkdir()
    libraries = [f"{build.LIBRARIES}/{name}" for name in ("libc.so.6", build.LOADER)]
    paths = " ".join([*build.PROGRAMS.values(), *libraries, f"usr/{SCHEMA}"])
    for name, text in (("patchelf", PATCHELF), ("mmdebstrap", MMDEBSTRAP.replace("PATHS", paths))):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "calls"


def test_a_prefix_has_programs_libraries_and_schema(calls: Path) -> None:
    assert build.find() is None
    prefix = build.build(SOURCES, lambda text: None)
    assert build.find() == prefix
    files = {str(path.relative_to(prefix)) for path in prefix.rglob("*") if path.is_file()}
    assert files == {*build.PROGRAMS, "lib/libc.so.6", f"lib/{build.LOADER}", str(SCHEMA)}
    assert (prefix / "sbin/ovs-vswitchd").read_text() == "usr/lib/openvswitch-switch/ovs-vswitchd\n"
    patched = [line for line in calls.read_text().splitlines() if "--set-rpath" in line]
    assert len(patched) == len(build.PROGRAMS)
    assert all(f"--set-interpreter {prefix}/lib/{build.LOADER} " in line for line in patched)


def test_it_is_built_once(calls: Path) -> None:
    prefix = build.build(SOURCES, lambda text: None)
    calls.unlink()
    assert build.build(SOURCES, lambda text: None) == prefix
    assert not calls.exists()
