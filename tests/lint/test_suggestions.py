"""Why a selector matches nothing, and the nearest label that there is."""

from __future__ import annotations

import pytest

from romana_ovs.lint.suggestions import contradiction, explain
from romana_ovs.model.labels import Operator, Requirement, Selector
from romana_ovs.model.spelling import edit_distance, is_misspelt, nearest


@pytest.mark.parametrize(
    ("left", "right", "distance"),
    [("", "", 0), ("a", "", 1), ("cart", "carts", 1), ("htpp", "http", 1), ("web", "db", 2), ("shpo", "shop", 1)],
)
def test_edit_distance(left: str, right: str, distance: int) -> None:
    assert edit_distance(left, right) == edit_distance(right, left) == distance


@pytest.mark.parametrize(
    ("text", "names", "near"),
    [
        ("cart", ["carts", "front"], "carts"),
        ("front-end", ["carts", "front"], "front"),
        ("App", ["app", "tier"], "app"),
        ("web", ["web", "web-server"], "web-server"),
        ("api", ["db", "web"], ""),
        ("prometheus", ["front"], ""),
        ("a", [], ""),
        ("v1", ["v2"], ""),
        ("web-1", ["web-2"], ""),
        ("api", ["app"], ""),
        ("wbe", ["web"], "web"),
        ("a", ["b"], ""),
    ],
)
def test_nearest(text: str, names: list[str], near: str) -> None:
    assert nearest(text, names) == near


def test_a_longer_name_may_be_of_something_else() -> None:
    assert is_misspelt("front-end", "front")
    assert is_misspelt("cart", "carts")
    assert not is_misspelt("prometheus", "prometheus-adapter")


def selector(*requirements: tuple[str, str, tuple[str, ...]]) -> Selector:
    """A selector of (key, operator, values)."""
    return Selector(tuple(Requirement(key, Operator(name), frozenset(values)) for key, name, values in requirements))


@pytest.mark.parametrize(
    ("requirements", "contradicts"),
    [
        ([("a", "In", ("x",)), ("a", "In", ("y",))], True),
        ([("a", "In", ("x", "y")), ("a", "In", ("y", "z"))], False),
        ([("a", "In", ("x",)), ("a", "NotIn", ("x", "y"))], True),
        ([("a", "Exists", ()), ("a", "DoesNotExist", ())], True),
        ([("a", "In", ("x",)), ("a", "DoesNotExist", ())], True),
        ([("a", "NotIn", ("x",)), ("a", "DoesNotExist", ())], False),
        ([("a", "In", ("x",)), ("b", "In", ("y",))], False),
        ([], False),
    ],
)
def test_contradiction(requirements: list[tuple[str, str, tuple[str, ...]]], contradicts: bool) -> None:
    assert bool(contradiction(selector(*requirements))) is contradicts


@pytest.mark.parametrize(
    ("requirements", "text"),
    [
        ([("app", "In", ("wbe",))], "none of the pods has app=wbe (there are app=db and app=web); write app: web?"),
        ([("App", "In", ("web",))], "none of the pods has a label App (there are app and tier); write app: web?"),
        ([("role", "In", ("back",))], "none of the pods has a label role (there are app and tier); write tier: back?"),
        ([("example.org/by", "In", ("web",))], "none of the pods has a label example.org/by (there are app and tier)"),
        ([("app", "Exists", ()), ("team", "Exists", ())], "none of the pods has a label team (there are app and tier)"),
        ([("app", "DoesNotExist", ())], "all of the pods have what !app excludes"),
        ([("app", "In", ("web",)), ("tier", "In", ("back",))], "none of the pods has all of app=web,tier=back"),
    ],
)
def test_explanation(requirements: list[tuple[str, str, tuple[str, ...]]], text: str) -> None:
    pods = [{"app": "web"}, {"app": "db", "tier": "back"}]
    assert str(explain(selector(*requirements), pods, "pods")) == text


def test_among_very_many_names_only_alike_ones_are_compared() -> None:
    names = [f"service-{number}" for number in range(3000)]
    assert nearest("front-ned", [*names, "front-end"]) == "front-end"
    assert nearest("other", names) == ""
