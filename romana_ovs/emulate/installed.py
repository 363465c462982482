"""Files that come with the package: in the source tree's etc/, or where an installation has put them."""

from __future__ import annotations

import sys
from pathlib import Path

from romana_ovs.model.errors import SetupError

PLACES = (Path(__file__).resolve().parents[2] / "etc", Path(sys.prefix) / "share" / "romana-ovs")


def installed(name: str) -> Path:
    """The file or folder `name`, such as `kubernetes`. Raises SetupError when neither place has it."""
    for place in PLACES:
        if (place / name).exists():
            return place / name
    raise SetupError(f"{name} is neither in {PLACES[0]} nor in {PLACES[1]}")
