"""Finds what is to be rendered in a manifest: actions of Go templates, as in Helm charts, and variables of envsubst.

Such text is common in manifests that are no templates: scripts in ConfigMaps have shell variables, alerts and
dashboards of Prometheus have actions. So it counts only where a problem of the file is about it.

Sources: https://helm.sh/docs/chart_template_guide/, https://www.gnu.org/software/gettext/manual/html_node/envsubst-Invocation.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from romana_ovs.kube.manifests.folder import parse_bytes
from romana_ovs.model.errors import InputError, Problem

_TEXT = re.compile(r"\{\{.*?\}\}|\$\{[A-Za-z_][A-Za-z0-9_]*\}")
_LINE = re.compile(r"line (\d+): ")
_LEADING_ACTION = re.compile(r"^\s*(?:- )?(?:[\w./-]+:\s+)?(\{\{[^{}]*\}\})", re.MULTILINE)
"""An action where a value, an entry or a line begins: YAML takes it for a mapping in flow style."""
_INDEX = re.compile(r"\[(\d+)\]")


def template_text(data: bytes, faults: Sequence[Problem]) -> str:
    """The first action (`{{ ... }}`) or variable (`${...}`) in a file that one of its `faults` is about, or empty.

    A fault is about the value of its field. A document that cannot be read has none: then the line that the fault names
    counts, and any value of the file that begins with an action.
    """
    text = data.decode(errors="replace")
    values = _values(data, faults[0].file) if any(fault.field for fault in faults) else {}
    lines = text.splitlines()
    for fault in faults:
        if fault.field:
            pieces: Iterator[str] = _texts(_value_at(values.get(fault.document), fault.field))
            match = next(filter(None, map(_TEXT.search, pieces)), None)
        elif line := _LINE.match(fault.reason):
            number = int(line.group(1))
            match = _TEXT.search(lines[number - 1]) if 0 < number <= len(lines) else None
            leading = _LEADING_ACTION.search(text)
            if match is None and leading is not None:
                return leading.group(1)
        else:
            match = None
        if match is not None:
            return match.group()
    return ""


def _values(data: bytes, name: str) -> dict[int, object]:
    """The documents of a file by number; empty when it cannot be read."""
    try:
        return {document.number: document.value for document in parse_bytes(name, data)}
    except InputError:
        return {}


def _value_at(value: object, path: str) -> object:
    """The value at a path such as `spec.ports[0].name`, whose keys may have dots; None when there is none."""
    while path:
        if isinstance(value, list):
            index = _INDEX.match(path)
            if index is None or int(index.group(1)) >= len(value):
                return None
            value, path = value[int(index.group(1))], path[index.end() :]
        elif isinstance(value, dict):
            keys = [key for key in value if isinstance(key, str) and key and _is_step(key, path)]
            if not keys:
                return None
            key = max(keys, key=len)
            value, path = value[key], path[len(key) :]
        else:
            return None
        path = path.removeprefix(".")
    return value


def _is_step(key: str, path: str) -> bool:
    """Whether a path begins with a key."""
    return path.startswith(key) and path[len(key) : len(key) + 1] in ("", ".", "[")


def _texts(value: object) -> Iterator[str]:
    """The texts of one line in a value, keys included."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(key)
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, str) and "\n" not in value:
        yield value
