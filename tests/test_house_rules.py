"""The rules of the house that no linter knows, checked on the source of the package."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = (ROOT / "romana_ovs", ROOT / "romana_ovs_emulate")
PURE = ("model", "addressing", "policy", "pipeline", "registry_types", "simulator", "sync")
DECLARATIONS = {f"romana_ovs/pipeline/{name}.py" for name in ("tables", "registers", "priorities", "cookies", "fields")}
MODULE_LINES = 500
FUNCTION_LINES = 60
TEST_NAME = 60
"""Characters: what is read in one breath."""
MEMORIES = {"AppliedPolicy", "CachedPolicy", "CachedProfile"}
"""What a caller keeps between two computations so that the second is quicker; nothing that is handed on as a value."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """A module of the package: its path from the top, its text, its tree."""

    path: str
    text: str
    tree: ast.Module

    def at(self, node: ast.AST, what: str) -> str:
        """One offence, as editors understand it."""
        return f"{self.path}:{getattr(node, 'lineno', 1)}: {what}"

    def docstrings(self) -> set[ast.AST]:
        """The nodes of strings that stand alone as statements: they say things and do nothing."""
        return {node.value for node in ast.walk(self.tree) if isinstance(node, ast.Expr)}

    def strings(self) -> Iterator[ast.Constant]:
        """Every string that the program uses, pieces of f-strings too."""
        silent = self.docstrings()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in silent:
                yield node


def _module(path: Path, *, name: str | None = None) -> Module:
    text = path.read_text()
    return Module(name or str(path.relative_to(ROOT)), text, ast.parse(text))


MODULES = [_module(path) for package in PACKAGES for path in sorted(package.rglob("*.py"))]
TEST_MODULES = [_module(path) for folder in ("tests", "bench") for path in sorted((ROOT / folder).rglob("*.py"))]
PURE_MODULES = [module for module in MODULES if module.path.split("/")[1] in PURE]


def _sizes(module: Module) -> Iterator[str]:
    lines = module.text.count("\n")
    if lines > MODULE_LINES:
        yield f"{module.path}: {lines} lines, {MODULE_LINES} at most"
    for node in ast.walk(module.tree):
        if isinstance(node, Function):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES:
                yield module.at(node, f"{node.name} has {length} lines, {FUNCTION_LINES} at most")


def _test_names(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, Function) and node.name.startswith("test_") and len(node.name) > TEST_NAME:
            yield module.at(node, f"{node.name} has {len(node.name)} characters, {TEST_NAME} at most")


def _imported_tests(module: Module) -> Iterator[str]:
    """What tests share stands in a module that is no test."""
    for node in ast.walk(module.tree):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [each.name for each in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            if name.startswith("tests.") and name.rpartition(".")[2].startswith("test_"):
                yield module.at(node, f"{name} is a test")


def _public(parent: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """Public classes, functions and methods with their names; what a function defines inside is its own business."""
    for node in parent.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from _public(node, f"{prefix}{node.name}.")


def _undocumented(module: Module) -> Iterator[str]:
    if not ast.get_docstring(module.tree) and module.text.strip():
        yield f"{module.path}: no docstring"
    for name, node in _public(module.tree):
        decorators = {ast.unparse(each).split(".")[-1] for each in node.decorator_list}
        if not decorators & {"overload", "override", "setter"} and not ast.get_docstring(node):
            yield module.at(node, f"{name} has no docstring")


_NUMBERED = re.compile(r"\breg\d+\b|\b(table|priority)=\d|\bresubmit\(\s*\d*\s*,\s*\d|\bgoto_table:\d")


def _literal_numbers(module: Module) -> Iterator[str]:
    if module.path in DECLARATIONS:
        return
    for string in module.strings():
        if found := _NUMBERED.search(str(string.value)):
            yield module.at(string, f"{found.group()!r} belongs to the declarations")
    for node in ast.walk(module.tree):
        if isinstance(node, ast.keyword) and node.arg in ("priority", "table_id", "table"):
            value = node.value
            if isinstance(value, ast.Constant) and isinstance(value.value, int) and value.value:
                yield module.at(value, f"{node.arg}={value.value} belongs to the declarations")


_NORMAL = re.compile(r"(^|actions=|output:|,)\s*NORMAL\s*($|,)", re.MULTILINE)


def _normal_actions(module: Module) -> Iterator[str]:
    for string in module.strings():
        if _NORMAL.search(str(string.value)):
            yield module.at(string, "the NORMAL action")
    for node in ast.walk(module.tree):
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        if name == "OFPP_NORMAL":
            yield module.at(node, "the NORMAL action")


def _broad_handlers(module: Module) -> Iterator[str]:
    """Handlers of everything, unless they raise again or log with the traceback."""
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        broad = [each for each in caught if each is None or ast.unparse(each) in ("Exception", "BaseException")]
        passed_on = any(
            isinstance(each, ast.Raise)
            or (isinstance(each, ast.Attribute) and each.attr == "exception")
            or (isinstance(each, ast.keyword) and each.arg == "exc_info")
            for each in ast.walk(node)
        )
        if node.type is None or (broad and not passed_on):
            yield module.at(node, "a handler of everything")


def _asserts_and_globals(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Assert):
            yield module.at(node, "assert is gone under -O: raise an error of model/errors.py")
        if isinstance(node, ast.Global):
            yield module.at(node, f"global {', '.join(node.names)}")


def _thawed(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.ClassDef):
            continue
        for decorator in node.decorator_list:
            call = decorator if isinstance(decorator, ast.Call) else None
            if ast.unparse(call.func if call else decorator).split(".")[-1] != "dataclass":
                continue
            keywords = call.keywords if call else []
            given = {keyword.arg for keyword in keywords if ast.unparse(keyword.value) == "True"}
            wanted = {"slots"} if node.name in MEMORIES or node.name.startswith("_") else {"frozen", "slots"}
            if lacking := wanted - given:
                yield module.at(node, f"{node.name} is a dataclass without {' and '.join(sorted(lacking))}")


RULES = {
    "sizes": (_sizes, MODULES + TEST_MODULES),
    "names of tests": (_test_names, TEST_MODULES),
    "tests that import tests": (_imported_tests, TEST_MODULES),
    "docstrings": (_undocumented, MODULES),
    "no literal table, register or priority": (_literal_numbers, MODULES),
    "no NORMAL action": (_normal_actions, MODULES),
    "no handler of everything": (_broad_handlers, MODULES),
    "no assert, no global": (_asserts_and_globals, MODULES),
    "pure values are frozen and slotted": (_thawed, PURE_MODULES),
}


@pytest.mark.parametrize("rule", RULES)
def test_the_package_keeps(rule: str) -> None:
    check, modules = RULES[rule]
    assert modules
    offences = [offence for module in modules for offence in check(module)]
    assert not offences, "\n" + "\n".join(offences)


BROKEN = {
    "sizes": "def long():\n" + "    pass\n" * FUNCTION_LINES,
    "names of tests": f"def test_{'x' * TEST_NAME}():\n    pass\n",
    "tests that import tests": "from tests.engine.test_engine import follow\n",
    "docstrings": '"""A module."""\nclass Bare:\n    pass\n',
    "no literal table, register or priority": 'match = "reg7=1"\n',
    "no NORMAL action": 'text = "priority,actions=NORMAL"\n',
    "no handler of everything": "try:\n    pass\nexcept Exception:\n    pass\n",
    "no assert, no global": "assert True\n",
    "pure values are frozen and slotted": "@dataclass(frozen=True)\nclass Soft:\n    pass\n",
}


@pytest.mark.parametrize("rule", RULES)
def test_the_rule_is_not_blind(rule: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text(BROKEN[rule])
    assert len(list(RULES[rule][0](_module(path, name="broken.py")))) == 1


def test_what_a_rule_allows(tmp_path: Path) -> None:
    path = tmp_path / "fine.py"
    path.write_text(
        '"""No NORMAL action here, nor reg7, nor priority=95."""\n'
        "def row(table):\n"
        '    """The text."""\n'
        '    return f"table={table}, priority={table}"\n'
        "def _run():\n"
        "    try:\n        row(0)\n    except Exception as error:\n        raise RuntimeError from error\n"
    )
    module = _module(path, name="fine.py")
    assert [offence for check, _ in RULES.values() for offence in check(module)] == []


TEXTS = (".py", ".md", ".cfg", ".toml", ".yaml", ".conf", ".nft", ".go", ".mod", ".txt", ".in", "Makefile", "run")
"""Ends of the names of files that may cite something."""
_PAGE = re.compile(r"(?<![\w:/.-])[\w./-]*\w\.md\b")
_TRACKER = re.compile(r"\bissues? \d|\bHAZARDS [A-E]\d|\bshared/[A-Z]")
BUILT = {".git", ".venv", ".hypothesis", ".pytest_cache", ".mypy_cache", ".ruff_cache", "build", "dist"}


def _outside(path: Path) -> Iterator[str]:
    """Places of a text that cite a page which is not in the repository, or a tracker."""
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        pages = [page for page in _PAGE.findall(line) if not _is_here(page, path)]
        for cited in (*pages, *_TRACKER.findall(line)):
            yield f"{path}:{number}: {cited}"


def _is_here(page: str, path: Path) -> bool:
    return any((folder / page).is_file() for folder in (ROOT, ROOT / "docs", path.parent))


def _texts(folder: Path = ROOT) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name not in BUILT and not path.is_symlink():
            yield from _texts(path)
        elif path.is_file() and path.name.endswith(TEXTS):
            yield path


def test_nothing_cites_what_is_not_in_the_repository() -> None:
    texts = list(_texts())
    assert len(texts) > 500
    assert [cited for path in texts for cited in _outside(path)] == []


def test_a_citation_of_something_outside_is_found(tmp_path: Path) -> None:
    path = tmp_path / "some.py"
    page = "." + "md"
    path.write_text(f"# docs/cli.md and README.md\n# as NOTES{page} says\n# {'issue'} 8\n# see docs/none{page}\n")
    assert [line.split(":")[1] for line in _outside(path)] == ["2", "3", "4"]
