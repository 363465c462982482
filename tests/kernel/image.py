"""Builds what the virtual machine boots, once per machine: a kernel, an initramfs and a disk of Debian's packages."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from romana_ovs.model.errors import SetupError
from romana_ovs_emulate.build_cache import BuildCache, Progress
from romana_ovs_emulate.debian_packages import APART, NoPackagesError, run_command
from tests.kernel.packages import BUSYBOX, GUEST_PACKAGES, Packages

CACHE = BuildCache("kernel-test", "the virtual machine")
GUEST = Path(__file__).parent / "guest"
CHECKOUT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-test.lock")
DISK_BYTES = 6 << 30
"""What the disk can hold; the file has holes."""
BUILD_SECONDS = 900.0
MODULE_FOLDERS = (
    "arch",
    "crypto",
    "drivers/block",
    "drivers/char",
    "drivers/net",
    "drivers/virtio",
    "fs",
    "lib",
    "net",
)
"""Of the kernel's modules, the folders that go into the image: no graphics, no sound."""
EARLY_MODULES = ("virtio_pci", "virtio_blk", "ext4", "crc32c_generic")
"""What the initramfs loads, with what these need, before it mounts the disk."""
NOT_NEEDED = ("mypy", "mypyc", "*__mypyc*", "ruff", "grimp", "importlinter", "pip", "__editable__*", "romana_ovs*")
"""Of the Python packages, those that check the sources, and the checkout itself, which comes with each run."""


@dataclass(frozen=True, slots=True)
class Image:
    """A folder with what QEMU needs to boot."""

    folder: Path

    @property
    def kernel(self) -> Path:
        """The kernel."""
        return self.folder / "vmlinuz"

    @property
    def initramfs(self) -> Path:
        """The file system that the kernel starts with."""
        return self.folder / "initrd.gz"

    @property
    def disk(self) -> Path:
        """The root file system, never written to."""
        return self.folder / "root.img"


def image_key(packages: Packages, checkout: Path = CHECKOUT) -> str:
    """The name of an image in the cache: it depends on versions of packages, and on what builds and starts it."""
    sources = [checkout / name for name in LOCKS] + sorted(GUEST.iterdir()) + [Path(__file__)]
    digest = hashlib.sha256("\n".join(packages.versions).encode())
    for path in sources:
        digest.update(path.read_bytes())
    return f"{packages.suite}-{packages.release}-{digest.hexdigest()[:12]}"


def find_or_build(packages: Packages, progress: Progress) -> Image:
    """The image for these packages. A build takes some minutes. Raises SetupError when it fails."""
    key = image_key(packages)
    try:
        folder = CACHE.find_or_build(key, lambda draft: _build(draft, packages, progress), progress)
    except OSError as error:
        raise SetupError(f"the virtual machine cannot be built: {error.strerror or error}") from error
    CACHE.remove_unused(key)
    return Image(folder)


def _build(folder: Path, packages: Packages, progress: Progress) -> None:
    progress(f"Building a virtual machine with kernel {packages.release}, once for this machine (a minute or two)")
    root, kernel = folder / "root", folder / "kernel"
    progress("  installing Debian's packages")
    run_command(
        [*APART, "mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", f"--include={','.join(GUEST_PACKAGES)}",
         packages.suite, str(root), *packages.sources],
        seconds=BUILD_SECONDS,
        error=NoPackagesError,
        progress=progress,
        title="mmdebstrap",
    )  # fmt: skip
    progress("  unpacking the kernel")
    _unpack_kernel(folder, kernel, packages)
    _install_modules(kernel, root, packages.release)
    progress("  copying Python packages")
    _copy_venv(root)
    shutil.copy(GUEST / "init", root / "sbin/kernel-test-init")
    (root / "sbin/kernel-test-init").chmod(0o755)
    _make_initramfs(folder, root, packages.release)
    progress("  making the disk")
    disk = folder / "root.img"
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    options = ["-q", "-t", "ext4", "-O", "^metadata_csum,^64bit", "-E", "lazy_itable_init=1"]
    run_command(["mke2fs", *options, "-d", str(root), str(disk)], seconds=BUILD_SECONDS, progress=progress)
    for remains in (root, kernel):
        shutil.rmtree(remains)


def _unpack_kernel(folder: Path, kernel: Path, packages: Packages) -> None:
    download = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", packages.kernel, BUSYBOX]
    run_command(download, seconds=BUILD_SECONDS, error=NoPackagesError, cwd=folder)
    for package in folder.glob("*.deb"):
        run_command(["dpkg-deb", "--extract", str(package), str(kernel)], seconds=BUILD_SECONDS)
        package.unlink()
    shutil.copy(kernel / f"boot/vmlinuz-{packages.release}", folder / "vmlinuz")


def _install_modules(kernel: Path, root: Path, release: str) -> None:
    modules = Path("lib/modules", release)
    (root / modules).mkdir(parents=True)
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        shutil.copy(kernel / modules / name, root / modules / name)
    for name in MODULE_FOLDERS:
        if (kernel / modules / "kernel" / name).is_dir():
            shutil.copytree(kernel / modules / "kernel" / name, root / modules / "kernel" / name)
    run_command(["depmod", "-b", str(root), release], seconds=BUILD_SECONDS)


def _copy_venv(root: Path) -> None:
    """The environment that runs this, as `/venv`: Python is the distribution's, in the same version, on both sides."""
    name = f"python3.{sys.version_info.minor}"
    if not (root / "usr/bin" / name).exists():
        raise SetupError(f"the environment has {name}, but the distribution has another one: make clean, then again")
    venv = ["-m", "venv", "--system-site-packages", "--without-pip", "/venv"]
    run_command(["chroot", str(root), f"/usr/bin/{name}", *venv], seconds=BUILD_SECONDS)
    packages = Path("lib", name, "site-packages")
    ignore = shutil.ignore_patterns(*NOT_NEEDED)
    shutil.copytree(Path(sys.prefix, packages), root / "venv" / packages, ignore=ignore, dirs_exist_ok=True)
    # Before romana-ovs-ryu.pth, which imports from there.
    (root / "venv" / packages / "checkout.pth").write_text("/romana\n")


def _make_initramfs(folder: Path, root: Path, release: str) -> None:
    early = folder / "early"
    for name in ("bin", "dev", "proc", "sys", "root", "modules"):
        (early / name).mkdir(parents=True)
    shutil.copy(folder / "kernel/bin/busybox", early / "bin/busybox")
    shutil.copy(GUEST / "initramfs", early / "init")
    (early / "init").chmod(0o755)
    paths = list(dict.fromkeys(_module_paths(root, release)))
    for path in paths:
        shutil.copy(path, early / "modules")
    (early / "modules/order").write_text("".join(f"{path.name}\n" for path in paths))
    script = f"find . | cpio -o -H newc --quiet | gzip -1 > {Path('..', 'initrd.gz')}"
    run_command(["bash", "-o", "pipefail", "-c", script], seconds=BUILD_SECONDS, cwd=early)
    shutil.rmtree(early)


def _module_paths(root: Path, release: str) -> Iterator[Path]:
    """The files of EARLY_MODULES and of what they need, in the order in which they are loaded."""
    for name in EARLY_MODULES:
        shown = run_command(["modprobe", "-d", str(root), "-S", release, "--show-depends", name], seconds=BUILD_SECONDS)
        yield from (Path(line.split()[1]) for line in shown.splitlines() if line.startswith("insmod "))
