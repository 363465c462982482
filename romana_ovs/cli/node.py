"""Implements `romana-ovs node check`: what this host lacks as a node, or has wrong, each with what to do.

With `--json`: `{"findings": [{"check", "severity", "subject", "reason", "action"}], "passed": ["check"],
"left_out": [{"check", "reason"}]}`.
"""

from __future__ import annotations

import argparse
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from romana_ovs.cli.common import add_strict, print_json
from romana_ovs.cli.progress import activity
from romana_ovs.config import IN_CLUSTER, ControllerOptions, kubeconfig_in, settings_in
from romana_ovs.kube.api.source import ApiSource
from romana_ovs.model.errors import InputError, Severity
from romana_ovs.model.settings import Settings
from romana_ovs.preflight.checks import CHECKS, check_host
from romana_ovs.preflight.facts import HostFacts
from romana_ovs.preflight.findings import Report

HELP = "Check what this host lacks as a node, or has wrong. Exit code 1 if there is an error."
CONFIG_FILE = Path("/etc/romana-ovs.conf")
CNI_CONF, CNI_BIN = Path("/etc/cni/net.d"), Path("/opt/cni/bin")
WIDTH = 80
INDENT = " " * 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `node`."""
    parser.add_argument("action", choices=["check"], help="check: check this host")
    parser.add_argument(
        "--config-file", type=Path, metavar="FILE", help=f"the controller's settings (default {CONFIG_FILE}, if there)"
    )
    parser.add_argument("--ovsdb", metavar="REMOTE", help="database of the Open vSwitch (default: that of the system)")
    parser.add_argument(
        "--cni-conf-dir",
        type=Path,
        default=CNI_CONF,
        metavar="DIR",
        help=f"the runtime's networks (default {CNI_CONF})",
    )
    parser.add_argument(
        "--cni-bin-dir", type=Path, default=CNI_BIN, metavar="DIR", help=f"the runtime's plugins (default {CNI_BIN})"
    )
    add_strict(parser)


def run(args: argparse.Namespace) -> int:
    """Print the findings. Returns exit code 1 if one is an error (with `--strict` any), else 0.

    Raises InputError for invalid settings.
    """
    remote = args.ovsdb if args.ovsdb is not None else ControllerOptions().ovsdb[0]
    if not remote.startswith("unix:"):
        raise InputError.because(
            f"--ovsdb: {remote!r} is no unix socket of this host, such as unix:/run/openvswitch/db.sock"
        )
    settings, source = _settings(args.config_file)
    # Known; the user of this command can do nothing about it.
    warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")
    # imported here: it imports eventlet, which takes a while
    from romana_ovs.preflight.collect import CniFolders, read_cluster, read_facts

    with activity("checking this host"):
        facts = read_facts(remote, CniFolders(args.cni_conf_dir, args.cni_bin_dir))
        facts = replace(facts, cluster=read_cluster(source) if source is not None else None)
        report = check_host(facts, _with_network(settings, facts, given=args.config_file is not None))
    if args.json:
        print_json(as_json(report))
    else:
        print("\n".join(as_text(report)))
    return 1 if report.at_least(Severity.INFO if args.strict else Severity.ERROR) else 0


def _with_network(settings: Settings, facts: HostFacts, *, given: bool) -> Settings:
    """The settings; without a file of settings with the network that the controller has written at the bridge."""
    network = facts.bridge.network if facts.bridge is not None else None
    return settings if given or CONFIG_FILE.is_file() or network is None else replace(settings, network=network)


def _settings(path: Path | None) -> tuple[Settings, ApiSource | None]:
    """The settings, and the API server that they name."""
    if path is None:
        if not CONFIG_FILE.is_file():
            return Settings(), None
        path = CONFIG_FILE
    kubeconfig = kubeconfig_in(path)
    source = ApiSource() if kubeconfig == IN_CLUSTER else ApiSource(kubeconfig) if kubeconfig is not None else None
    return settings_in(path), source


def as_json(report: Report) -> dict[str, Any]:
    """`report` as the module's docstring describes."""
    return {
        "findings": [
            {
                "check": each.check,
                "severity": each.severity.value,
                "subject": each.subject,
                "reason": each.reason,
                "action": each.action,
            }
            for each in report.findings
        ],
        "passed": list(report.passed),
        "left_out": [{"check": each.check, "reason": each.reason} for each in report.left_out],
    }


def as_text(report: Report) -> Iterator[str]:
    """Lines of text, at most 80 columns wide: a row for each check, and below it what it found and what to do."""
    left_out = {each.check: each.reason for each in report.left_out}
    for check in CHECKS:
        findings = [each for each in report.findings if each.check == check.name]
        severities = [severity.value for severity in Severity if any(each.severity is severity for each in findings)]
        state = severities[0] if severities else "left out" if check.name in left_out else "ok"
        reason = f"  {left_out[check.name]}" if check.name in left_out else ""
        yield f"{state:<8}  {check.title:<28}{reason}".rstrip()
        for finding in findings:
            yield from textwrap.wrap(
                f"{finding.subject}: {finding.reason}.",
                WIDTH,
                initial_indent=INDENT,
                subsequent_indent=INDENT,
                break_on_hyphens=False,
            )
            yield from textwrap.wrap(
                finding.action,
                WIDTH,
                initial_indent=f"{INDENT}> ",
                subsequent_indent=f"{INDENT}  ",
                break_on_hyphens=False,
            )
    counts = {severity: sum(each.severity is severity for each in report.findings) for severity in Severity}
    yield ""
    yield (
        f"Errors: {counts[Severity.ERROR]}, warnings: {counts[Severity.WARNING]}, notes: {counts[Severity.INFO]}; "
        f"checks passed: {len(report.passed)}, left out: {len(left_out)}."
    )
