"""docs/kubernetes.md has every manifest, reason and printer column, and no others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from romana_ovs.controller import api_reconciler, conditions, status_reporter
from romana_ovs.controller.conditions import Validity
from romana_ovs.controller.registry_controller import MAX_LAG_SECONDS
from romana_ovs.kube.api.lease import LeaseName
from romana_ovs.registry_types.published import Stage

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
REGISTRY = (ROOT / "docs" / "registry.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
MANIFESTS = ROOT / "etc" / "kubernetes"
CODE = re.findall(r"`((?:romana_ovs|tests|kube|engine|policy|model)/[\w/]+(?:\.py)?)`", TEXT + REGISTRY)


def test_every_manifest_is_in_the_table() -> None:
    listed = set(re.findall(r"^\| `([\w/-]+\.yaml)` \|", TEXT, re.MULTILINE))
    assert listed == {str(path.relative_to(MANIFESTS)) for path in MANIFESTS.rglob("*.yaml")}


def test_every_reason_is_explained() -> None:
    source = Path(conditions.__file__).read_text(encoding="utf-8")
    said = set(re.findall(r'Condition\(\w+, ConditionStatus\.\w+, "(\w+)"', source)) | set(
        re.findall(r'"(No\w+)"', source)
    )
    said |= {standing.value for standing in Validity} | {progress.value for progress in conditions._Progress}
    assert said >= {"LastValidKept", "Allocated", "NoNumber", "SwitchFailed"}
    assert {reason for reason in said if f"`{reason}`" not in TEXT} == set()


@pytest.mark.parametrize("kind", ["networkpolicies", "tenants", "nodereports"])
def test_columns_are_those_that_kubectl_prints(kind: str) -> None:
    [version] = yaml.safe_load((MANIFESTS / f"crd-{kind}.yaml").read_text())["spec"]["versions"]
    columns = ["Name", *(each["name"] for each in version["additionalPrinterColumns"] if not each.get("priority"))]
    headings = [line.split() for line in TEXT.splitlines() if line.startswith("    NAME")]
    assert [column.upper() for column in columns] in headings


def test_code_that_is_named_exists() -> None:
    assert len(CODE) > 5
    for name in CODE:
        assert (ROOT / name).exists() or (ROOT / "romana_ovs" / name).exists(), name


def test_figures_and_names_are_those_of_the_code() -> None:
    flat = " ".join(TEXT.split())
    assert f"The registry waits {MAX_LAG_SECONDS:.0f} seconds for its acknowledgement" in flat
    assert api_reconciler.REGISTRY_TIMEOUT_SECONDS == 10 and "does not answer for ten seconds" in REGISTRY
    assert f"`{LeaseName().namespace}/{LeaseName().name}`" in TEXT
    assert (status_reporter.STATUS_SECONDS, status_reporter.TENANT_SECONDS) == (1, 5)
    assert {stage.value for stage in Stage if f"`{stage.value}`" not in REGISTRY} == set()


def test_what_the_readme_has_one_type_exists() -> None:
    chapter = README.partition("\n## On Kubernetes\n")[2].partition("\n## ")[0]
    lines = [
        line.split("#")[0].split()
        for block in re.findall(r"```\n(.*?)```", chapter, re.DOTALL)
        for line in block.splitlines()
    ]
    targets = {words[1] for words in lines if words[0] == "make"}
    assert targets and all(f"\n{target}:" in (ROOT / "Makefile").read_text() for target in targets)
    assert [words[-1] for words in lines if words[0] == "kubectl"] == ["etc/kubernetes"]
    cli = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    options = {word for words in lines for word in words if word.startswith("--")}
    assert options and all(f"`{option} " in cli for option in options)


RULES = (ROOT / "etc" / "nftables" / "forwarding-node.nft").read_text(encoding="utf-8")


def test_the_quoted_rules_for_forwarding_nodes_are_complete() -> None:
    quoted = TEXT.partition("\nThe whole file:\n\n")[2].partition("\nNotes:\n")[0]
    lines = RULES.splitlines()
    assert quoted.splitlines() == [f"    {line}".rstrip() for line in lines[lines.index("") + 1 :]]


def test_the_readme_quotes_these_rules_exactly() -> None:
    chains = re.findall(r"^ {6}chain .*?^ {6}}$", README, re.MULTILINE | re.DOTALL)
    assert [chain.split()[1] for chain in chains] == ["tunnels-forwarded", "node-ports"]
    for chain in chains:
        assert re.sub("^  ", "", chain, flags=re.MULTILINE) in RULES
