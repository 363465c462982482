"""The chosen tests exist, and are handed to pytest as they are."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import pytest

from tests.conformance.table import CASES
from tests.kernel.__main__ import Run, install, main, pack_checkout
from tests.kernel.machine import EMULATION
from tests.kernel.selection import CONFORMANCE, SELECTIONS, selected_tests

ROOT = Path(__file__).parents[2]
EVERY = [test for one in SELECTIONS for test in (*one.tests, *one.sample)]


@pytest.mark.parametrize("test", sorted(set(EVERY)))
def test_it_exists(test: str) -> None:
    path, _, name = test.partition("::")
    text = (ROOT / path).read_text() if (ROOT / path).is_file() else ""
    assert text or (not name and (ROOT / path).is_dir())
    function = name.partition("[")[0]
    assert not function or re.search(rf"^def {function}\b", text, re.MULTILINE)


def test_the_cases_are_of_the_table() -> None:
    assert set(CONFORMANCE) <= {case.name for case in CASES}


def test_the_sample_is_part_of_the_whole() -> None:
    whole = list(selected_tests(sample=False))
    for test in selected_tests(sample=True):
        assert any(test == one or test.startswith((f"{one}::", f"{one}/", f"{one}[")) for one in whole), test


def test_no_test_is_chosen_twice() -> None:
    for sample in (True, False):
        chosen = list(selected_tests(sample=sample))
        assert len(chosen) == len(set(chosen))


def test_the_list_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert capsys.readouterr().out.splitlines() == list(selected_tests(sample=False))


def test_names_reach_pytest_as_they_are() -> None:
    script = Run(["tests/a.py::test_b[two words; $HOME]", "-x"], 90.0).script(EMULATION)
    assert "export ROMANA_DATAPATH=system\n" in script
    assert "--time-limit=90 " in script
    assert script.endswith("'tests/a.py::test_b[two words; $HOME]' -x\n")


def test_another_open_vswitch_comes_with_the_checkout(tmp_path: Path) -> None:
    prefix = tmp_path / "the prefix"
    (prefix / "sbin").mkdir(parents=True)
    (prefix / "sbin/ovs-vswitchd").write_text("program")
    (prefix / "sbin/link").symlink_to("./ovs-vswitchd")
    pack_checkout(tmp_path / "archive.tar", prefix)
    with tarfile.open(tmp_path / "archive.tar") as archive:
        assert archive.getmember("README.md").isfile()
        assert archive.getmember(".open-vswitch/sbin/ovs-vswitchd").size == len("program")
        assert archive.getmember(".open-vswitch/sbin/link").linkname == "./ovs-vswitchd"
    assert install(prefix).endswith(f"\nexport ROMANA_OVS='{prefix}'\n")
    assert install(None) == ""
