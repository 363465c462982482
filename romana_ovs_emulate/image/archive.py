"""Writes layers, and images made of them, as archives that `docker load` and `ctr images import` take.

Source: the Docker Image Specification v1.2, and its "Combined Image JSON + Filesystem Changeset Format"; layers may be
compressed there, and are identified by the digest of what they hold. The same content gives the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

CHUNK = 1 << 20
COMPRESSION = 6
_EPOCH = "1970-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Layer:
    """A compressed layer: its file, and the digest of its content as `sha256:...`."""

    path: Path
    diff_id: str

    @classmethod
    def in_folder(cls, folder: Path) -> Layer:
        """The layer that `write_layer` has written there."""
        return cls(folder / "layer.tar.gz", (folder / "diff-id").read_text().strip())


class _HashingWriter:
    """Writes to `target`, and computes the digest of what is written."""

    def __init__(self, target: gzip.GzipFile) -> None:
        self._target = target
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        """As of a file."""
        self.digest.update(data)
        return self._target.write(data)


def write_layer(folder: Path, write: Callable[[IO[bytes]], None]) -> Layer:
    """Make a layer in `folder` of the uncompressed archive that `write` writes."""
    with (
        (folder / "layer.tar.gz").open("wb") as file,
        gzip.GzipFile(fileobj=file, mode="wb", compresslevel=COMPRESSION, mtime=0, filename="") as compressed,
    ):
        writer = _HashingWriter(compressed)
        write(writer)  # type: ignore[arg-type]  # All that tarfile needs is `write`.
    (folder / "diff-id").write_text(f"sha256:{writer.digest.hexdigest()}\n")
    return Layer.in_folder(folder)


def copy_archive(path: Path) -> Callable[[IO[bytes]], None]:
    """What writes the archive at `path` for `write_layer`."""

    def write(target: IO[bytes]) -> None:
        with path.open("rb") as source:
            shutil.copyfileobj(source, target, CHUNK)

    return write


def archive_folder(root: Path) -> Callable[[IO[bytes]], None]:
    """What writes everything below `root` for `write_layer`: in sorted order, of root, without times."""

    def write(target: IO[bytes]) -> None:
        with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            for path in sorted(root.rglob("*")):
                archive.add(path, str(path.relative_to(root)), recursive=False, filter=_anonymous)

    return write


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mtime = 0
    member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    return member


def write_image(target: Path, name: str, layers: Sequence[Layer], config: Mapping[str, object]) -> str:
    """Write an image of `layers`, from the lowest up, to the file `target`; returns its id, `sha256:...`.

    `name` is `NAME:TAG`, `config` how its containers run (Docker's `config` object).
    """
    text = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": _EPOCH,
            "config": dict(config),
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        }
    ).encode()
    digest = hashlib.sha256(text).hexdigest()
    files = {layer.diff_id.removeprefix("sha256:") + ".tar.gz": layer.path for layer in layers}
    manifest = json.dumps([{"Config": f"{digest}.json", "RepoTags": [name], "Layers": list(files)}]).encode()
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
        for member, data in ((f"{digest}.json", text), ("manifest.json", manifest)):
            _add(archive, member, len(data), io.BytesIO(data))
        for member, path in files.items():
            with path.open("rb") as file:
                _add(archive, member, path.stat().st_size, file)
    return f"sha256:{digest}"


def _add(archive: tarfile.TarFile, name: str, size: int, content: IO[bytes]) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    archive.addfile(member, content)


def names_in(path: Path) -> Iterable[str]:
    """The names of an image file's images, as `NAME:TAG`."""
    with tarfile.open(path) as archive:
        manifest = archive.extractfile("manifest.json")
        return [name for image in json.load(manifest or io.BytesIO(b"[]")) for name in image["RepoTags"]]
