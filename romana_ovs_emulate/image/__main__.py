"""Builds the image (`make image`), and prints its file, name, size, and how to import it."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from romana_ovs.model.errors import SetupError
from romana_ovs_emulate.image.build import Image, find_or_build


def main(words: list[str] | None = None) -> int:
    """Returns exit code 0, or 2 when the image cannot be built or written."""
    parser = argparse.ArgumentParser(prog="python -m romana_ovs_emulate.image", description=__doc__)
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write it there")
    arguments = parser.parse_args(words)
    try:
        image = find_or_build(lambda text: print(text, file=sys.stderr, flush=True))
        if arguments.output is not None:
            image = Image(_copy(image.path, arguments.output), image.name)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(description(image))
    return 0


def description(image: Image) -> str:
    """Where the image is, and what to do with it."""
    return (
        f"image   {image.name}\n"
        f"file    {image.path}\n"
        f"size    {image.size / 1e6:.0f} MB\n"
        f"import  ctr -n k8s.io images import {image.path}      (on each node, with containerd)\n"
        f"        docker load -i {image.path}                   (to push it to your registry)"
    )


def _copy(source: Path, target: Path) -> Path:
    """Put the file at `target` in one step. Raises SetupError."""
    draft = target.with_name(f".{target.name}-{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, draft)
        draft.rename(target)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise SetupError(f"{target} cannot be written: {error.strerror}") from error
    return target.absolute()


if __name__ == "__main__":
    sys.exit(main())
