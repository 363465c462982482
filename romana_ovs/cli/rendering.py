"""Finds sources of manifests, which are to be rendered first: kustomizations, Helm charts and templates.

Sources: https://kubectl.docs.kubernetes.io/references/kustomize/kustomization/, https://helm.sh/docs/topics/charts/.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from shlex import quote

from romana_ovs.kube.manifests.files import STDIN
from romana_ovs.kube.manifests.folder import parse_bytes
from romana_ovs.model.differences import listed
from romana_ovs.model.errors import InputError, Problem, Severity

KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml", "Kustomization")
CHART = "Chart.yaml"
_PLAIN_FIELDS = frozenset({"apiVersion", "kind", "metadata", "resources"})
"""Fields of a kustomization that change no object."""
_ACTION = re.compile(rb"\{\{.*?\}\}", re.DOTALL)
_VARIABLE = re.compile(rb"\$\{[A-Za-z_][A-Za-z0-9_]*\}")


def unrendered(path: Path, problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """A problem for each source of manifests at `path` (a folder or a file), with the command that renders it.

    Files count as templates only when they have one of `problems`.
    """
    if path == STDIN:
        return ()
    folder = path if path.is_dir() else path.parent
    faulty = sorted({problem.file for problem in problems if problem.file})
    chart = next((one for one in (folder, folder.parent) if (one / CHART).is_file()), None)
    chart = chart if chart is folder or folder.name == "templates" else None
    found = list(_kustomization(path)) if path.is_dir() else []
    if chart is not None and path.is_dir():
        reason = f"is a Helm chart, whose templates are not rendered; render it first: {_helm(chart)}"
        found.append(Problem(reason, file=CHART, severity=Severity.WARNING))
        return tuple(found)
    for name in faulty:
        found += _template(path if path.is_file() else folder / name, name, chart)
    return tuple(found)


def _helm(chart: Path) -> str:
    return f"helm template {quote(str(chart))} | romana-ovs check -"


def _kustomization(folder: Path) -> Iterator[Problem]:
    """The kustomization of a folder, unless it only lists files of the folder."""
    name = next((one for one in KUSTOMIZATIONS if (folder / one).is_file()), None)
    if name is None:
        return
    try:
        documents = parse_bytes("kustomization.yaml", (folder / name).read_bytes())
    except (InputError, OSError):
        documents = ()
    value = documents[0].value if documents else None
    fields = value if isinstance(value, dict) else {}
    changes = sorted(str(key) for key, content in fields.items() if key not in _PLAIN_FIELDS and content)
    resources = fields.get("resources")
    outside = [
        str(one)
        for one in (resources if isinstance(resources, list) else ())
        if "/" in str(one).removeprefix("./") or not (folder / str(one)).is_file()
    ]
    what = [*changes, *([f"resources {listed(outside)}"] if outside else [])]
    if what or not fields:
        without = f"{listed(what)} {'are' if len(what) > 1 else 'is'} not applied" if what else "it is not applied"
        reason = f"is a kustomization, and {without}; render it first: "
        command = f"kubectl kustomize {quote(str(folder))} | romana-ovs check -"
        yield Problem(reason + command, file=name, severity=Severity.WARNING)


def _template(path: Path, name: str, chart: Path | None) -> Iterator[Problem]:
    """The problem that a file with faults is a template."""
    try:
        data = path.read_bytes() if path.is_file() else b""
    except OSError:
        return
    if action := _ACTION.search(data):
        line = data.count(b"\n", 0, action.start()) + 1
        command = _helm(chart) if chart is not None else "helm template CHART | romana-ovs check -"
        reason = f"is a template ({{{{ }}}} in line {line}); render it first, as Helm does: {command}"
        yield Problem(reason, file=name, severity=Severity.WARNING)
    elif variable := _VARIABLE.search(data):
        text = variable.group().decode()
        reason = f"is a template ({text}); render it first: envsubst < {quote(str(path))} | romana-ovs check -"
        yield Problem(reason, file=name, severity=Severity.WARNING)
