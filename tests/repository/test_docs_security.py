"""docs/security.md: its numbers are those of the code, and its links and names exist."""

from __future__ import annotations

import re
from pathlib import Path

from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.controller import api_reconciler, status_server
from romana_ovs.controller.registry_controller import MAX_LAG_SECONDS
from romana_ovs.kube.decode import limits
from romana_ovs.model.settings import Settings
from romana_ovs.policy import requirements
from romana_ovs.switch import bpf, ethertypes

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
LIMITS = TEXT.partition("\n## Limits that remain\n")[2].partition("\nOut of scope")[0]


def limit(what: str) -> str:
    """The limit in the table row that begins with `what`."""
    [row] = re.findall(rf"^\| {re.escape(what)}[^|]*\| ([^|]*) \|", LIMITS, re.MULTILINE)
    return str(row)


def test_figures_are_those_of_the_code() -> None:
    settings = Settings()
    rate = f"`new_connections`, {settings.new_connections:,} a second"
    assert limit("connections that one pod opens").startswith(rate)
    assert limit("peers and ports of one policy").startswith(f"{limits.MAX_TERMS:,}")
    assert f"counts as {limits._RANGE_TERMS}" in LIMITS
    assert (
        limit("label requirements")
        == f"{requirements.MAX_REQUIREMENTS:,}, and {requirements.MAX_REQUIREMENT_CHARS:,} characters"
    )
    assert limit("a node that does not acknowledge") == f"{MAX_LAG_SECONDS:.0f} seconds"
    assert limit("a policy with a new label requirement") == f"{api_reconciler.REGISTRY_TIMEOUT_SECONDS:.0f} seconds"
    assert limit("pods of a tier on one node").startswith(f"{1 << settings.endpoint_bits} in each")
    tiers = f"{AddressPlan.of(settings).segments // 16} with `segment_bits = {settings.segment_bits}`"
    assert tiers in limit("tiers of a tenant")
    assert status_server.MODE == 0o600 and "mode 0600" in TEXT


def test_link_targets_exist() -> None:
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert len(links) > 4
    for link in links:
        path, _, anchor = link.partition("#")
        target = ROOT / "docs" / (path or "security.md")
        assert target.is_file(), link
        headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
        assert not anchor or anchor in {
            re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings
        }, link


def test_readme_and_kubernetes_page_link_to_it() -> None:
    assert "(docs/security.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert "(security.md)" in (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")


def test_names_in_the_chapter_on_pod_ports_exist() -> None:
    chapter = TEXT.partition("\n## Ports of pods\n")[2].partition("\n## ")[0]
    assert len(ethertypes.XDP_PROGRAM) == 12 and "XDP program of twelve instructions" in chapter
    assert len(ethertypes.TC_PROGRAM) == 9 and "tc of nine instructions" in chapter
    assert f"preference {bpf.PRIORITY}" in chapter
    assert f"`python -m {ethertypes.__name__} --datapath netdev|system DEVICE ...`" in " ".join(chapter.split())
    assert f"python -m {ethertypes.__name__} " in (ROOT / "README.md").read_text(encoding="utf-8")
