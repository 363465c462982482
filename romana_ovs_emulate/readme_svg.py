"""Renders the README's picture: the demonstration's matrix after its policy, as a terminal shows it (SVG)."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from romana_ovs.cli.drawing import draw_matrix
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.connection import PortRef
from romana_ovs.policy.matrix import difference, reachability

WIDTH = 66
"""The columns of the drawn terminal."""
HEIGHT = 25
"""Its lines. With both set, Rich does not use the size of a real terminal; the picture has only the lines it needs."""
PORTS = ("80/tcp", "81/tcp", "80/udp")

_FRAME = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">
<style>
.{unique_id}-matrix {{ font-family: monospace; font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def picture(before: Cluster, after: Cluster, out: Path | None = None) -> str:
    """The matrix of `after` with what opened and closed since `before`, as an SVG; written to `out` if given."""
    ports = [PortRef.parse(text) for text in PORTS]
    first, second = (reachability(cluster, {}, ports) for cluster in (before, after))
    opened, closed = difference(first, second)
    console = Console(
        file=io.StringIO(),
        record=True,
        force_terminal=True,
        width=WIDTH,
        height=HEIGHT,
        color_system="truecolor",
        no_color=False,
        legacy_windows=False,
    )
    draw_matrix(second, console=console, opened=opened, closed=closed)
    console.print()  # Rich forgets the clipping of the last line.
    text = console.export_svg(title="romana-ovs demo, step (c)", code_format=_FRAME, unique_id="matrix")
    if out is not None:
        out.write_text(text, encoding="utf-8")
    return text
