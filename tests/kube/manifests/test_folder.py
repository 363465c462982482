"""Reading a folder again as far as it has changed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from romana_ovs.kube.manifests.folder import RACY_NS, FolderReader
from romana_ovs.kube.manifests.load import load
from romana_ovs.model.errors import InputError
from romana_ovs.model.settings import Settings
from tests.support.manifests import join, pod


def write(path: Path, text: str, *, age: float = 10) -> None:
    """Write a file that was last changed `age` seconds ago, as far as its modification time tells."""
    path.write_text(text)
    os.utime(path, (time.time() - age,) * 2)


def test_manifests_and_what_is_none(tmp_path: Path) -> None:
    for name in (
        "b.yml",
        "a.yaml",
        "c.json",
        ".hidden.yaml",
        "#a.yaml",
        "a.yaml~",
        "a.yaml.swp",
        "notes.txt",
        "~b.yml",
    ):
        (tmp_path / name).write_text("{}" if name.endswith("json") else "")
    (tmp_path / "sub.yaml").mkdir()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "d.yaml").write_text(pod("d"))
    content = FolderReader(tmp_path, Settings()).read()
    assert [file.name for file in content.files] == ["a.yaml", "b.yml", "c.json"]
    assert content.folder == str(tmp_path)


def test_only_changed_files_are_decoded_again(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", pod("a"))
    write(tmp_path / "b.yaml", pod("b"))
    reader = FolderReader(tmp_path, Settings())
    first = reader.read()
    write(tmp_path / "b.yaml", pod("c"), age=5)
    second = reader.read()
    assert second.files[0] is first.files[0]
    assert second.files[1] is not first.files[1]
    assert second.files[1].objects[0].location.name == "c"
    write(tmp_path / "b.yaml", pod("c"), age=3)
    assert reader.read() == second


def test_a_change_within_one_tick_of_the_clock_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    reader = FolderReader(tmp_path, Settings())
    for name in "abcdefghij":
        with path.open("w") as file:  # In place, the same size, faster than file times can tell.
            file.write(pod(name))
        assert reader.read().files[0].objects[0].location.name == name
    assert RACY_NS > 10_000_000  # The kernel's clock tick is at most 10 ms.


def test_files_come_and_go(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", pod("a"))
    reader = FolderReader(tmp_path, Settings())
    assert len(reader.read().files) == 1
    (tmp_path / "a.yaml").unlink()
    assert reader.read().files == ()


def test_links(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    write(outside, pod("a"))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.yaml").symlink_to(outside)
    (folder / "b.yaml").symlink_to(tmp_path / "nowhere")
    content = FolderReader(folder, Settings()).read()
    assert content.files[0].objects[0].location.name == "a"
    assert content.files[1].readable is False
    assert [str(problem) for problem in content.files[1].problems] == ["b.yaml: is a link to nothing"]


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.yaml")
    (file,) = FolderReader(tmp_path, Settings()).read().files
    assert (file.readable, file.problems[0].reason) == (False, "is not a regular file")


def test_a_single_file_may_stand_for_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "cluster"
    path.write_text(pod("a"))
    assert list(load(path, Settings()).cluster.pods) == ["default/a"]


def test_byte_order_marks_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbf" + pod("a").encode())
    (tmp_path / "b.json").write_bytes(
        b'\xef\xbb\xbf{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "b"}}'
    )
    found = load(tmp_path, Settings())
    assert found.problems == ()
    assert set(found.cluster.namespaces) == {"default", "b"}


def test_nothing_to_load_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no Kubernetes objects"):
        load(tmp_path, Settings())
    with pytest.raises(InputError, match="No such file"):
        load(tmp_path / "missing", Settings())
    (tmp_path / "a.yaml").write_text("# only a comment\n")
    with pytest.raises(InputError, match="holds no Kubernetes objects"):
        load(tmp_path, Settings())
    (tmp_path / "a.yaml").write_text("apiVersion: v1\nkind: ConfigMap\n")
    assert load(tmp_path, Settings()).ignored == ("ConfigMap",)


def test_ten_thousand_pods_load_in_seconds_and_fifty_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(join(*(pod(f"p{number}", f"{{app: a{number % 7}}}") for number in range(50))))
    started = time.process_time()
    assert len(load(tmp_path, Settings()).cluster.pods) == 50
    assert time.process_time() - started < 0.1
    path.write_text(join(*(pod(f"p{number}", f"{{app: a{number % 7}}}") for number in range(10_000))))
    started = time.process_time()
    assert len(load(tmp_path, Settings()).cluster.pods) == 10_000
    assert time.process_time() - started < 4
