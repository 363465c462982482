"""Draws a matrix: rows connect to columns, within 80 columns of text, coloured on a terminal only.

Up to `DRAWN_PODS` pods have a row each; more are summarised in groups (namespace, tenant, tier), which a
line says. Ports with equal matrices share one drawing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from rich.console import Console
from rich.text import Text

from romana_ovs.model.cluster import Cluster
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.matrix import Matrix, PodPath

DRAWN_PODS = 30
"""More pods than this do not fit into 80 columns with their names."""
LISTED_PAIRS = 40
"""Lines of a list of pairs of namespaces, where even those are too many to draw."""
_SHORTEST_NAME = 8


class Cell(Enum):
    """A cell of the matrix; the value is (Unicode character, ASCII character, style, meaning)."""

    ITSELF = (" ", " ", "", "")
    NONE = ("·", ".", "dim", "may not connect")
    SOME = ("◐", "%", "yellow", "some pods may connect")
    ALL = ("●", "o", "green", "may connect")
    OPENED = ("+", "+", "bold green", "opened since the step before")
    CLOSED = ("-", "-", "bold red", "closed since the step before")
    BOTH = ("±", "*", "bold yellow", "some pairs opened, some closed")

    def character(self, unicode: bool) -> str:
        """The character that is drawn."""
        return self.value[0] if unicode else self.value[1]

    @property
    def style(self) -> str:
        """Its style, as Rich names styles."""
        return self.value[2]

    @property
    def meaning(self) -> str:
        """Its text in the legend."""
        return self.value[3]


@dataclass(frozen=True, slots=True)
class Grid:
    """A square drawing: the names of rows (and columns) and the cells row by row."""

    names: tuple[str, ...]
    cells: tuple[tuple[Cell, ...], ...]


def draw_matrix(
    matrix: Matrix,
    *,
    console: Console,
    opened: Collection[PodPath] = (),
    closed: Collection[PodPath] = (),
    groups: Mapping[PodKey, str] | None = None,
) -> None:
    """Draw `matrix`, and in it what `opened` and `closed` since the step before.

    `groups` has the group of each pod, which is drawn when there are too many pods; default: its namespace.
    """
    if not matrix.pods:
        _line(console, "There is no pod that could connect.")
        return
    if len(matrix.pods) <= DRAWN_PODS:
        by_port = {port: _grid_of_pods(matrix, port, opened, closed) for port in matrix.ports}
    else:
        group_of, kind = _groups_of_pods(matrix.pods, groups or {})
        count = len(set(group_of.values()))
        way = "drawn" if count <= DRAWN_PODS else "listed"
        _line(console, f"{len(matrix.pods)} pods, too many for a row each: {way} as {count} {kind}.")
        if count > DRAWN_PODS:
            for port in matrix.ports:
                _list_groups(matrix, port, group_of, console)
            return
        by_port = {port: _grid_of_groups(matrix, port, group_of, changes=(opened, closed)) for port in matrix.ports}
    drawn_cells: set[Cell] = set()
    for grid, ports in _ports_by_grid(by_port).items():
        _line(console, "")
        _draw(grid, ", ".join(ports), console)
        drawn_cells.update(cell for row in grid.cells for cell in row)
    _legend(drawn_cells, console)


def group_names(cluster: Cluster) -> dict[PodKey, str]:
    """The group name of every pod: its namespace, and its tenant and tier where these differ between pods."""
    segments = {key: cluster.segment_of(pod) for key, pod in cluster.pods.items()}
    other_tenants = any(segments[key].tenant != pod.namespace for key, pod in cluster.pods.items())
    tiers = len({segment.tier for segment in segments.values()}) > 1
    names = {}
    for key, (tenant, tier) in segments.items():
        parts = [_namespace(key)]
        if other_tenants:
            parts.append(f"tenant {tenant}" if tenant else "no tenant")
        if tiers:
            parts.append(f"tier {tier}")
        names[key] = ", ".join(parts)
    return names


def _groups_of_pods(pods: Iterable[PodKey], groups: Mapping[PodKey, str]) -> tuple[dict[PodKey, str], str]:
    """The group of each pod, and the kind of the groups: `groups`, or namespaces where those are too many."""
    names_of_pods = {pod: groups.get(pod) or _namespace(pod) for pod in pods}
    if groups and len(set(names_of_pods.values())) <= DRAWN_PODS:
        return names_of_pods, "groups of pods"
    return {pod: _namespace(pod) for pod in names_of_pods}, "namespaces"


def _grid_of_pods(matrix: Matrix, port: str, opened: Collection[PodPath], closed: Collection[PodPath]) -> Grid:
    changed = {each[:2]: Cell.CLOSED for each in closed if each.port == port}
    changed |= {each[:2]: Cell.OPENED for each in opened if each.port == port}
    rows = []
    for source in matrix.pods:
        destinations = frozenset(matrix.reach[port].get(source, ()))
        row = [
            changed.get((source, destination)) or (Cell.ALL if destination in destinations else Cell.NONE)
            for destination in matrix.pods
        ]
        row[matrix.pods.index(source)] = Cell.ITSELF
        rows.append(tuple(row))
    return Grid(matrix.pods, tuple(rows))


def _grid_of_groups(
    matrix: Matrix, port: str, group_of: Mapping[PodKey, str], *, changes: tuple[Iterable[PodPath], Iterable[PodPath]]
) -> Grid:
    allowed, possible = _pair_counts(matrix, port, group_of)
    changed_cells: dict[tuple[str, str], Cell] = {}
    for cell, paths in zip((Cell.OPENED, Cell.CLOSED), changes, strict=True):
        for source, destination, changed in paths:
            if changed == port and source in group_of and destination in group_of:
                pair = group_of[source], group_of[destination]
                changed_cells[pair] = cell if changed_cells.get(pair, cell) is cell else Cell.BOTH
    names = tuple(sorted(set(group_of.values())))

    def cell_of(pair: tuple[str, str]) -> Cell:
        if not possible[pair]:
            return Cell.ITSELF
        count = allowed[pair]
        return changed_cells.get(pair) or (
            Cell.NONE if not count else Cell.ALL if count == possible[pair] else Cell.SOME
        )

    return Grid(names, tuple(tuple(cell_of((row, column)) for column in names) for row in names))


def _pair_counts(
    matrix: Matrix, port: str, group_of: Mapping[PodKey, str]
) -> tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]]:
    """(allowed, possible) pairs of different pods between two groups."""
    allowed: Counter[tuple[str, str]] = Counter()
    for source, destinations in matrix.reach[port].items():
        for group, count in Counter(map(group_of.__getitem__, destinations)).items():
            allowed[group_of[source], group] += count
    sizes = Counter(group_of.values())
    possible = Counter(
        {
            (source, destination): sizes[source] * (sizes[destination] - (source == destination))
            for source in sizes
            for destination in sizes
        }
    )
    return allowed, possible


def _list_groups(matrix: Matrix, port: str, group_of: Mapping[PodKey, str], console: Console) -> None:
    allowed, possible = _pair_counts(matrix, port, group_of)
    _line(console, "")
    _line(console, f"{port}: {len(allowed)} of {len(possible)} pairs of namespaces may connect", style="bold")
    for (source, destination), count in sorted(allowed.items())[:LISTED_PAIRS]:
        pairs = possible[source, destination]
        amount = "all" if count == pairs else f"{count} of {pairs} pairs of pods"
        _line(console, f"  {source} -> {destination}: {amount}")
    if len(allowed) > LISTED_PAIRS:
        _line(console, f"  and {len(allowed) - LISTED_PAIRS} more; --json has every pair of pods")


def _ports_by_grid(by_port: Mapping[str, Grid]) -> dict[Grid, list[str]]:
    ports_by_grid: dict[Grid, list[str]] = {}
    for port, grid in by_port.items():
        ports_by_grid.setdefault(grid, []).append(port)
    return ports_by_grid


def _draw(grid: Grid, title: str, console: Console) -> None:
    """One grid: columns have names where these fit into the console's width, else the numbers of the rows."""
    prefix = _common_namespace(grid.names)
    names = [name.removeprefix(prefix) for name in grid.names]
    corner = f"from \\ to ({prefix}...)" if prefix else "from \\ to"
    _line(console, title, style="bold")
    label = max(len(corner), *map(len, names))
    if label + sum(len(name) + 2 for name in names) <= console.width:
        widths = [len(name) + 2 for name in names]
        heads = "".join(name.rjust(width) for name, width in zip(names, widths, strict=True))
        _line(console, corner.ljust(label) + heads)
        _rows(grid, [name.ljust(label) for name in names], widths, console)
        return
    _draw_numbered(grid, names, corner, console)


def _draw_numbered(grid: Grid, names: Sequence[str], corner: str, console: Console) -> None:
    digits = len(str(len(names)))
    room = max(_SHORTEST_NAME, console.width - digits - 1 - 2 * len(names))
    label = min(room, max(len(corner), *map(len, names)))
    unicode = _supports_unicode(console)
    shown = [_shortened(name, label, unicode) for name in names]
    for place in range(digits):
        head = _shortened(corner, label + digits + 1, unicode) if place == digits - 1 else ""
        numbers = "".join(f"{str(number).rjust(digits)[place]:>2}" for number in range(1, len(names) + 1))
        _line(console, head.ljust(label + digits + 1) + numbers)
    labels = [f"{number:>{digits}} {name.ljust(label)}" for number, name in enumerate(shown, start=1)]
    _rows(grid, labels, [2] * len(names), console)
    for number, (name, short) in enumerate(zip(names, shown, strict=True), start=1):
        if name != short:
            _line(console, f"{number:>{digits}} is {name}")


def _rows(grid: Grid, labels: Sequence[str], widths: Sequence[int], console: Console) -> None:
    unicode = _supports_unicode(console)
    for label, row in zip(labels, grid.cells, strict=True):
        text = Text(label)
        for cell, width in zip(row, widths, strict=True):
            text.append(cell.character(unicode).rjust(width), cell.style)
        text.rstrip()
        console.print(text, soft_wrap=True)


def _legend(drawn_cells: Collection[Cell], console: Console) -> None:
    unicode = _supports_unicode(console)
    _line(console, "")
    for cell in Cell:
        if cell in drawn_cells and cell.meaning:
            text = Text("  ")
            text.append(cell.character(unicode), cell.style)
            text.append(f" {cell.meaning}")
            console.print(text, soft_wrap=True)


def _common_namespace(names: Sequence[str]) -> str:
    """`namespace/` when all names are pods of it, else empty."""
    namespaces = {name.partition("/")[0] for name in names if "/" in name}
    return f"{namespaces.pop()}/" if len(namespaces) == 1 and all("/" in name for name in names) else ""


def _shortened(name: str, width: int, unicode: bool) -> str:
    """`name`, with its middle left out where it is longer than `width`."""
    if len(name) <= width:
        return name
    gap = "…" if unicode else ".."
    kept = width - len(gap)
    return name[: kept - kept // 2] + gap + name[len(name) - kept // 2 :]


def _namespace(pod: PodKey) -> str:
    return pod.partition("/")[0]


def _supports_unicode(console: Console) -> bool:
    return "utf" in console.encoding.lower()


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style), soft_wrap=True)
