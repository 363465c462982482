"""Which files of a folder are read, what is passed by, and what is read from pipes."""

from __future__ import annotations

import io
import os
import sys
import threading
from pathlib import Path

import pytest

from romana_ovs.kube.manifests.files import STDIN, list_files, passed_by
from romana_ovs.kube.manifests.folder import FolderReader
from romana_ovs.kube.manifests.load import load
from romana_ovs.kube.manifests.store import ManifestStore
from romana_ovs.model.errors import InputError, Severity
from romana_ovs.model.settings import Settings
from romana_ovs_emulate.cli.measured import EmulationState, Unmeasured, unmeasured
from tests.support.manifests import pod


def tree(folder: Path, *names: str) -> Path:
    """A folder with a pod in each of the named files."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(pod(name.replace("/", "-").replace(".", "-").lower()))
    return folder


def names(folder: Path, *, recursive: bool) -> list[str]:
    return [file.name for file in list_files(folder, recursive=recursive)]


def notes(folder: Path, *, recursive: bool = False) -> dict[str, str]:
    return {note.file: note.reason for note in passed_by(folder, recursive=recursive)}


def test_sub_folders_are_read_when_asked_for(tmp_path: Path) -> None:
    tree(tmp_path, "b.yaml", "a/c.yaml", "a/d/e.json", "f/g.txt", ".git/h.yaml", "a/.i.yaml")
    assert names(tmp_path, recursive=False) == ["b.yaml"]
    assert names(tmp_path, recursive=True) == ["a/c.yaml", "a/d/e.json", "b.yaml"]
    assert notes(tmp_path) == {
        ".git": "is a hidden folder with 1 manifest, which are not read",
        "a": "is a sub-folder with 2 manifests, which are not read without -R",
    }
    assert set(notes(tmp_path, recursive=True)) == {".git", "a/.i.yaml"}
    assert sorted(load(tmp_path, Settings(), recursive=True).cluster.pods) == [
        "default/a-c-yaml",
        "default/a-d-e-json",
        "default/b-yaml",
    ]


def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    outside = tree(tmp_path / "outside", "a.yaml")
    folder = tree(tmp_path / "folder", "b.yaml")
    (folder / "link").symlink_to(outside)
    (folder / "circle").symlink_to(folder)
    (folder / "link.yaml").symlink_to(outside)
    assert names(folder, recursive=True) == ["b.yaml"]
    assert all(reason.startswith("is a link to a folder") for reason in notes(folder, recursive=True).values())
    assert set(notes(folder)) == {"link", "circle", "link.yaml"}
    (tmp_path / "all").symlink_to(folder)
    assert names(tmp_path / "all", recursive=False) == ["b.yaml"]


def test_names_that_look_like_manifests(tmp_path: Path) -> None:
    tree(tmp_path, "a.yaml", "b.yaml.bak", "C.YML", ".d.json", "~e.yaml", "#f.yaml#", "g.yaml~", ".h.yaml.swp", "i.rst")
    (tmp_path / "..data").mkdir()
    assert names(tmp_path, recursive=False) == ["a.yaml"]
    assert set(notes(tmp_path)) == {"b.yaml.bak", "C.YML", ".d.json", "~e.yaml"}


def test_one_file_may_have_any_name(tmp_path: Path) -> None:
    tree(tmp_path, "b.yaml.bak")
    assert names(tmp_path / "b.yaml.bak", recursive=False) == ["b.yaml.bak"]
    assert notes(tmp_path / "b.yaml.bak") == {}
    with pytest.raises(InputError, match="No such file"):
        list_files(tmp_path / "missing", recursive=False)


def refuse_to_list(monkeypatch: pytest.MonkeyPatch, folder: str, error: OSError) -> None:
    """Let every folder of this name fail to be listed."""
    scandir = os.scandir

    def scan(path: Path) -> object:
        if Path(path).name == folder:
            raise error
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)


def test_a_folder_that_cannot_be_listed_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, "a.yaml", "secret/b.yaml", "z.yaml")
    refuse_to_list(monkeypatch, "secret", PermissionError(13, "Permission denied"))
    assert names(tmp_path, recursive=True) == ["a.yaml", "secret", "z.yaml"]
    found = load(tmp_path, Settings(), recursive=True)
    assert [str(problem) for problem in found.problems] == ["secret: cannot be read: Permission denied"]
    assert found.problems[0].severity is Severity.ERROR
    assert found.notes == ()
    assert list(unmeasured(found, [], [], EmulationState([], {}, []))) == [
        Unmeasured("", "secret", "cannot be read: Permission denied")
    ]
    assert names(tmp_path, recursive=False) == ["a.yaml", "z.yaml"]
    assert load(tmp_path, Settings()).problems == ()


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
def test_what_is_below_a_folder_that_cannot_be_listed_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    deep = "ü" * 60
    tree(tmp_path, "a.yaml", "secret/b.yaml", "secret.yaml")
    (tmp_path / "secret" / deep).mkdir()
    (tmp_path / "secret" / deep / "c.yaml").write_text(pod("c"))
    reader, store = FolderReader(tmp_path, Settings(), recursive=True), ManifestStore(Settings())
    before = store.apply(reader.read())
    (tmp_path / "secret.yaml").unlink()
    for folder in ("secret", deep):
        with monkeypatch.context() as patch:
            refuse_to_list(patch, folder, error)
            after = store.apply(reader.read())
        assert sorted(after.cluster.pods) == sorted(set(before.cluster.pods) - {"default/secret-yaml"}), folder
        assert len(after.problems) == 1
    assert len(after.kept) == 1
    assert store.apply(reader.read()).problems == ()


def test_a_sub_folder_that_is_gone_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, "a.yaml", "b/c.yaml")
    reader, store = FolderReader(tmp_path, Settings(), recursive=True), ManifestStore(Settings())
    store.apply(reader.read())
    refuse_to_list(monkeypatch, "b", FileNotFoundError(2, "No such file or directory"))
    after = store.apply(reader.read())
    assert (list(after.cluster.pods), after.problems) == (["default/a-yaml"], ())


def test_a_link_to_itself_is_a_problem(tmp_path: Path) -> None:
    tree(tmp_path, "a.yaml")
    for name in ("b.yaml", "c.yaml.bak"):
        (tmp_path / name).symlink_to(name)
    found = load(tmp_path, Settings())
    assert [str(problem) for problem in found.problems] == ["b.yaml: cannot be read: Too many levels of symbolic links"]
    assert [note.file for note in found.notes] == ["c.yaml.bak"]


def test_standard_input_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(pod("a").encode("utf-16"))))
    reader = FolderReader(STDIN, Settings())
    first = reader.read()
    assert [item.location.file for item in first.files[0].objects] == ["stdin"]
    assert reader.read() == first
    assert passed_by(STDIN, recursive=True) == ()


def test_a_pipe_that_is_named_is_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text(pod("a")))
    writer.start()
    reader = FolderReader(pipe, Settings())
    first = reader.read()
    writer.join()
    assert [item.location.name for item in first.files[0].objects] == ["a"]
    assert reader.read() == first


def test_manifests_are_kept_for_comparison_only(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(pod("x"))
    os.utime(tmp_path / "a.yaml", (1, 1))
    reader = FolderReader(tmp_path, Settings())
    assert [dict(item.source) for file in reader.read().files for item in file.objects] == [{}]
    (tmp_path / "b.yaml").write_text(pod("x"))
    both = reader.read()
    assert all(item.source["kind"] == "Pod" for file in both.files for item in file.objects)
    (tmp_path / "b.yaml").unlink()
    assert [dict(item.source) for file in reader.read().files for item in file.objects] == [{}]
