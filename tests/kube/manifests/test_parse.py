"""YAML and JSON as kubectl reads them, within bounds; expected values are what kubectl 1.32 makes of the text."""

from __future__ import annotations

import json
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from romana_ovs.kube.manifests.parse import parse, parse_text
from romana_ovs.kube.manifests.yaml_documents import MAX_ALIASED, MAX_DEPTH

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def values(text: str) -> list[object]:
    """The values of all documents of a text without faults."""
    parsed = parse_text(text)
    assert parsed.faults == ()
    return [document.value for document in parsed.documents]


def faults(text: str) -> list[tuple[int, str]]:
    """The document and the sentence of each fault."""
    return [(fault.document, str(fault)) for fault in parse_text(text).faults]


def test_keys_are_strings() -> None:
    assert values("1: a\ntrue: b\n1.50: c\n'on': d\n? e\n: f\n") == [
        {"1": "a", "true": "b", "1.5": "c", "on": "d", "e": "f"}
    ]


@pytest.mark.parametrize("text", ["~: a", "a: {[b]: c}", "a: &x [b]\nc: {*x : d}", "18446744073709551615: a"])
def test_keys_that_kubectl_refuses(text: str) -> None:
    ((document, sentence),) = faults(text + " #")
    assert document == 1
    assert "key" in sentence


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{app: mine, <<: *c}", {"app": "base", "team": "x"}),
        ("{<<: *c, app: mine}", {"app": "mine", "team": "x"}),
        ("{<<: [*d, *c]}", {"app": "other", "team": "x", "f": 1}),
        ("{app: mine, <<: [*d, *c]}", {"app": "other", "team": "x", "f": 1}),
        ("{<<: [{a: 1}, {a: 2, b: 2}], c: 1}", {"a": 1, "b": 2, "c": 1}),
        ("{<<: {<<: *c, app: inner}}", {"app": "inner", "team": "x"}),
        ("{<<: [], a: 1}", {"a": 1}),
        ('{"<<": {a: 1}}', {"<<": {"a": 1}}),
        ("{m: {q: 2}, <<: {m: {p: 1}}}", {"m": {"p": 1}}),
    ],
)
def test_a_merge_overwrites_what_is_before_it(text: str, value: object) -> None:
    (document,) = parse_text(f"c: &c {{app: base, team: x}}\nd: &d {{app: other, f: 1}}\nv: {text}\n").documents
    assert isinstance(document.value, dict)
    assert document.value["v"] == value
    assert document.duplicates == ()


def test_two_merges_in_one_mapping_are_a_doubled_key() -> None:
    (document,) = parse_text("v:\n  <<: {a: 1, b: 1}\n  <<: {a: 2}\n  b: 3\n").documents
    assert document.value == {"v": {"a": 2, "b": 3}}
    assert [(one.path, one.line) for one in document.duplicates] == [("v.<<", 3)]


def test_a_key_before_and_after_a_merge_is_doubled() -> None:
    (document,) = parse_text("a: 1\n<<: {a: 2}\na: 3\n").documents
    assert document.value == {"a": 3}
    assert [(one.path, one.line) for one in document.duplicates] == [("a", 3)]


@pytest.mark.parametrize("text", ["<<: foo", "<<: ", "<<: [[{a: 1}]]", "<<: [a]"])
def test_a_merge_of_something_else(text: str) -> None:
    assert "'<<' wants a mapping" in faults(text)[0][1]


def test_anchors_belong_to_one_document() -> None:
    parsed = parse_text("a: &s 1\nb: [&s 2, *s]\n---\nc: *s\n")
    assert [document.value for document in parsed.documents] == [{"a": 1, "b": [2, 2]}]
    assert faults("a: &s 1\n---\nc: *s\n") == [(2, "line 3: alias *s names nothing that is complete before it")]
    assert values("a: &x {b: [&x 1]}\nc: *x") == [{"a": {"b": [1]}, "c": 1}]


def test_documents_count_from_one_and_empty_ones_count() -> None:
    parsed = parse_text("# nothing\n---\na: 1\n--- # x\n---# y\n# z\n---\nb: 2\n")
    assert [(one.number, one.value) for one in parsed.documents] == [(1, {"a": 1}), (2, None), (3, None), (4, {"b": 2})]


def test_doubled_keys_are_named_with_their_path() -> None:
    first, second = parse_text("x: 1\n---\na:\n- b: {c: 1, c: 2}\n- d: 1\na: 3").documents
    assert first.duplicates == ()
    assert [(one.path, one.line) for one in second.duplicates] == [("a[0].b.c", 4), ("a", 6)]
    assert second.value == {"a": 3}
    (document,) = parse_text('{"a":\n [{"b": 1,\n "b": 2}]}').documents
    assert [(one.path, one.line) for one in document.duplicates] == [("a[0].b", 3)]
    assert document.value == {"a": [{"b": 2}]}
    (document,) = parse_text('1: a\n"1": b').documents
    assert [(one.path, one.line) for one in document.duplicates] == [("1", 2)]


@pytest.mark.parametrize(
    "text", ['{"a": 1} {"a": 2}', '{"a": 1}\n{"a": 2}\n', '{"a": 1}{"a": 2}', '\n {"a": 1.0}{"a": 2e0}']
)
def test_a_stream_of_json(text: str) -> None:
    assert values(text) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("text", "document", "sentence"),
    [
        ('{"a": 1}\n{"b": 2}\n---\n{"c": 3}', 3, "line 3: no valid JSON: Expecting value; what follows is not read"),
        ('{"a": 1, // c\n"b": 2}', 1, "line 1: no valid JSON: it has no comments; what follows is not read"),
        ('{"a": 1e400}', 1, "line 1: 1e400 is no number that JSON has; what follows is not read"),
    ],
)
def test_broken_json(text: str, document: int, sentence: str) -> None:
    assert faults(text) == [(document, sentence)]
    assert len(parse_text(text).documents) == document - 1


@pytest.mark.parametrize(
    ("text", "document", "count"),
    [
        ("{a: 1}", 1, 1),
        ('{"a": 1,}', 1, 1),
        ('{"a": 1}\n---\n{"b": 2}\n---\nc: 3\n', 2, 3),
        ("{a: 1}\n---\nb: 2\n", 1, 2),
    ],
)
def test_yaml_that_starts_with_a_brace(text: str, document: int, count: int) -> None:
    parsed = parse_text(text)
    assert len(parsed.documents) == count
    ((number, sentence),) = faults(text)
    assert number == document
    assert "kubectl before 1.33 takes what starts with a brace for JSON" in sentence
    assert not parsed.faults[0].hides


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\n...\nb: 2\n", 3),
        ("---\n{a: 1}\n{b: 2}\n", 3),
        ("a: 1\r---\rb: 2\r", 1),
        ("# {\n{a: 1}\n\n# x\n{b: 2}\n", 5),
    ],
)
def test_a_document_that_kubectl_passes_by_is_named(text: str, line: int) -> None:
    parsed = parse_text(text)
    assert [document.value for document in parsed.documents] == [{"a": 1}]
    assert faults(text) == [
        (1, f"line {line}: kubectl does not read this: --- on a line of its own must be before every further document")
    ]


@pytest.mark.parametrize("text", ["a: 1\n...\n", "a: 1\n...\n# x\n", "a: 1\n...\n%YAML 1.1\n---\n", "a: 1\n...\n---\n"])
def test_the_end_of_a_document_hides_nothing(text: str) -> None:
    assert values(text)[0] == {"a": 1}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: 1\n--- {b: 2}\n", (2, "line 2: kubectl reads nothing beside ---: {b: 2} must be on the next line")),
        ("a: 1\n----\n", (2, "line 2: kubectl reads nothing beside ---: - must be on the next line")),
        ("%YAML 1.1\n---\na: 1\n", (1, "line 1: kubectl reads no directives such as %YAML: remove this line")),
        ("a: 1\n---\n# x\n%TAG ! x\n---\n", (2, "line 4: kubectl reads no directives such as %YAML: remove this line")),
        ("a: 1\n---\nb: [\n", (2, "line 4: no valid YAML: did not find expected node content")),
    ],
)
def test_the_other_documents_are_read(text: str, fault: tuple[int, str]) -> None:
    assert faults(text) == [fault]
    assert {"a": 1} in [document.value for document in parse_text(text).documents]


MARK = "\ufeff"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("text", ["a: é\n---\nb: 2\n", '{"a": "é"}\n{"b": 2}\n', f"a: é\n---\n{MARK}b: 2\n"])
def test_encodings_and_line_ends(text: str, ends: str, encoding: str) -> None:
    parsed = parse(text.replace("\n", ends).encode(encoding))
    assert [document.value for document in parsed.documents] == [{"a": "é"}, {"b": 2}]
    assert parsed.faults == ()


def test_utf_16_of_the_other_order() -> None:
    assert parse(b"\xfe\xff" + "a: é".encode("utf-16-be")).documents[0].value == {"a": "é"}


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("a: 1".encode("utf-16-le"), "is UTF-16 without a byte order mark"),
        ("a: 1".encode("utf-16-be"), "is UTF-16 without a byte order mark"),
        ("a: 1".encode("utf-32"), "is UTF-32"),
        (b"\0\0\xfe\xff" + "a: 1".encode("utf-32-be"), "is UTF-32"),
        (b"a: 1\nb: \0\n", "line 2: holds a character that YAML does not allow"),
        (b"a: 1\n\xef\xbb\xbfb: 2\n", "line 2: a byte order mark starts this line"),
    ],
)
def test_encodings_that_kubectl_does_not_read(data: bytes, sentence: str) -> None:
    parsed = parse(data)
    assert parsed.documents == ()
    assert str(parsed.faults[0]).startswith(sentence)


def test_a_mark_before_a_separator() -> None:
    parsed = parse(f"{MARK}---\na: 1\n{MARK}---\nb: 2\n".encode())
    assert [document.value for document in parsed.documents] == [{"a": 1}, {"b": 2}]
    assert [str(fault) for fault in parsed.faults] == [
        "line 3: kubectl does not see a separator after a byte order mark: remove the mark"
    ]
    assert values(f"a: 1\n---\n{MARK}---\nb: 2\n") == [{"a": 1}, {"b": 2}]


def test_bytes_that_are_no_text_are_replaced_and_noted() -> None:
    parsed = parse(b"a: 1\nb: caf\xe9 # \xe9\n")
    assert parsed.documents[0].value == {"a": 1, "b": "caf\ufffd"}
    (fault,) = parsed.faults
    assert str(fault).startswith("line 2: is not UTF-8 text")
    assert (fault.severity.value, fault.hides) == ("info", False)


@pytest.mark.alone
def test_aliases_cannot_fill_the_memory() -> None:
    levels = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 40))
    started = time.perf_counter()
    assert str(MAX_ALIASED) in faults(f"l0: &l0 [x, x, x, x, x, x, x, x, x]\n{levels}")[0][1]
    assert time.perf_counter() - started < 1


@pytest.mark.alone
def test_many_doubled_keys_take_no_time() -> None:
    keys = [f'"k{number}": 1' for number in range(30_000)]
    started = time.process_time()
    (document,) = parse_text("{" + ", ".join([*keys, *keys]) + "}").documents
    assert time.process_time() - started < 3
    assert len(document.duplicates) == 30_000


def test_aliases_of_all_entries_count_together() -> None:
    many = ", ".join(["*a"] * 300)
    entry = f"- a: 1\n  b: &a [{', '.join(['x'] * 300)}]\n  c: [{many}]\n"
    assert str(MAX_ALIASED) in faults("items:\n" + entry * 3)[0][1]


def test_aliases_inside_aliases_may_be_deep() -> None:
    chain = ", ".join(f"a{level}: &a{level} {'[' * 60}*a{level - 1}{']' * 60}" for level in range(1, 40))
    text = f"items:\n- {{a0: &a0 [x], {chain}}}\n- b: *a39\n- c: &z\n    - *a39\n  d: *z\n"
    assert faults(text) == []


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 5000, 200_000])
def test_depth_is_bounded(depth: int) -> None:
    assert "nest" in faults("[" * depth + "]" * depth)[0][1]
    assert "nest" in faults("".join(" " * level + "a:\n" for level in range(min(depth, 800))))[0][1]


def test_depth_below_the_bound() -> None:
    assert faults("".join(" " * level + "a:\n" for level in range(MAX_DEPTH))) == []
    assert faults("".join("  " * level + "- a:\n" for level in range(MAX_DEPTH // 2))) == []


def test_deep_json_is_refused() -> None:
    assert "deep" in faults('{"a":' * 100_000 + "1" + "}" * 100_000)[0][1]


@given(st.dictionaries(st.text(), JSON_VALUES, max_size=4))
def test_json_is_read_as_it_was_written(value: object) -> None:
    assert values(json.dumps(value)) == [value]


@given(JSON_VALUES)
def test_quoted_yaml_is_read_as_it_was_written(value: object) -> None:
    text = yaml.safe_dump(value, allow_unicode=False, default_style='"')
    (document,) = parse_text("# YAML\n" + text).documents
    # Every scalar is quoted here: numbers and so on have a tag.
    assert document.value == value


@given(st.text())
def test_any_text_is_documents_or_faults(text: str) -> None:
    for prefix in ("", "{", "a: 1\n---\n"):
        parsed = parse_text(prefix + text)
        assert all(document.number for document in parsed.documents)
        assert all("\n" not in str(fault) for fault in parsed.faults)
