"""Lists the tests that run in the virtual machine, in the order in which they run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

MODULES = (
    "openvswitch",
    "vport_vxlan",
    "vport_geneve",
    "tun",
    "nf_conntrack_netlink",
    "nfnetlink_cttimeout",
)
"""What the machine loads before them. Not sctp: see the order of SELECTIONS."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Tests of one kind, as pytest names them."""

    title: str
    tests: tuple[str, ...]
    sample: tuple[str, ...] = ()
    """Those that the sample has too, so that they are done in ten minutes under emulation, too."""


CONFORMANCE = (
    "default-deny-all",
    "named-port",
    "egress-except",
    "sctp-port",
    "ports-range-sctp",
    "an-sctp-association-opens-no-other-port",
    "what-is-open-is-cut",
    "pod-gets-a-label",
)
"""Cases of tests/conformance/table."""
SELECTIONS = (
    Selection(
        "the demonstration, on every fabric",
        ("tests/integration/test_demo.py",),
        sample=("tests/integration/test_demo.py::test_every_step_is_measured_as_the_seed_tells_it[options1]",),
    ),
    Selection(
        "connection tracking: every row of the tables, and the model of it, by packets",
        (
            "tests/integration/test_conntrack_rows.py",
            "tests/integration/test_conntrack_model.py",
            "tests/integration/test_trace.py",
            "tests/integration/test_revalidation_rows.py",
        ),
        sample=("tests/integration/test_conntrack_rows.py",),
    ),
    Selection(
        "continuity: restarts, kills, cuts",
        ("tests/integration/test_continuity.py", "tests/integration/test_continuity_tunnels.py"),
    ),
    Selection(
        "a sample of the conformance table",
        tuple(
            f"tests/conformance/test_packets.py::test_packets_go_where_the_table_says[plain-{name}]"
            for name in CONFORMANCE
        ),
    ),
    Selection(
        "attacks from inside pods",
        (
            "tests/attacks/test_frames.py",
            "tests/attacks/test_revoked.py",
            "tests/attacks/test_sctp.py",
        ),
    ),
    # From here on the module sctp is loaded, and answers to what is for the emulator's own SCTP, too.
    Selection(
        "restarts of Open vSwitch under TCP, UDP and SCTP",
        ("tests/integration/test_switch_restart.py", "tests/integration/test_app_flow_restore.py"),
        sample=(
            "tests/integration/test_switch_restart.py::test_connections_go_on_over_a_killed_and_restarted_switch[node2]",
        ),
    ),
    Selection(
        "SCTP with the kernel's own sockets",
        ("tests/integration/test_sctp_sockets.py",),
        sample=(
            "tests/integration/test_sctp_sockets.py::test_the_admitted_port_answers_and_no_other[vxlan-near]",
            "tests/integration/test_sctp_sockets.py::test_the_admitted_port_answers_and_no_other[vxlan-far]",
        ),
    ),
)


def selected_tests(*, sample: bool) -> Iterator[str]:
    """The tests of a whole run, or of the sample."""
    for selection in SELECTIONS:
        yield from selection.sample if sample else selection.tests
