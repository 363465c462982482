"""Finds every manifest that README and docs show, as users would copy it, and those of docs/examples and etc/demo."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REFUSED = {
    "docs/examples/broken/policy.yaml": "shows what check says about mistakes",
    "docs/examples/policy-demo-v1.yaml": "is for convert: of an API version that no API server ever served",
    "etc/demo/policy/policy1.yaml": "the same, in the demonstration",
    "etc/demo/policy/third-party-resource.yaml": "a ThirdPartyResource, which Kubernetes 1.8 removed",
}
"""Files that no API server takes, and why they are there."""
_BLOCK = re.compile(r"^```[a-z]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_START = re.compile(r'(apiVersion|kind):|\{\s*"?(apiVersion|kind)"?\s*:')
_END = re.compile(r"EOF$|\$ |\(exit code |# ")


@dataclass(frozen=True)
class DocumentedManifest:
    """A manifest (maybe of several documents): where it is shown, and its text as it stands there."""

    where: str
    text: str


def documented_manifests() -> list[DocumentedManifest]:
    """All of them, those of files by path and those of pages by page and number."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    files = [*(ROOT / "docs" / "examples").rglob("*.yaml"), *(ROOT / "etc" / "demo").rglob("*.yaml")]
    return [
        *(one for page in sorted(pages) for one in _of_page(page)),
        *(DocumentedManifest(str(path.relative_to(ROOT)), path.read_text()) for path in sorted(files)),
    ]


def _of_page(page: Path) -> Iterator[DocumentedManifest]:
    number = 0
    for block in _BLOCK.findall(page.read_text(encoding="utf-8")):
        lines: list[str] = []
        for line in [*block.splitlines(keepends=True), "EOF"]:
            if lines and _END.match(line):
                number += 1
                yield DocumentedManifest(f"{page.relative_to(ROOT)}#{number}", "".join(lines))
                lines = []
            elif lines or _START.match(line):
                lines.append(line)
