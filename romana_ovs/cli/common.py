"""Reads the manifest folder of a command line, and prints warnings and JSON; shared by subcommands."""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from romana_ovs.cli.left_out import left_out_notes
from romana_ovs.cli.progress import activity
from romana_ovs.cli.unrendered import unrendered_sources
from romana_ovs.config import load_settings
from romana_ovs.kube.manifests.files import STDIN
from romana_ovs.kube.manifests.load import read_folder
from romana_ovs.kube.manifests.store import ManifestStore
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.errors import InputError, Problem, Severity


def add_folder(parser: argparse.ArgumentParser) -> None:
    """Add the arguments DIR, -R, --nodes, --state and --strict, as `args.dir`, `args.recursive` and so on."""
    parser.add_argument(
        "dir", metavar="DIR", type=Path, help="folder of Kubernetes manifests, one file of them, or - for stdin"
    )
    add_recursive(parser)
    parser.add_argument("--nodes", type=node_count, metavar="N", help="nodes when DIR has no Node (default 2)")
    parser.add_argument("--state", type=Path, metavar="FILE", help="state file with allocated numbers and addresses")
    add_strict(parser)


def add_recursive(parser: argparse.ArgumentParser) -> None:
    """Add the argument -R, as `args.recursive`."""
    parser.add_argument("-R", "--recursive", action="store_true", help="read the sub-folders of DIR, too")


def add_strict(parser: argparse.ArgumentParser) -> None:
    """Add the argument --strict, as `args.strict`."""
    parser.add_argument("--strict", action="store_true", help="exit code 1 for every problem and note (for CI)")


def node_count(text: str) -> int:
    """The number of nodes in an argument; raises argparse.ArgumentTypeError with the message for the user."""
    if not (text.isascii() and text.isdigit() and 1 <= len(text) <= 5 and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of nodes")
    return int(text)


def shown_path(path: Path) -> str:
    """The name of a folder or file for messages."""
    return "stdin" if path == STDIN else str(path)


def load(path: Path, *, nodes: int | None = None, recursive: bool = False) -> ClusterSnapshot:
    """The manifests at `path` decoded with the settings of its `romana.conf` (`cluster.settings` of the result).

    Raises InputError when nothing there can be used.
    """
    return load_into(ManifestStore(load_settings(path)), path, nodes=nodes, recursive=recursive)


def load_into(
    store: ManifestStore, path: Path, *, nodes: int | None = None, recursive: bool = False
) -> ClusterSnapshot:
    """The manifests at `path` as an edit of what `store` has, with a problem for each source that is not rendered.

    Raises InputError when nothing there can be used.
    """
    with activity(f"reading {shown_path(path)}"), gc_paused():
        try:
            loaded = store.apply(read_folder(path, store.settings, recursive=recursive), nodes=nodes)
        except InputError as error:
            raise InputError(*error.problems, *unrendered_sources(path, error.problems, recursive=recursive)) from error
        sources = unrendered_sources(path, loaded.problems, recursive=recursive)
        # Before the problems that come from not rendering them.
        return replace(loaded, problems=(*sources, *loaded.problems)) if sources else loaded


@contextmanager
def gc_paused() -> Iterator[None]:
    """Turn Python's garbage collector off meanwhile: it would search all values that are read, again and again."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def load_folder(args: argparse.Namespace) -> ClusterSnapshot:
    """The manifests in `args.dir` (of `add_folder`); each problem is printed to stderr as a warning."""
    loaded = load(args.dir, nodes=args.nodes, recursive=args.recursive)
    warn(loaded)
    return loaded


def warn(loaded: ClusterSnapshot) -> None:
    """Print the problems of manifests, the notes on them, and the kinds that have no effect, to stderr."""
    for problem in (*loaded.problems, *loaded.unsupported, *loaded.notes):
        print(f"{'note' if problem.severity is Severity.INFO else 'warning'}: {problem}", file=sys.stderr)
    if loaded.ignored:
        print(f"note: ignored kinds: {', '.join(loaded.ignored)}", file=sys.stderr)


def warn_of_left_out(*snapshots: ClusterSnapshot) -> None:
    """Print what an answer about these manifests leaves out, to stderr."""
    for note in dict.fromkeys(note for loaded in snapshots for note in left_out_notes(loaded)):
        print(f"note: {note}", file=sys.stderr)


def exit_code(code: int, *snapshots: ClusterSnapshot, strict: bool) -> int:
    """`code`; with `strict` 1 in place of 0 when anything is printed to stderr about one of `snapshots`."""
    return 1 if code == 0 and strict and any(map(_has_remarks, snapshots)) else code


def _has_remarks(loaded: ClusterSnapshot) -> bool:
    return bool(loaded.problems or loaded.unsupported or loaded.notes or loaded.ignored or left_out_notes(loaded))


def problem_row(problem: Problem) -> dict[str, object]:
    """The JSON of a problem, as `check` prints it."""
    return {
        "file": problem.file,
        "document": problem.document,
        "kind": problem.kind,
        "name": problem.name,
        "field": problem.field,
        "problem": problem.reason,
        "severity": problem.severity.value,
    }


def read_argument(name: str) -> bytes:
    """The bytes of a file, or of standard input for `-`. Raises InputError."""
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise InputError.because(f"cannot be read: {error.strerror}", file=name) from error


def print_json(value: object) -> None:
    """Print `value` in the one form that all subcommands use: keys sorted, two blanks of indent."""
    print(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False))
