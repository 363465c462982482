"""Finds kustomizations, Helm charts and templates, which another program has to render, and tables that kubectl prints.

Sources: https://kubectl.docs.kubernetes.io/references/kustomize/kustomization/, https://helm.sh/docs/topics/charts/.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from os.path import isfile  # False for what may not be looked at, where Path.is_file raises
from pathlib import Path
from shlex import quote

from romana_ovs.cli.template_text import template_text
from romana_ovs.kube.manifests.files import STDIN, list_files
from romana_ovs.kube.manifests.folder import parse_bytes
from romana_ovs.model.errors import InputError, Problem, Severity
from romana_ovs.model.syntax import joined, plain

KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml", "Kustomization")
CHART = "Chart.yaml"
_PRINTED = re.compile(rb"(?:NAMESPACE +)?NAME +[A-Z]|Name: +\S+\s+Namespace: |[a-z0-9.]+/[a-z0-9.-]+\s*\n")
"""The start of what kubectl get and kubectl describe print without -o, and kubectl get with -o name."""
_NEUTRAL_FIELDS = frozenset(
    {
        "apiVersion",
        "buildMetadata",
        "commonAnnotations",
        "configMapGenerator",
        "generatorOptions",
        "images",
        "kind",
        "metadata",
        "resources",
        "secretGenerator",
        "sortOptions",
    }
)
"""Fields of a kustomization that change nothing of what is read here."""


def unrendered_sources(path: Path, problems: Iterable[Problem], *, recursive: bool = False) -> tuple[Problem, ...]:
    """A problem for each kustomization, Helm chart, template and printed table at `path` (a folder or a file).

    Each names the command that renders it, or prints it as YAML. A file counts as a template only when one of
    `problems` is about a part of it that is to be rendered (`template_text`), and no Helm chart that is reported has
    it. With `recursive` sub-folders are searched, too.
    """
    if path == STDIN:
        return ()
    folder = path if path.is_dir() else path.parent
    folders = {folder}
    if recursive and path.is_dir():
        folders |= {file.path.parent for file in list_files(path, recursive=True)}
    charts = {chart for one in folders if (chart := _chart_of(one)) is not None}
    faults: dict[str, list[Problem]] = {}
    for problem in problems:
        if problem.file:
            faults.setdefault(problem.file, []).append(problem)
    sources: list[Problem] = []
    for one in sorted(folders) if path.is_dir() else ():
        sources += _kustomization(one, folder, faults, recursive=recursive)
    for chart in sorted(charts) if path.is_dir() else ():
        reason = f"is a Helm chart, whose templates are not rendered; render it first: {_helm(chart)}"
        place = (chart / CHART).relative_to(folder) if chart.is_relative_to(folder) else Path(CHART)
        sources.append(Problem(reason, file=place.as_posix(), severity=Severity.WARNING))
    for name in sorted(faults):
        file = path if path.is_file() else folder / name
        owner = next((chart for chart in charts if file.is_relative_to(chart)), None)
        if owner is None or path.is_file():
            sources += _not_manifests(file, faults[name], owner)
    return tuple(sources)


def _chart_of(folder: Path) -> Path | None:
    """The Helm chart that the folder is, or whose templates it has."""
    if isfile(folder / CHART):
        return folder
    return folder.parent if folder.name == "templates" and isfile(folder.parent / CHART) else None


def _helm(chart: Path) -> str:
    return f"helm template {quote(str(chart))} | romana-ovs check -"


def _kustomization(folder: Path, start: Path, faulty: Collection[str], *, recursive: bool) -> Iterator[Problem]:
    """The kustomization of a folder below `start`, unless it only lists files that are read, and is not `faulty`.

    It may be without apiVersion and kind, which kustomize adds and kubectl apply -f wants. A Component changes the
    objects of others, and cannot be rendered alone.
    """
    name = next((one for one in KUSTOMIZATIONS if isfile(folder / one)), None)
    if name is None:
        return
    try:
        documents = parse_bytes("kustomization.yaml", (folder / name).read_bytes())
    except (InputError, OSError):
        documents = ()
    value = documents[0].value if documents else None
    fields = value if isinstance(value, dict) else {}
    if fields.get("kind") == "Component":
        return
    changes = sorted(str(key) for key, content in fields.items() if key not in _NEUTRAL_FIELDS and content)
    resources = fields.get("resources")
    unread = [
        str(one)
        for one in (resources if isinstance(resources, list) else ())
        if not _is_read(folder / str(one), folder, start if recursive else None)
    ]
    lacking = [*changes, *([f"resources {joined([*map(plain, unread)])}"] if unread else [])]
    file = (folder / name).relative_to(start).as_posix()
    if lacking or not fields or file in faulty:
        without = f"is read without {joined(lacking)}" if lacking else "is not applied"
        command = f"kubectl kustomize {quote(str(folder))} | romana-ovs check -"
        reason = f"is a kustomization and {without}; render it first: {command}"
        yield Problem(reason, file=file, severity=Severity.WARNING)


def _is_read(resource: Path, folder: Path, start: Path | None) -> bool:
    """Whether a resource of the kustomization in `folder` is read, too: a file there, or below `start` if given."""
    try:
        place = resource.resolve()
        if start is not None:
            return place.exists() and place.is_relative_to(start.resolve())
        return isfile(place) and place.parent == folder.resolve()
    except (OSError, RuntimeError, ValueError):  # a name that is too long, a loop of links, a NUL character
        return False


def _not_manifests(path: Path, faults: Sequence[Problem], chart: Path | None) -> Iterator[Problem]:
    """The problem that a file with `faults` is a template, or what kubectl prints without -o yaml."""
    try:
        data = path.read_bytes() if path.is_file() else b""
    except OSError:
        return
    text = template_text(data, faults)
    if text.startswith("{{"):
        line = data.count(b"\n", 0, max(data.find(text.encode()), 0)) + 1
        command = _helm(chart) if chart is not None else "helm template CHART | romana-ovs check -"
        reason = f"is a template ({{{{ }}}} in line {line}); render it first, as Helm does: {command}"
    elif _PRINTED.match(data):
        reason = "is what kubectl prints for people; add -o yaml: kubectl get ... -o yaml"
    elif text:
        reason = f"is a template ({text}); render it first: envsubst < {quote(str(path))} | romana-ovs check -"
    else:
        return
    yield Problem(reason, file=faults[0].file, severity=Severity.WARNING)
