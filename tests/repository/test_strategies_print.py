"""Strategies print in little room: hypothesis prints them in errors and warnings, and one took 22 GB once."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.errors import HypothesisWarning
from hypothesis.strategies import SearchStrategy

ROOT = Path(__file__).parents[2]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "tests").rglob("*.py"))
    if "from hypothesis import" in path.read_text() and path.name != "conftest.py"
]
MOST = 16_000
"""Characters."""


def too_long(names: Mapping[str, object]) -> Iterator[str]:
    """Of a module's names, the strategies and the arguments of its tests that print in more than MOST characters."""
    strategies = {name: value for name, value in names.items() if isinstance(value, SearchStrategy)}
    for name, value in names.items():
        given = getattr(getattr(value, "hypothesis", None), "_given_kwargs", {})
        strategies.update({f"{name}({key})": each for key, each in given.items()})
    for name, strategy in strategies.items():
        try:
            if len(repr(strategy)) > MOST:
                yield name
        except HypothesisWarning:  # Said of the innermost that is large, before those around it are printed.
            yield name


@pytest.mark.parametrize("name", MODULES)
def test_strategies_print_in_little_room(name: str) -> None:
    assert list(too_long(vars(importlib.import_module(name)))) == []


def test_a_strategy_that_would_fill_memory_is_detected() -> None:
    deep: SearchStrategy[object] = st.integers()
    for _ in range(12):
        deep = st.lists(st.sampled_from([deep] * 40).flatmap(lambda chosen: chosen))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=HypothesisWarning)
        assert list(too_long({"deep": deep})) == ["deep"]
