"""Renders the manifests of an installation: one file for kubectl, and the chart's copies of etc/kubernetes.

The chart's templates are the source. They use a few of Helm's actions only, which are evaluated here in the same way,
so that no Helm is needed; a test compares the result with Helm's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from romana_ovs.model.errors import SetupError

CHART = Path("etc/helm/romana-ovs")
KUBERNETES = Path("etc/kubernetes")
INSTALL = KUBERNETES / "install/romana-ovs.yaml"
TEMPLATES = ("config", "node", "registry")
"""The templates with values; the others are copies of files in etc/kubernetes."""
COPIED = ("rbac", "admission")
CRDS = "crd-*.yaml"
_HEADER = """\
# romana-ovs as the network of a cluster: kubectl apply --server-side -f romana-ovs.yaml
# How to install it, and what to change here first: docs/install.md.
#
# Rendered from the chart etc/helm/romana-ovs and its default values, by `make docs`: do not edit it in the repository.
"""
_BLOCK = re.compile(r"\{\{- (?:(if|range) (\S+)|(end)) \}\}")
_ACTION = re.compile(r"\{\{ (.+?) \}\}")
_INDENT = re.compile(r"indent (\d+)")


def render(template: str, values: Mapping[str, Any]) -> str:
    """The text of a template with `values`. Raises SetupError for an action that is not supported."""
    return "\n".join(_render(iter(template.splitlines()), {"Values": values}, None)) + "\n"


def _render(lines: Iterator[str], context: Mapping[str, Any], item: object) -> list[str]:
    """The rendered lines up to the end of this block. `item` is what `.` means in a range."""
    rendered: list[str] = []
    for line in lines:
        block = _BLOCK.fullmatch(line)
        if block is None:
            rendered.append(_ACTION.sub(lambda match: _evaluated(match[1], context, item), line))
        elif block[3]:
            break
        else:
            value, inner = _value(block[2], context, item), list(_block(lines))
            # As in Go's templates: nothing for what is empty.
            items = (value if block[1] == "range" else [item]) if value else []
            for each in items if isinstance(items, Sequence) else ():
                rendered += _render(iter(inner), context, each)
    return rendered


def _block(lines: Iterator[str]) -> Iterator[str]:
    """The lines up to the end of the block that has just begun."""
    depth = 1
    for line in lines:
        block = _BLOCK.fullmatch(line)
        depth += 0 if block is None else -1 if block[3] else 1
        if depth == 0:
            return
        yield line
    raise SetupError("a template has a block without end")


def _evaluated(action: str, context: Mapping[str, Any], item: object) -> str:
    expression, _, function = (part.strip() for part in action.partition("|"))
    name, _, argument = expression.partition(" ")
    if name == "toJson" and not function:
        return json.dumps(_value(argument, context, item), sort_keys=True)
    value = _value(expression, context, item)
    if not function:
        return str(value)
    if function == "quote":
        return json.dumps(str(value))
    if indent := _INDENT.fullmatch(function):
        return "\n".join(" " * int(indent[1]) + line for line in str(value).splitlines())
    raise SetupError(f"a template has the action {{{{ {action} }}}}, which is not supported")


def _value(path: str, context: Mapping[str, Any], item: object) -> Any:
    if path == ".":
        return item
    value: Any = context
    for name in path.removeprefix(".").split("."):
        if not isinstance(value, Mapping) or name not in value:
            raise SetupError(f"a template has {path}, which is no value")
        value = value[name]
    return value


def default_values(root: Path) -> dict[str, Any]:
    """The default values of the chart in the checkout `root`."""
    values: dict[str, Any] = yaml.safe_load((root / CHART / "values.yaml").read_text())
    return values


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with `changes`, mapping by mapping, as Helm merges them."""
    return {
        **values,
        **{
            name: merged(values[name], change)
            if isinstance(change, Mapping) and isinstance(values.get(name), Mapping)
            else change
            for name, change in changes.items()
        },
    }


def install_manifest(root: Path, changes: Mapping[str, Any] | None = None) -> str:
    """All objects of an installation as one YAML text, from the checkout `root`; `changes` are values that differ.

    Raises SetupError.
    """
    values = merged(default_values(root), changes or {})
    parts = [path.read_text() for path in sorted((root / KUBERNETES).glob(CRDS))]
    parts += [(root / KUBERNETES / f"{name}.yaml").read_text() for name in COPIED]
    parts += [render((root / CHART / "templates" / f"{name}.yaml").read_text(), values) for name in TEMPLATES]
    return _HEADER + "---\n" + "---\n".join(part.rstrip("\n") + "\n" for part in parts)


def rendered_files(root: Path) -> dict[Path, str]:
    """All rendered files, by path in the checkout `root`. Raises SetupError."""
    copies = {CHART / "crds" / path.name: path for path in sorted((root / KUBERNETES).glob(CRDS))}
    copies |= {CHART / "templates" / f"{name}.yaml": root / KUBERNETES / f"{name}.yaml" for name in COPIED}
    return {
        INSTALL: install_manifest(root),
        **{target: source.read_text() for target, source in copies.items()},
    }
