"""How many examples a property tries: in `make test`, in `make unit`, and for who has time.

ROMANA_HYPOTHESIS names the profile: `quick` (unset), `brief` (a tenth of that), `long` (3,000 where a property says no
number of its own; takes hours, so with `-o faulthandler_timeout=0`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

PROFILE = os.environ.get("ROMANA_HYPOTHESIS", "quick")
BRIEF = 10
"""How many times fewer examples a brief run tries."""
USUAL = 40


def examples(quick: int) -> int:
    """How many this run tries where `make test` tries `quick`."""
    return max(quick // BRIEF, 2) if PROFILE == "brief" else quick


def some(cases: Sequence[T]) -> Sequence[T]:
    """Of a table whose cases take a second each, those that this run tries: all, in a brief one every twentieth."""
    return cases[:: 2 * BRIEF] if PROFILE == "brief" else cases
