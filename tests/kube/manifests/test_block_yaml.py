"""The plain block style is read as parser events say, or not at all."""

from __future__ import annotations

import pytest
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
]
LINES = st.sampled_from([line for text in (LIST, NESTED, SEQUENCE, ODD) for line in text.splitlines()])


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A text like those above with a few edits of characters and lines."""
    text = draw(st.sampled_from([LIST, NESTED, SEQUENCE, ODD]) | st.lists(LINES, max_size=6).map("\n".join))
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


def test_the_style_of_kubectl_is_known() -> None:
    for text in (LIST, SEQUENCE, LIST.replace("\n", "\r\n")):
        block = build_block(text)
        assert block is not None
        assert same(block.value, build(text).value)


@pytest.mark.parametrize(
    "text", ["", "# x", "a", "a: 1\na: 2\n", "a: b\n c\n", "a: *x", "- - a", "a: .inf", NESTED, ODD]
)
def test_other_styles_are_not(text: str) -> None:
    assert build_block(text) is None


def test_an_entry_cannot_end_inside_a_quoted_scalar() -> None:
    text = 'items:\n- a: "b\n- c: d\n- e"\n- f: "\n'
    assert build_block(text) is None
    with pytest.raises(ParseError):
        build(text)
