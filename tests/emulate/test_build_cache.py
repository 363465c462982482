"""What was not used for a week goes; two builds at once and killed ones are in test_binaries.py."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from romana_ovs_emulate.build_cache import UNUSED_SECONDS, BuildCache


def test_what_is_not_used_for_long_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = BuildCache("things", "things")
    for key in ("old", "recent", "mine"):
        cache.find_or_build(key, lambda folder: (folder / "file").touch(), lambda text: None)
    long_ago = time.time() - UNUSED_SECONDS - 60
    for key in ("old", "mine"):
        os.utime(cache.folder / key, (long_ago, long_ago))
    cache.remove_unused("mine")
    assert cache.find("old") is None
    assert cache.find("recent") is not None
    mine = cache.find("mine")
    assert mine is not None
    assert time.time() - mine.stat().st_mtime < 60
