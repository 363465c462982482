"""Makes container images without Docker or a registry: archives as `docker save` writes them, for `ctr images import`.

Source: https://github.com/moby/docker-image-spec/blob/main/spec.md (one layer, uncompressed)
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import re
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from romana_ovs.model.errors import SetupError
from romana_ovs_emulate.system import run

PAUSE = "registry.k8s.io/pause:romana-ovs"
"""What holds the namespaces of a pod: here a program that sleeps."""
BUSYBOX = "docker.io/library/busybox:stable"
"""Debian's busybox: shell, wget, ping, nc, and its httpd."""
AGNHOST_REPOSITORY = "registry.k8s.io/e2e-test-images/agnhost"
"""The image of Kubernetes' own tests; its tag is the program's version, as those tests ask for it."""
FOLDERS = ("bin", "dev", "etc", "proc", "root", "sys", "tmp", "var", "var/run", "www")
PAGE = b"ok\n"
"""What a busybox's httpd serves from /www."""
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_USERS = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"


@dataclass(frozen=True, slots=True)
class Image:
    """One image: its files as bytes or paths of this machine, links, and what it runs."""

    name: str
    files: Mapping[str, bytes | Path] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    entrypoint: Sequence[str] = ()
    command: Sequence[str] = ()


def write_images(folder: Path, agnhost: Path) -> list[Path]:
    """Write the archives of the images of this module into the folder. Raises SetupError."""
    box, links = _busybox()
    plain: dict[str, bytes | Path] = {"bin/busybox": box, "etc/passwd": _USERS, "www/index.html": PAGE}
    libraries = {str(path).lstrip("/"): path for path in _libraries(agnhost)}
    images = {
        "pause": Image(PAUSE, plain, links, command=("sleep", "1000000000")),
        "busybox": Image(BUSYBOX, plain, links, command=("sh",)),
        "agnhost": Image(
            agnhost_name(agnhost), {**plain, "agnhost": agnhost, **libraries}, links, ("/agnhost",), ("pause",)
        ),
    }
    folder.mkdir(exist_ok=True)
    return [_write(folder / f"{name}.tar", image) for name, image in images.items()]


def agnhost_name(agnhost: Path) -> str:
    """The name of the image of this agnhost. Raises SetupError."""
    output = run([str(agnhost), "--version"])
    match = re.search(r"\d+\.\d+(\.\d+)?", output)
    if match is None:
        raise SetupError(f"{agnhost} has no version: {output.strip()}")
    return f"{AGNHOST_REPOSITORY}:{match[0]}"


def _busybox() -> tuple[Path, dict[str, str]]:
    """The program, and links to it by the names of its commands. Raises SetupError."""
    program = shutil.which("busybox")
    if program is None:
        raise SetupError("the program busybox is missing: install busybox-static")
    names = run([program, "--list"]).split()
    return Path(program), {f"bin/{name}": "busybox" for name in names if name != "busybox"}


def _libraries(program: Path) -> list[Path]:
    """The shared libraries of a program; none when it is static."""
    return [
        Path(name) for name in re.findall(r"(/\S+\.so\S*) \(0x", run(["sh", "-c", 'ldd "$0" || true', str(program)]))
    ]


def _write(path: Path, image: Image) -> Path:
    layer = _layer(image)
    config = json.dumps(
        {
            "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {
                "Entrypoint": list(image.entrypoint) or None,
                "Cmd": list(image.command),
                "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [image.name], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(path, "w") as archive:
        for name, data in ((config_name, config), ("layer.tar", layer), ("manifest.json", manifest)):
            _add(archive, name, data, 0o644)
    return path


def _layer(image: Image) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        for name in FOLDERS:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            archive.addfile(entry)
        for name, content in image.files.items():
            data = content if isinstance(content, bytes) else content.read_bytes()
            _add(archive, name, data, 0o644 if isinstance(content, bytes) else 0o755)
        for name, target in image.links.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return output.getvalue()


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))
