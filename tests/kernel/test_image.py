"""An image is another one when what it is built from is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tests.kernel.image import LOCKS, image_key
from tests.kernel.packages import Packages

PACKAGES = Packages("bookworm", ("deb http://mirror/debian bookworm main",), "linux-image-6.1.0-57-amd64", ("curl 7",))


def checkout_in(folder: Path) -> Path:
    for name in LOCKS:
        (folder / name).write_text("one==1\n")
    return folder


def test_the_key_names_suite_and_kernel(tmp_path: Path) -> None:
    key = image_key(PACKAGES, checkout_in(tmp_path))
    assert key.startswith("bookworm-6.1.0-57-amd64-")
    assert key == image_key(PACKAGES, tmp_path)


def test_a_newer_package_is_another_image(tmp_path: Path) -> None:
    newer = dataclasses.replace(PACKAGES, versions=("curl 8",))
    assert image_key(newer, checkout_in(tmp_path)) != image_key(PACKAGES, tmp_path)


def test_another_python_package_is_another_image(tmp_path: Path) -> None:
    before = image_key(PACKAGES, checkout_in(tmp_path))
    (tmp_path / LOCKS[0]).write_text("one==2\n")
    assert image_key(PACKAGES, tmp_path) != before


def test_another_mirror_is_the_same_image(tmp_path: Path) -> None:
    elsewhere = dataclasses.replace(PACKAGES, sources=("deb http://nearer/debian bookworm main",))
    assert image_key(elsewhere, checkout_in(tmp_path)) == image_key(PACKAGES, tmp_path)
