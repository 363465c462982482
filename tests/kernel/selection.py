"""Lists the tests that run in the virtual machine, in the order in which they run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

MODULES = (
    "openvswitch",
    "vport_vxlan",
    "vport_geneve",
    "tun",
    "sctp",
    "nf_conntrack_netlink",
    "nfnetlink_cttimeout",
)
"""What the machine loads before them."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Tests of one kind, as pytest names them."""

    title: str
    tests: tuple[str, ...]
    sample: tuple[str, ...] = ()
    """Those that the ten-minute sample has too."""


SELECTIONS = (
    Selection(
        "the demonstration",
        ("tests/integration/test_demo.py",),
        sample=("tests/integration/test_demo.py::test_every_step_is_measured_as_the_seed_tells_it",),
    ),
    Selection(
        "every row of the conntrack tables by packets",
        ("tests/integration/test_conntrack_rows.py",),
        sample=("tests/integration/test_conntrack_rows.py",),
    ),
    Selection(
        "continuity: restarts, kills, cuts",
        ("tests/integration/test_continuity.py", "tests/integration/test_continuity_tunnels.py"),
        sample=("tests/integration/test_continuity_tunnels.py",),
    ),
)


def selected_tests(*, sample: bool) -> Iterator[str]:
    """The tests of a whole run, or of the sample."""
    for selection in SELECTIONS:
        yield from selection.sample if sample else selection.tests
