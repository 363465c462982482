"""YAML and JSON as Kubernetes understands them, within bounds."""

from __future__ import annotations

import json
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from romana_ovs.kube.manifests.parse import MAX_ALIASED, MAX_DEPTH, ParseError, parse_json, parse_yaml

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", True),
        ("'on'", "on"),
        ("No", False),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-0x1F", -31),
        ("0777", 511),
        ("0o17", 15),
        ("089", "089"),
        ("1_000", 1000),
        ("1.5", 1.5),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("10.0.0.0", "10.0.0.0"),
        ("!!str 12", "12"),
        ("!!int 12", 12),
        ("0b", "0b"),
        ("1" * 5000, "1" * 5000),
    ],
)
def test_scalars(text: str, value: object) -> None:
    (document,) = parse_yaml(f"a: {text}")
    assert document.value == {"a": value}
    assert type(document.value["a"]) is type(value)  # 1 and True are equal.


def test_keys_are_words() -> None:
    assert parse_yaml("1: a\ntrue: b")[0].value == {"1": "a", "true": "b"}


def test_anchors_and_merges() -> None:
    (document,) = parse_yaml("base: &b {x: 1, y: 2}\none: {<<: *b, x: 3}\ntwo: {<<: [*b, {z: 4}]}")
    assert document.value == {"base": {"x": 1, "y": 2}, "one": {"x": 3, "y": 2}, "two": {"x": 1, "y": 2, "z": 4}}


def test_documents_count_from_one_and_empty_ones_count() -> None:
    assert [(one.number, one.value) for one in parse_yaml("# nothing\n---\na: 1\n---\n---\nb: 2\n")] == [
        (1, {"a": 1}),
        (2, None),
        (3, {"b": 2}),
    ]


def test_keys_given_twice_are_told_with_their_path() -> None:
    (document,) = parse_yaml("a:\n- b: {c: 1, c: 2}\n- d: 1\na: 3")
    assert [(one.path, one.line) for one in document.duplicates] == [("a[0].b.c", 2), ("a", 4)]
    assert document.value == {"a": [{"b": {"c": 1}}, {"d": 1}]}
    (document,) = parse_json('{"a": [{"b": 1, "b": 2}]}')
    assert [one.path for one in document.duplicates] == ["a[0].b"]


@pytest.mark.alone
def test_aliases_cannot_fill_the_memory() -> None:
    levels = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 40))
    started = time.perf_counter()
    with pytest.raises(ParseError, match=str(MAX_ALIASED)):
        parse_yaml(f"l0: &l0 [x, x, x, x, x, x, x, x, x]\n{levels}")
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 5000, 200_000])
def test_depth_is_bounded(depth: int) -> None:
    with pytest.raises(ParseError):
        parse_yaml("[" * depth + "]" * depth)
    with pytest.raises(ParseError, match="deep"):
        parse_yaml("".join(" " * level + "a:\n" for level in range(min(depth, 800))))


def test_deep_json_is_refused() -> None:
    with pytest.raises(ParseError, match="deep"):
        parse_json("[" * 100_000 + "]" * 100_000)


@given(JSON_VALUES)
def test_json_is_read_as_it_was_written(value: object) -> None:
    assert parse_json(json.dumps(value))[0].value == value


@given(JSON_VALUES)
def test_yaml_is_read_as_it_was_written(value: object) -> None:
    # Without aliases, in the style that PyYAML thinks best.
    text = yaml.safe_dump(json.loads(json.dumps(value)), allow_unicode=False)
    if isinstance(value, dict) and "<<" in value:
        return
    (document,) = parse_yaml(text)
    assert document.value == value or "<<" in text


@given(st.text())
def test_no_text_does_worse_than_a_parse_error(text: str) -> None:
    for parse in (parse_yaml, parse_json):
        try:
            assert all(document.number for document in parse(text))
        except ParseError as error:
            assert str(error)
            assert "\n" not in str(error)
