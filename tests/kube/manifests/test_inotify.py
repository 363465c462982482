"""A folder's changes are told, whatever an editor does, and read when they are over.

The kernel queues an event before the call that caused it returns (inotify(7)): what `drain` does not tell right after
a change, nothing will.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from romana_ovs.kube.manifests.folder import FolderReader
from romana_ovs.kube.manifests.inotify import PATIENCE, FolderWatch
from romana_ovs.model.settings import Settings
from tests.support.manifests import pod

SOON = 5.0
"""Seconds within which an event comes on any machine."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one manifest, below a folder that nothing else writes to."""
    found = tmp_path / "manifests"
    found.mkdir()
    (found / "a.yaml").write_text(pod("a"))
    return found


@pytest.fixture
def watch(folder: Path) -> Iterator[FolderWatch]:
    with FolderWatch(folder) as found:
        yield found


def rename_over(folder: Path) -> None:
    (folder / ".a.yaml.swp").write_text(pod("b"))
    os.replace(folder / ".a.yaml.swp", folder / "a.yaml")


def rename_offload(folder: Path) -> None:
    os.rename(folder / "a.yaml", folder / "a.yaml~")
    (folder / "a.yaml").write_text(pod("b"))


def delete_and_create(folder: Path) -> None:
    (folder / "a.yaml").unlink()
    (folder / "a.yaml").write_text(pod("b"))


def in_place(folder: Path) -> None:
    (folder / "a.yaml").write_text(pod("b"))


def replace_the_folder(folder: Path) -> None:
    other = folder.with_name("other")
    other.mkdir()
    (other / "a.yaml").write_text(pod("b"))
    os.rename(folder, folder.with_name("old"))
    os.rename(other, folder)


def remove_and_make_the_folder(folder: Path) -> None:
    (folder / "a.yaml").unlink()
    folder.rmdir()
    folder.mkdir()
    (folder / "a.yaml").write_text(pod("b"))


EDITORS = [rename_over, rename_offload, delete_and_create, in_place, replace_the_folder, remove_and_make_the_folder]


@pytest.mark.parametrize("edit", EDITORS)
def test_every_way_of_editing_is_seen_and_so_is_the_next_edit(
    folder: Path, watch: FolderWatch, edit: Callable[[Path], None]
) -> None:
    reader = FolderReader(folder, Settings())
    assert not watch.drain()
    edit(folder)
    assert watch.wait(SOON)
    assert [item.location.name for item in watch.settled(reader.read).files[0].objects] == ["b"]
    assert not watch.drain()
    (folder / "c.yaml").write_text(pod("c"))
    assert watch.wait(SOON)
    assert [file.name for file in watch.settled(reader.read).files] == ["a.yaml", "c.yaml"]


def test_files_that_are_no_manifests_are_ignored(folder: Path, watch: FolderWatch) -> None:
    (folder / ".a.yaml.swp").write_text("x")
    (folder / "notes.txt").write_text("x")
    (folder.parent / "elsewhere.yaml").write_text("x")
    assert not watch.drain()


def test_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    with FolderWatch(tmp_path / "later") as watch:
        assert not watch.drain()
        (tmp_path / "later").mkdir()
        assert watch.wait(SOON)
        (tmp_path / "later" / "a.yaml").write_text(pod("a"))
        assert watch.wait(SOON)


def test_a_link_to_a_file_outside(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside" / "target"
    outside.parent.mkdir()
    outside.write_text(pod("x"))
    (folder / "l.yaml").symlink_to(outside)
    with FolderWatch(folder) as watch:
        outside.write_text(pod("y"))
        assert watch.wait(SOON)
        (outside.parent / "another").write_text("")
        assert not watch.drain()


def test_a_mounted_config_map(tmp_path: Path) -> None:
    """The kubelet swaps one hidden link; the links to the files stay."""
    folder = tmp_path / "mount"
    for version in ("..one", "..two"):
        (folder / version).mkdir(parents=True)
        (folder / version / "a.yaml").write_text(pod(version.strip(".")))
    (folder / "..data").symlink_to("..one")
    (folder / "a.yaml").symlink_to("..data/a.yaml")
    reader = FolderReader(folder, Settings())
    with FolderWatch(folder) as watch:
        assert reader.read().files[0].objects[0].location.name == "one"
        (folder / "..tmp").symlink_to("..two")
        os.replace(folder / "..tmp", folder / "..data")
        assert watch.wait(SOON)
        assert watch.settled(reader.read).files[0].objects[0].location.name == "two"


def test_a_file_written_in_steps_is_read_when_it_is_closed(folder: Path, watch: FolderWatch) -> None:
    reader = FolderReader(folder, Settings())
    opened = threading.Event()
    proceed = threading.Event()

    def write_slowly() -> None:
        with (folder / "a.yaml").open("w") as file:
            file.write(pod("first"))
            file.flush()
            opened.set()
            proceed.wait(SOON)
            file.write("---\n" + pod("second"))

    writer = threading.Thread(target=write_slowly)
    writer.start()
    assert opened.wait(SOON)
    assert watch.wait(SOON)
    # That the reader waits by now cannot be seen from here; if it does not yet, it has less to wait for.
    threading.Timer(0.1, proceed.set).start()
    content = watch.settled(reader.read)
    writer.join()
    assert [item.location.name for item in content.files[0].objects] == ["first", "second"]


@pytest.mark.alone
def test_a_writer_that_never_ends_is_not_waited_for_for_ever(folder: Path, watch: FolderWatch) -> None:
    reader = FolderReader(folder, Settings())
    with (folder / "a.yaml").open("w") as file:
        file.write(pod("first"))
        file.flush()
        assert watch.wait(SOON)
        started = time.monotonic()
        content = watch.settled(reader.read)
        assert time.monotonic() - started < PATIENCE + SOON
    assert [item.location.name for item in content.files[0].objects] == ["first"]


def test_sub_folders_are_watched_when_asked_for(folder: Path) -> None:
    (folder / "a.yaml").unlink()
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / ".git").mkdir()
    reader = FolderReader(folder, Settings(), recursive=True)
    with FolderWatch(folder) as plain, FolderWatch(folder, recursive=True) as watch:

        def files() -> list[str]:
            return [file.name for file in watch.settled(reader.read).files]

        (folder / "sub" / "deep" / "a.yaml").write_text(pod("a"))
        assert watch.wait(SOON)
        assert files() == ["sub/deep/a.yaml"]
        (folder / "sub" / "new" / "newer").mkdir(parents=True)
        (folder / "sub" / "new" / "newer" / "b.yaml").write_text(pod("b"))
        assert watch.wait(SOON)
        assert files() == ["sub/deep/a.yaml", "sub/new/newer/b.yaml"]
        (folder / "sub" / "new" / "newer" / "b.yaml").write_text(pod("c"))
        assert watch.wait(SOON)
        assert reader.read().files[1].objects[0].location.name == "c"
        (folder / "sub" / "new").chmod(0o700)
        assert watch.drain(), "it may be that its files can be read only now"
        (folder / "sub" / "new").rename(folder / "sub" / "renamed")
        assert watch.wait(SOON)
        assert files() == ["sub/deep/a.yaml", "sub/renamed/newer/b.yaml"]
        (folder / "sub" / "renamed").rename(folder.parent / "elsewhere")
        assert watch.wait(SOON)
        assert files() == ["sub/deep/a.yaml"]
        (folder.parent / "elsewhere" / "newer" / "b.yaml").write_text(pod("d"))
        (folder / ".git" / "c.yaml").write_text(pod("d"))
        assert not watch.wait(0.1)
        assert not plain.drain()


def test_closing_gives_the_descriptor_back(folder: Path) -> None:
    watch = FolderWatch(folder)
    number = watch.fileno()
    watch.close()
    watch.close()
    with pytest.raises(OSError):
        os.fstat(number)


GREEN = """
import eventlet
eventlet.monkey_patch()
import sys
from pathlib import Path
from romana_ovs.kube.manifests.inotify import FolderWatch
folder = Path(sys.argv[1])
told = []
with FolderWatch(folder) as watch:
    assert not watch.drain()
    eventlet.spawn_after(0.05, lambda: (told.append("other"), (folder / "b.yaml").write_text("{}")))
    assert watch.wait(5)
    assert told == ["other"], "the green thread ran while we waited"
    assert not watch.drain() or not watch.drain()
print("fine")
"""


def test_in_a_process_that_eventlet_has_patched(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", GREEN, str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout.strip(), done.returncode) == ("fine", 0), done.stderr
