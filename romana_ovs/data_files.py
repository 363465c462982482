"""Finds files of etc/: in the source tree, or where an installation has put them."""

from __future__ import annotations

import sys
from pathlib import Path

from romana_ovs.model.errors import SetupError

PLACES = (Path(__file__).resolve().parents[1] / "etc", Path(sys.prefix) / "share" / "romana-ovs")


def data_file(name: str) -> Path:
    """The file or folder `name`, such as `kubernetes`. Raises SetupError when neither place has it."""
    for place in PLACES:
        if (place / name).exists():
            return place / name
    raise SetupError(f"{name} is neither in {PLACES[0]} nor in {PLACES[1]}")
