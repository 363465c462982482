"""What is run by hand, before a commit and in CI is the same, and documents say so."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import yaml

from romana_ovs import __version__

ROOT = Path(__file__).parents[1]


def targets() -> dict[str, set[str]]:
    """What each target of the Makefile needs first."""
    rules = re.findall(r"^([a-z-]+):([^=\n#]*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return {name: set(needs.split()) for name, needs in rules}


def test_a_commit_checks_what_ci_checks_before_its_tests() -> None:
    assert "exec make test" in (ROOT / ".ci" / "run").read_text()
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook for repository in config["repos"] for hook in repository["hooks"]]
    assert {repository["repo"] for repository in config["repos"]} == {"local"}, "the same versions as in the lock"
    commands = {hook["entry"]: hook.get("stages", config["default_stages"]) for hook in hooks}
    prepared = {"root", "kube-binaries"}
    assert {f"make {name}" for name in targets()["test"] - prepared} == {
        command for command, stages in commands.items() if stages == ["pre-commit"]
    }
    assert commands["make unit"] == ["pre-push"]


def test_make_unit_needs_no_root_and_is_documented() -> None:
    assert "root" not in targets()["unit"] and "kube-binaries" not in targets()["unit"]
    for page in ("README.md", "CONTRIBUTING.md"):
        assert "make unit" in (ROOT / page).read_text()
    assert "_ryu_shim.py" in (ROOT / "README.md").read_text(), "what the .pth does to an environment"


def test_mypy_leaves_no_file_out() -> None:
    left_out = re.compile("^# mypy: ignore-errors$", re.MULTILINE)
    files = [
        path
        for folder in ("romana_ovs", "romana_ovs_emulate", "tests", "bench")
        for path in ROOT.glob(f"{folder}/**/*.py")
    ]
    assert len(files) > 600
    assert [path for path in files if left_out.search(path.read_text())] == []


def test_both_distributions_have_one_version() -> None:
    declared = configparser.ConfigParser(interpolation=None)
    declared.read(ROOT / "distributions" / "emulate" / "setup.cfg")
    assert f"romana-ovs=={__version__}" in declared["options"]["install_requires"].split()
