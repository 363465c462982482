"""What setup.cfg has no word for: the `.pth` file that lets plain `ryu-manager` start (see romana_ovs/_ryu_shim.py)."""

from __future__ import annotations

from pathlib import Path

from setuptools import Command, setup
from setuptools.command.build import build

PTH = "romana-ovs-ryu.pth"


class BuildPth(Command):
    """Puts PTH where modules go, at the top; a sub-command of `build` as setuptools describes them.

    An editable wheel takes nothing from `build_lib`, only what lies in the wheel's own folder already, which is
    then `install_lib`; data files would not do, as an editable wheel has none.
    """

    description = "the .pth file"
    user_options: list[tuple[str, str | None, str]] = []

    def initialize_options(self) -> None:
        """Nothing is set yet; `build` and `editable_wheel` do it."""
        self.build_lib = None
        self.editable_mode = False

    def finalize_options(self) -> None:
        """Takes over where `build` puts modules."""
        self.set_undefined_options("build", ("build_lib", "build_lib"))

    def run(self) -> None:
        """Copies the file."""
        target = self.get_finalized_command("install").install_lib if self.editable_mode else self.build_lib
        self.mkpath(target)
        self.copy_file(PTH, target)

    def get_source_files(self) -> list[str]:
        """What it reads, for the source distribution."""
        return [PTH]

    def get_outputs(self) -> list[str]:
        """What it writes."""
        return [] if self.editable_mode else [str(Path(self.build_lib, PTH))]

    def get_output_mapping(self) -> dict[str, str]:
        """Nothing of it can be a link into the checkout."""
        return {}


class Build(build):
    """`build`, and then BuildPth."""

    sub_commands = [*build.sub_commands, ("build_pth", None)]


setup(cmdclass={"build": Build, "build_pth": BuildPth})
