"""Mutated documents: `check` never ends with a traceback, and never loses a document without a word."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import example, given, settings
from hypothesis import strategies as st

from romana_ovs.cli.main import main
from romana_ovs.kube.manifests.folder import FileContent, read_bytes
from romana_ovs.kube.manifests.parse import parse
from romana_ovs.model.settings import Settings
from romana_ovs.model.syntax import plain
from tests.support.hypothesis_profiles import examples

TESTS = Path(__file__).parents[1]
SEEDS = sorted(
    {
        path.read_bytes()
        for folder in ("corpus", "broken")
        for path in (TESTS / folder).rglob("*")
        if path.suffix in (".yaml", ".yml", ".json") and path.name != "case.json" and path.stat().st_size < 3000
    }
)
PIECES = (
    *(
        b"\n",
        b"\n---\n",
        b"--- x\n",
        b"...\n",
        b"%YAML 1.1\n",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xe9",
        b"\0",
        b"\r",
        b"\t",
    ),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b": ",
        b"- ",
        b"  ",
        b"'",
        b'"',
        b"#",
        b" #",
        b"&a ",
        b"*a",
        b"<<: *a\n",
        b"!!int ",
    ),
    *(
        b"|\n",
        b">\n",
        b"null",
        b"y",
        b"080",
        b".inf",
        b"1e3",
        b"items:\n",
        b"kind: List\n",
        b"kind: Pod\n",
        b"? ",
        b",",
    ),
)
COMMENTS = re.compile(r"(?:[ \t\ufeff]*(?:#[^\n]*)?(?:\r?\n|\Z))*\Z")


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """One or two files of the corpus, joined, with a few edits; sometimes as UTF-16."""
    data = b"".join(draw(st.lists(st.sampled_from(SEEDS), min_size=1, max_size=2)))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from([0, 0, 1, 3, 20, 100])))
        copied = draw(st.integers(0, len(data)))
        piece = draw(st.sampled_from([*PIECES, data[copied : copied + 30]]))
        data = data[:start] + piece + data[end:]
    if draw(st.integers(0, 9)) == 0:
        data = data.decode("utf-8", "replace").encode("utf-16")
    return data


def lost(data: bytes, content: FileContent) -> Iterator[str]:
    """The documents and objects of a file that are neither taken, nor ignored by name, nor in a problem."""
    parsed = parse(data)
    if any(fault.hides and not fault.document for fault in parsed.faults):
        return  # The whole file is in a problem.
    named = {fault.document for fault in parsed.faults} | {problem.document for problem in content.problems}
    numbers = {document.number for document in parsed.documents} | named
    text = data.decode("utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig", "replace")
    if not text.lstrip("\t\n\v\f\r \x85\xa0").startswith("{"):
        first, *others = re.split(r"(?m)^---[^\n]*(?:\n|\Z)", text)
        parts = [first, *others] if not COMMENTS.match(first) else others
        yield from (f"document {number}" for number in range(1, len(parts) + 1) if number not in numbers)
    for document in parsed.documents:
        for kind in kinds(document.value):
            taken = any(item.location.document == document.number for item in content.objects)
            ignored = any(one == plain(kind) or one.startswith(plain(kind) + ".") for one in content.ignored)
            if not (taken or ignored or document.number in named):
                yield f"{kind} of document {document.number}"


def kinds(value: object) -> Iterator[str]:
    """The kind of each object in a document, lists expanded; empty for what has none."""
    if isinstance(value, dict) and isinstance(value.get("items"), list):
        for entry in value["items"]:
            yield from kinds(entry)
    elif isinstance(value, dict) and not str(value.get("kind")).endswith("List"):
        yield str(value.get("kind"))
    elif value is not None and not isinstance(value, dict):
        yield ""


@settings(max_examples=examples(400))
@given(mutated())
@example("apiVersion: security.istio.io/v1\nkind: \ufeffAuthorizationPolicy\n".encode("utf-16"))
@example(b"apiVersion: networking.k8s.io/v1\nkind: N.NetworkPolicy\n")
def test_no_traceback_and_no_lost_document(data: bytes) -> None:
    assert list(lost(data, read_bytes("a.yaml", data, Settings()))) == []
    with TemporaryDirectory() as folder:
        (Path(folder) / "a.yaml").write_bytes(data)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(["check", folder, "--json"])
    assert code in (0, 1, 2)
    if code == 2:
        assert err.getvalue().startswith("romana-ovs: ")
    else:
        rows = json.loads(out.getvalue())
        assert (code == 1) is any(row["severity"] != "info" for row in rows)


def test_there_are_seeds() -> None:
    assert len(SEEDS) > 100


def test_a_lost_document_is_found() -> None:
    data = b"apiVersion: v1\nkind: ConfigMap\n---\napiVersion: v1\nkind: Secret\n"
    content = read_bytes("a.yaml", data, Settings())
    assert list(lost(data, content)) == []
    assert list(lost(data, FileContent("a.yaml", ignored=("Secret",)))) == ["ConfigMap of document 1"]
