"""Builds the image of three layers, each once for what it holds: Debian's packages, Python packages, romana-ovs.

Only the last one changes with the code, so that a runtime which has an older image reads little.
"""

from __future__ import annotations

import compileall
import hashlib
import os
import py_compile
import shutil
import sys
import tarfile
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from romana_ovs import __version__
from romana_ovs.model.errors import SetupError
from romana_ovs_emulate import cni_plugin
from romana_ovs_emulate.build_cache import BuildCache, Progress
from romana_ovs_emulate.debian_packages import (
    APART,
    NoPackagesError,
    apt,
    find_sources,
    parse_versions,
    prepare_host,
    run_command,
)
from romana_ovs_emulate.image import python_packages
from romana_ovs_emulate.image.archive import Layer, archive_folder, copy_archive, write_image, write_layer

CHECKOUT = Path(__file__).resolve().parents[2]
NAME = f"localhost/romana-ovs:{__version__}"
"""No registry has it: whoever pushes it to one of their own gives it another name."""
LAYERS = BuildCache("image-layers", "a layer of the image")
IMAGES = BuildCache("image", "the image")
HOST_PROGRAMS = {"mmdebstrap": "mmdebstrap"}
PACKAGES = ("iproute2", "libbpf1", "libstdc++6", "nftables", "python3", "python3-openvswitch")
"""Of Debian: what romana_ovs runs (`ip`, `nft`) or loads besides its Python packages, and what these load."""
PREFIX = Path("opt/romana-ovs")
"""A virtual environment, relative to the root of the image, that also has the modules of Debian's packages."""
CNI_PLUGIN = PREFIX / "libexec" / cni_plugin.NAME
BUILD_SECONDS = 900.0
_EXCLUDED = ("/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/lintian/*", "/usr/share/doc/*")
_KEPT = ("/usr/share/doc/*/copyright",)
_REMOVED = "/var/lib/apt/lists/* /var/cache/* /var/log/*"
_COMMAND = """#!/opt/romana-ovs/bin/python3
import sys

from romana_ovs.cli.main import main

sys.exit(main())
"""


@dataclass(frozen=True, slots=True)
class Image:
    """A built image: its file for `ctr images import` or `docker load`, and its name with tag."""

    path: Path
    name: str

    @property
    def size(self) -> int:
        """Of the file, in bytes."""
        return self.path.stat().st_size


def find_or_build(progress: Progress, checkout: Path = CHECKOUT) -> Image:
    """The image of this checkout; a first build takes a minute or two, one after a change of the code seconds.

    Raises SetupError when it cannot be built here.
    """
    if not (checkout / python_packages.LOCK).exists():
        raise SetupError(f"the image is built from a checkout of romana-ovs, and {checkout} is none")
    layers = [
        _debian_layer(progress),
        _python_layer(checkout, progress),
        _product_layer(checkout, progress),
    ]
    sources = "\n".join([NAME, *(layer.diff_id for layer in layers), Path(__file__).read_text()])
    key = f"{__version__}-{_digest(sources.encode())}"

    def build(folder: Path) -> None:
        write_image(folder / "romana-ovs.tar", NAME, layers, _config())

    folder = IMAGES.find_or_build(key, build, progress)
    IMAGES.remove_unused(key)
    return Image(folder / "romana-ovs.tar", NAME)


def _config() -> dict[str, object]:
    return {
        "Entrypoint": ["romana-ovs"],
        "Cmd": ["--help"],
        "Env": [
            f"PATH=/{PREFIX}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONDONTWRITEBYTECODE=1",
            "PYTHONUNBUFFERED=1",
        ],
        "Labels": {"org.opencontainers.image.title": "romana-ovs", "org.opencontainers.image.version": __version__},
    }


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:12]


def _layer(key: str, build: Callable[[Path], None], progress: Progress) -> Layer:
    try:
        folder = LAYERS.find_or_build(key, build, progress)
    except OSError as error:
        raise SetupError(f"the image cannot be built: {error.strerror or error}") from error
    LAYERS.remove_unused(key)
    return Layer.in_folder(folder)


def _debian_layer(progress: Progress) -> Layer:
    """Debian's packages, in the versions that apt knows on this machine."""
    prepare_host(progress, HOST_PROGRAMS, known=PACKAGES[0])
    suite, sources = find_sources()
    versions = parse_versions(apt("apt-cache", "show", "--no-all-versions", "libc6", *PACKAGES))
    options = ["--variant=essential", "--format=tar", f"--include={','.join(PACKAGES)}", "--skip=output/dev"]
    options += [f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDED]
    options += [f"--dpkgopt=path-include={pattern}" for pattern in _KEPT]
    options += [f'--customize-hook=cd "$1" && rm -rf {_REMOVED.replace("/var", "var")}']
    key = f"{suite}-{_digest(*(text.encode() for text in (*versions, *options)))}"

    def build(folder: Path) -> None:
        progress(f"Installing packages of Debian {suite} into the image, once for this machine (about a minute)")
        root = os.geteuid() == 0
        command = [*(APART if root else ()), "mmdebstrap", "--quiet", *(["--mode=root"] if root else []), *options]
        target = folder / "root.tar"
        run_command(
            [*command, suite, str(target), *sources],
            seconds=BUILD_SECONDS,
            error=NoPackagesError,
            progress=progress,
            title="mmdebstrap",
        )
        _check_python(target)
        write_layer(folder, copy_archive(target))
        target.unlink()

    return _layer(key, build, progress)


def _check_python(root: Path) -> None:
    """Raises SetupError when the packages have another Python than that of this environment."""
    name = f"python3.{sys.version_info.minor}"
    with tarfile.open(root) as archive:
        if not {f"./usr/bin/{name}", f"usr/bin/{name}"} & set(archive.getnames()):
            raise SetupError(
                f"the environment has {name}, but the distribution has another one: make clean, then again"
            )


def _python_layer(checkout: Path, progress: Progress) -> Layer:
    """The locked Python packages in a virtual environment of Debian's Python."""
    lock = (checkout / python_packages.LOCK).read_bytes()
    own = (Path(__file__).read_bytes(), Path(python_packages.__file__).read_bytes())
    version = ".".join(map(str, sys.version_info[:3]))

    def fill(root: Path) -> None:
        progress("Copying Python packages into the image")
        python_packages.copy_locked(checkout, site_packages(root))
        settings = f"home = /usr/bin\ninclude-system-site-packages = true\nversion = {version}\n"
        (root / PREFIX / "pyvenv.cfg").write_text(settings)
        (root / PREFIX / "bin").mkdir()
        (root / PREFIX / "bin/python3").symlink_to(f"/usr/bin/python3.{sys.version_info.minor}")
        (root / PREFIX / "bin/python").symlink_to("python3")
        compile_modules(site_packages(root), root)

    return _layer(f"python-{_digest(lock, *own, version.encode())}", _of_folder(fill), progress)


def _product_layer(checkout: Path, progress: Progress) -> Layer:
    """The package romana_ovs, its command and data files, and the CNI plugin."""
    plugin = cni_plugin.find_or_build(progress)
    files = python_packages.product_files(checkout)
    parts = [str(path.relative_to(checkout)).encode() + b"\0" + path.read_bytes() for path in files]
    key = f"romana-ovs-{_digest(*parts, plugin.read_bytes(), Path(__file__).read_bytes())}"

    def fill(root: Path) -> None:
        progress("Copying romana-ovs into the image")
        python_packages.copy_product(checkout, site_packages(root), root / PREFIX)
        compile_modules(site_packages(root), root)
        for path, content in ((PREFIX / "bin/romana-ovs", _COMMAND.encode()), (CNI_PLUGIN, plugin.read_bytes())):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
            (root / path).chmod(0o755)

    return _layer(key, _of_folder(fill), progress)


def _of_folder(fill: Callable[[Path], None]) -> Callable[[Path], None]:
    """Builds a layer of the folder that `fill` fills."""

    def build(folder: Path) -> None:
        root = Path(tempfile.mkdtemp(dir=folder))
        fill(root)
        write_layer(folder, archive_folder(root))
        shutil.rmtree(root)

    return build


def site_packages(root: Path) -> Path:
    """Where Python packages are in the image's files at `root`; the folder is made."""
    path = root / PREFIX / f"lib/python3.{sys.version_info.minor}/site-packages"
    path.mkdir(parents=True, exist_ok=True)
    return path


def compile_modules(folder: Path, root: Path) -> None:
    """Compile all modules below `folder`: in a container, whose files are read-only, they would be at each start.

    Nothing compares them with their sources, as times do not count in layers.
    """
    with warnings.catch_warnings():
        # Of other packages' sources.
        warnings.simplefilter("ignore", SyntaxWarning)
        compileall.compile_dir(
            folder,
            stripdir=str(root),
            prependdir="/",
            quiet=2,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
