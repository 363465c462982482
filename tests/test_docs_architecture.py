"""The documents of docs/ and those at the top: the code that they name exists, and their links lead somewhere."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from romana_ovs import __version__

ROOT = Path(__file__).parents[1]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
TOP = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
PAGES = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/*.md")) + [*TOP]
ROW = re.compile(r"^\| (?:\d+ \| )?`((?:\w+/)*\w+\.py)` \| ((?:`[\w.]+`(?:, )?)+) \|", re.MULTILINE)
PATH = re.compile(r"`((?:romana_ovs|romana_ovs_emulate|distributions|tests|docs|etc|bench|mininet)/[\w/.-]*\w)`")
_PACKAGES = "cli|controller|engine|kube|switch|sync|simulator|pipeline|registry_types|policy|addressing|model"
MODULE = re.compile(rf"`((?:{_PACKAGES})/[\w/]+\.py)`")


@cache
def defined(path: str) -> frozenset[str]:
    """Classes, functions, and methods as `Class.method`, of a module of the package."""
    names = set()
    for node in ast.parse((ROOT / "romana_ovs" / path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
            inner = [each.name for each in ast.walk(node) if isinstance(each, ast.FunctionDef)]
            names.update(f"{node.name}.{name}" for name in inner if isinstance(node, ast.ClassDef))
    return frozenset(names)


def test_the_functions_on_the_way_of_an_event_exist() -> None:
    rows = ROW.findall(ARCHITECTURE)
    assert len(rows) > 30
    missing = [
        (path, name) for path, names in rows for name in re.findall(r"`([\w.]+)`", names) if name not in defined(path)
    ]
    assert missing == []


def test_a_pod_event_passes_at_most_14_stages() -> None:
    way = ARCHITECTURE.partition("## The way of one pod event")[2].partition("\n## ")[0]
    stages = [int(number) for number in re.findall(r"^\| (\d+) \| `", way, re.MULTILINE)]
    assert stages == list(range(1, len(stages) + 1)) and 10 < len(stages) <= 14


def test_every_cache_has_its_row() -> None:
    chapter = ARCHITECTURE.partition("## What is kept so that")[2].partition("\n## ")[0]
    keeping = {
        str(path.relative_to(ROOT / "romana_ovs"))
        for path in (ROOT / "romana_ovs").rglob("*.py")
        if re.search(r"\b(?:Derived|DerivedMap|SharedDerived|LastInputs)\b[\[(]", path.read_text(encoding="utf-8"))
    }
    assert keeping - {"model/derived.py"} <= set(re.findall(r"`([\w/]+\.py)` \|$", chapter, re.MULTILINE))


def test_the_threads_exist() -> None:
    chapter = ARCHITECTURE.partition("**Green threads of the controller**")[2].partition("**Native threads")[0]
    rows = re.findall(r"^\| (.*?) \| `([\w/]+\.py)`", chapter, re.MULTILINE)
    assert len(rows) > 4
    assert [
        (name, path) for names, path in rows for name in re.findall(r"`([\w.]+)`", names) if name not in defined(path)
    ] == []


def test_every_package_has_its_row() -> None:
    packages = {f"romana_ovs/{path.parent.name}" for path in (ROOT / "romana_ovs").glob("*/__init__.py")}
    packages.add("romana_ovs_emulate")
    assert [name for name in sorted(packages) if f"| `{name}` |" not in ARCHITECTURE] == []


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = [*PATH.findall(text), *(f"romana_ovs/{path}" for path in MODULE.findall(text))]
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_changelog_has_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$", text, re.MULTILINE)
    assert versions[0] == __version__
