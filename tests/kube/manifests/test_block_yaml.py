"""The plain block style is read as parser events say, or not at all."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from romana_ovs.kube.manifests.block_yaml import build_block
from romana_ovs.kube.manifests.text import ParseError
from romana_ovs.kube.manifests.yaml_documents import BuiltDocument, build
from tests.support.hypothesis_profiles import examples

LIST = """\
apiVersion: v1
items:
- apiVersion: v1
  kind: Pod
  metadata:
    annotations:
      last: |
        {"kind": "Pod"}

      message: |-
        two
          lines
    labels:
      app: "1"
    name: a
  spec:
    containers:
    - args:
      - --port
      - "80"
      name: c
      ports:
      - containerPort: 8080
        name: http
    nodeName: node1
    securityContext: {}
    volumes: []
  status: null

- {kind: Pod, metadata: &m {name: b}, other: *m}
- kind: Pod
  metadata:
    name: this name
      goes on
    labels:
    - x
# a comment
- kind: Pod
  more: 'single'
  1: 080
kind: List
metadata:
  resourceVersion: ""
"""
NESTED = "a:\n  b:\n    c: d\n  e:\n  - f: g\n    h: i\n  -  j: k\nl: m\n- n\n"
SEQUENCE = "- a: b\n  c: |-\n    x\n\n    y\n\n- d\n- e:\n- f:\n    g: h\n"
ODD = '1: a\nyes: b\n"1.0": c\n# x\n\nd:\n# y\n  e: f # g\nh: i#j\nk: l:m\no: "\n  - p"\nq: [\n- r]\n'
SHARED = """\
a: &x
  b: 1
  c:
  - d
e: *x
items:
- &id001
  f: g
- *id001
- h: *x
  i: &y
    j: *id001
- {k: &x 1, l: *y}
- m: *x
"""
FOLDED = """\
a: 'it''s a text
  of two lines: with a colon '
b: one
  two three
  four
c: "tab\\there \\u00e9"
items:
- --flag=one two
  three
- 'x
  y'
- d: 'one
    two
    '
  e: f
    g
"""
PIECES = [
    *(":", " ", "\n", "- ", "  ", "\n  ", "\n- ", "{", "}", "[", "]", ",", "&x ", "*x", "<<: ", "!!str ", "'", '"'),
    *(
        "|\n",
        "|-\n",
        ">\n",
        "#",
        " # c",
        "? ",
        "on",
        "080",
        ".inf",
        "~",
        "...\n",
        "\t",
        "\r\n",
        "é",
        "%",
        "null",
        "\n\n",
    ),
    *("x:\n", "- a: b\n", ": |\n", '"\n- "', "'\n- a: '", "[\n- b", "\n# c\n", "- - ", "\x85", "\u2028", "\ufeff"),
    *("&y\n", "*y", "\\n", "''", "'\n  ", "a b\n    c"),
]
TEXTS = (LIST, NESTED, SEQUENCE, ODD, SHARED, FOLDED)
LINES = st.sampled_from([line for text in TEXTS for line in text.splitlines()])


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A text like those above with a few edits of characters and lines."""
    text = draw(st.sampled_from(TEXTS) | st.lists(LINES, max_size=6).map("\n".join))
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.sampled_from([0, 0, 0, 1, 2, 6])))
        text = text[:start] + draw(st.sampled_from(PIECES)) + text[end:]
    lines = text.split("\n")
    for _ in range(draw(st.integers(0, 2))):
        at, column = draw(st.integers(0, len(lines))), draw(st.sampled_from(["", "", " ", "  ", "    "]))
        lines.insert(at, column + draw(LINES | st.sampled_from(lines or [""])))
    return "\n".join(lines)


def same(one: object, other: object) -> bool:
    """Whether two values are equal, of the same types and in the same order."""
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@settings(max_examples=examples(2000))
@given(mutated())
def test_it_is_read_as_parser_events_say(text: str) -> None:
    block = build_block(text)
    if block is not None:
        built = build(text)
        assert same(block.value, built.value)
        assert built == BuiltDocument(exists=True, value=built.value, aliased=built.aliased)


@pytest.mark.parametrize("text", ["a: |\n b", "a: |\n b\n", "a: |\n b\n\n", "a: |-\n b", "\n a: |\n  b: |"])
def test_a_literal_at_the_end_of_the_text(text: str) -> None:
    block = build_block(text)
    assert block is not None and block.value == build(text).value


WORDS = st.text("abc:'#-y10.~ ", max_size=12)
WORDS |= st.lists(st.sampled_from(["a", "b:", "#c", "it's", "-", "\\", '"']), max_size=30).map(" ".join)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=4),
    max_leaves=25,
)


@settings(max_examples=examples(300))
@given(st.lists(VALUES, max_size=4), st.sampled_from([20, 80, 1000]))
def test_what_pyyaml_prints_is_read(shared: list[object], width: int) -> None:
    value = {"items": [{"a": shared, "b": shared, "c": one} for one in shared], "kind": "List"}
    text = yaml.safe_dump(value, width=width)
    block = build_block(text)
    if block is not None:
        assert same(block.value, build(text).value)


def test_the_style_of_kubectl_is_known() -> None:
    for text in (LIST, SEQUENCE, SHARED, FOLDED, LIST.replace("\n", "\r\n")):
        block = build_block(text)
        assert block is not None
        assert same(block.value, build(text).value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# x",
        "a",
        NESTED,
        ODD,
        "- - a",
        "a: .inf",
        "a: 1\na: 2\n",
        "a: b\n # c\n d\n",
        "a: *x",
        "a: &x\n  b: *x\n",
    ],
)
def test_other_styles_are_not(text: str) -> None:
    assert build_block(text) is None


def test_an_entry_cannot_end_inside_a_quoted_scalar() -> None:
    text = 'items:\n- a: "b\n- c: d\n- e"\n- f: "\n'
    assert build_block(text) is None
    with pytest.raises(ParseError):
        build(text)


@pytest.mark.parametrize(
    "text",
    [
        "items:\n- a: &x\n  - b\n- a: &x\n- a: *x\n",
        "items:\n- a: &x\n  - b\n  c: *x\n- a: *x\n  c:\n  - a: &x\n    d: []\n  - - - e\n- f: *x\n",
        "items:\n- a: 1\n  i: &y\n- {k: 1, l: *y}\n- m: *y\n",
        "items:\n- a: &x\n    b: 1\n- {c: *x}\n- {d: &x 2}\n- e: *x\n",
    ],
)
def test_an_anchor_means_the_one_before(text: str) -> None:
    block = build_block(text)
    assert block is None or same(block.value, build(text).value)


def test_an_irregular_entry_does_not_make_the_text_irregular() -> None:
    text = "items:\n- a: &x\n    b: 1\n- {c: *x, d: &y {e: 2}}\n- f: *y\nkind: List\n"
    block = build_block(text)
    assert block is not None
    assert block.value == {"items": [{"a": {"b": 1}}, {"c": {"b": 1}, "d": {"e": 2}}, {"f": {"e": 2}}], "kind": "List"}
