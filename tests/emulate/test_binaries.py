"""The programs of Kubernetes: found where they are, built once by one build at a time, or asked for in a sentence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from romana_ovs.model.errors import SetupError
from romana_ovs_emulate import binaries

GO = """#!{python}
import os, signal, sys, time
folder = sys.argv[sys.argv.index("-o") + 1]
with open(os.environ["GO_CALLS"], "a") as calls:
    calls.write("call\\n")
print("k8s.io/some/package", file=sys.stderr, flush=True)
if os.environ.get("GO_HANGS"):
    signal.pause()
if os.environ.get("GO_FAILS"):
    sys.exit("go: no network")
for package in (word for word in sys.argv if "/cmd/" in word or word.endswith("/server/v3")):
    name = package.removesuffix("/v3").rpartition("/")[2]
    with open(os.path.join(folder, name), "w") as file:
        file.write("#!/bin/sh\\n")
    os.chmod(file.name, 0o755)
"""


def program(folder: Path, name: str, text: str = "#!/bin/sh\n") -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which a Go that builds at once counts its calls; there is nothing else in this world."""
    program(tmp_path / "bin", "go", GO.format(python=sys.executable))
    counted = tmp_path / "calls"
    counted.touch()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GO_CALLS", str(counted))
    monkeypatch.delenv(binaries.ASSETS, raising=False)
    monkeypatch.delenv("CI", raising=False)
    return counted


def test_they_are_built_once(calls: Path) -> None:
    said: list[str] = []
    assert binaries.find() is None
    built = binaries.find_or_build(said.append)
    assert [path.name for path in sorted(built.folder.iterdir())] == sorted(binaries.PACKAGES)
    assert all(built.path(name).is_file() for name in binaries.PACKAGES)
    assert binaries.find() == binaries.find_or_build(said.append) == built
    assert calls.read_text() == "call\n"
    assert len(said) == 1


def test_two_builds_at_once_are_one(calls: Path) -> None:
    threads = [threading.Thread(target=binaries.find_or_build, args=(lambda text: None,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert binaries.find() is not None
    assert calls.read_text() == "call\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_build_leaves_nothing(calls: Path, tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "romana_ovs_emulate.binaries"]
    process = subprocess.Popen(
        command, env={**os.environ, "GO_HANGS": "1"}, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("Building Kubernetes")
    while not calls.read_text():
        pass
    os.killpg(process.pid, number)
    process.communicate(timeout=30)
    assert process.returncode in (130, -signal.SIGKILL)
    assert binaries.find() is None
    built = binaries.find_or_build(lambda text: None)
    cache = tmp_path / "cache" / "romana-ovs" / "kubernetes"
    assert {path.name for path in cache.iterdir()} == {".lock", built.folder.name}


def test_errors_of_go_are_reported(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GO_FAILS", "1")
    with pytest.raises(SetupError, match="cannot be built with Go: k8s.io/some/package; go: no network"):
        binaries.find_or_build(lambda text: None)
    assert binaries.find() is None


def test_without_go_an_error_says_what_to_do(
    calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bin" / "go").unlink()
    with pytest.raises(SetupError, match="a Kubernetes control plane needs .* install Go .* or set KUBEBUILDER_ASSETS"):
        binaries.find_or_build(lambda text: None)
    assert binaries.main() == 0
    assert "will be skipped: that needs the programs of Kubernetes: install Go" in capsys.readouterr().out
    monkeypatch.setenv("CI", "1")
    assert binaries.main() == 2


def test_a_folder_of_envtest_is_used_as_it_is(calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assets = tmp_path / "assets"
    for name in ("etcd", "kube-apiserver"):
        program(assets, name)
    monkeypatch.setenv(binaries.ASSETS, str(assets))
    with pytest.raises(SetupError, match="there is no kubectl in it"):
        binaries.find()
    program(assets, "kubectl")
    found = binaries.find_or_build(lambda text: None)
    assert found.path("kube-apiserver") == assets / "kube-apiserver"
    with pytest.raises(SetupError, match="has no kube-scheduler: put it there, or unset KUBEBUILDER_ASSETS"):
        found.path("kube-scheduler")
    assert calls.read_text() == ""
