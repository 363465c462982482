"""Shows on a terminal what a long command is doing, and the elapsed time."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

SHOW_AFTER_SECONDS = 0.5
"""Shorter steps show nothing and do not import Rich, in seconds."""


@contextmanager
def activity(describe: str | Callable[[], str]) -> Iterator[None]:
    """Show a line with this text, a spinner and the elapsed time while the context lasts, then remove it.

    A function is called again at each refresh, from another thread. Nothing is shown unless standard error is a
    terminal.
    """
    if not sys.stderr.isatty():
        yield
        return
    line = _Line(describe if callable(describe) else lambda: describe)
    timer = threading.Timer(SHOW_AFTER_SECONDS, line.show)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        line.remove()


class _Line:
    """The line of one activity."""

    def __init__(self, describe: Callable[[], str]) -> None:
        self._describe = describe
        self._lock = threading.Lock()
        self._removed = False
        self._progress: Progress | None = None

    def show(self) -> None:
        """Show the line, unless it was removed already."""
        # Imported here: quick commands need not wait for it.
        from rich.console import Console
        from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TimeElapsedColumn
        from rich.text import Text

        describe = self._describe

        class Description(ProgressColumn):
            """The text of the activity."""

            def render(self, task: Task) -> Text:
                """The current text."""
                return Text(describe())

        with self._lock:
            if not self._removed:
                console = Console(stderr=True)
                columns = (SpinnerColumn(), Description(), TimeElapsedColumn())
                # Standard output must not be redirected: it carries the result.
                self._progress = Progress(*columns, console=console, transient=True, redirect_stdout=False)
                self._progress.add_task("", total=None)
                self._progress.start()

    def remove(self) -> None:
        """Remove the line. Idempotent."""
        with self._lock:
            self._removed = True
            if self._progress is not None:
                self._progress.stop()
