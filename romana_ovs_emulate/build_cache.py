"""Keeps what is built once per machine in folders of the user's cache: one build at a time, nothing half built."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from romana_ovs.model.errors import SetupError

UNUSED_SECONDS = 7 * 86400.0
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class BuildCache:
    """Finished builds of `title`, each in a folder named by its key: `$XDG_CACHE_HOME/romana-ovs/NAME/KEY`."""

    name: str
    title: str

    @property
    def folder(self) -> Path:
        """Where the builds are; it may not exist."""
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        return Path(base) / "romana-ovs" / self.name

    def find(self, key: str) -> Path | None:
        """The finished build of `key`, or None."""
        folder = self.folder / key
        return folder if folder.is_dir() else None

    def find_or_build(self, key: str, build: Callable[[Path], None], progress: Progress) -> Path:
        """The finished build of `key`; without one, `build` fills a new folder, while other processes wait.

        Raises SetupError when the cache cannot be used, and whatever `build` raises.
        """
        if (present := self.find(key)) is not None:
            return present
        with self._locked(progress):
            if (present := self.find(key)) is not None:
                return present
            target = self.folder / key
            draft = Path(tempfile.mkdtemp(prefix=".building-", dir=self.folder))
            try:
                build(draft)
                draft.chmod(0o755)
                draft.rename(target)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        return target

    def remove_unused(self, key: str) -> None:
        """Note that the build of `key` is in use, and remove those that were not for UNUSED_SECONDS."""
        os.utime(self.folder / key)
        for other in self.folder.glob("[!.]*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - other.stat().st_mtime > UNUSED_SECONDS:
                    shutil.rmtree(other, ignore_errors=True)

    @contextlib.contextmanager
    def _locked(self, progress: Progress) -> Iterator[None]:
        """Hold the lock of this cache, and remove the remains of killed builds."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file: IO[str] = (self.folder / ".lock").open("w")
        except OSError as error:
            raise SetupError(f"the folder {self.folder} cannot be used: {error.strerror}") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                progress(f"Another build of {self.title} is under way; waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            for remains in self.folder.glob(".building-*"):
                shutil.rmtree(remains, ignore_errors=True)
            yield
