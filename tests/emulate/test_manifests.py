"""The manifests of an installation are the chart with its values, and only what a node needs."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from romana_ovs import __version__
from romana_ovs.cli.attach import add_arguments
from romana_ovs.config import settings_in
from romana_ovs.model.errors import SetupError
from romana_ovs_emulate.image.build import NAME
from romana_ovs_emulate.manifests import (
    CHART,
    INSTALL,
    default_values,
    install_manifest,
    merged,
    render,
    rendered_files,
)

ROOT = Path(__file__).parents[2]
CHANGES: tuple[dict[str, Any], ...] = (
    {"apiServer": {"host": "192.0.2.1", "port": 443}, "attachOptions": ["--mtu=1400", "--no-portmap"]},
    {"imagePullSecrets": [{"name": "mine"}], "registry": {"replicas": 3}, "settings": "[romana]\nisolation = none\n"},
)
WORKLOADS = (("DaemonSet", "romana-node"), ("Deployment", "romana-registry"))
VALUES = {"a": {"b": "text", "n": 3, "list": ["x", "y z"], "none": [], "lines": "one\n  two\n"}}


def documents(**changes: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """The objects of an installation with these values, by kind and name."""
    loaded = [each for each in yaml.safe_load_all(install_manifest(ROOT, changes)) if each]
    return {(each["kind"], each["metadata"]["name"]): each for each in loaded}


def containers(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    spec = document["spec"]["template"]["spec"]
    return {each["name"]: each for each in (*spec.get("initContainers", ()), *spec["containers"])}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("x: {{ .Values.a.b }} y\n", "x: text y\n"),
        ("x: {{ .Values.a.n | quote }}\n", 'x: "3"\n'),
        ("x: {{ toJson .Values.a.list }}\n", 'x: ["x", "y z"]\n'),
        ("{{ .Values.a.lines | indent 2 }}\n", "  one\n    two\n"),
        ("a\n{{- if .Values.a.b }}\nb\n{{- end }}\nc\n", "a\nb\nc\n"),
        ("a\n{{- if .Values.a.none }}\nb\n{{- end }}\nc\n", "a\nc\n"),
        ("{{- range .Values.a.list }}\n- {{ . | quote }}\n{{- end }}\n", '- "x"\n- "y z"\n'),
    ],
)
def test_a_template_is_rendered_as_helm_does(template: str, text: str) -> None:
    assert render(template, VALUES) == text


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ .Values.a.missing }}", "a template has .Values.a.missing, which is no value"),
        (
            "{{ .Values.a.b | upper }}",
            r"a template has the action \{\{ .Values.a.b \| upper \}\}, which is not supported",
        ),
        ("{{- if .Values.a.b }}", "a template has a block without end"),
    ],
)
def test_a_mistake_in_a_template_is_named(template: str, reason: str) -> None:
    with pytest.raises(SetupError, match=f"^{reason}$"):
        render(template, VALUES)


def test_values_are_merged_mapping_by_mapping() -> None:
    assert merged({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"c": 3}, "d": [2]}) == {"a": {"b": 1, "c": 3}, "d": [2]}


def test_the_rendered_files_are_up_to_date() -> None:
    stale = [str(path) for path, text in rendered_files(ROOT).items() if (ROOT / path).read_text() != text]
    assert stale == [], "run `make docs`"


def test_the_chart_has_no_other_files() -> None:
    rendered = {path.name for path in rendered_files(ROOT) if path != INSTALL}
    present = {path.name for folder in ("crds", "templates") for path in (ROOT / CHART / folder).iterdir()}
    assert present == rendered | {"config.yaml", "node.yaml", "registry.yaml"}


def test_image_and_chart_have_the_version_of_the_package() -> None:
    chart = yaml.safe_load((ROOT / CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == __version__
    assert default_values(ROOT)["image"] == NAME
    assert f"docker build -t {NAME}" in (ROOT / "Dockerfile").read_text()


def test_settings_of_the_manifest_are_valid(tmp_path: Path) -> None:
    data = documents()["ConfigMap", "romana-ovs"]["data"]
    (tmp_path / "romana-ovs.conf").write_text(data["romana-ovs.conf"])
    (tmp_path / "node.conf").write_text(data["node.conf"])
    settings = settings_in(tmp_path / "romana-ovs.conf")
    assert (str(settings.network), settings.segment_bits) == ("100.64.0.0/10", 10)
    settings_in(tmp_path / "node.conf")


def test_an_address_of_the_api_server_is_given_to_all() -> None:
    assert "KUBERNETES_SERVICE_HOST" not in documents()["ConfigMap", "romana-ovs"]["data"]
    data = documents(apiServer={"host": "192.0.2.1"})["ConfigMap", "romana-ovs"]["data"]
    assert (data["KUBERNETES_SERVICE_HOST"], data["KUBERNETES_SERVICE_PORT"]) == ("192.0.2.1", "6443")
    for workload, container in zip(WORKLOADS, ("controller", "registry"), strict=True):
        env = {each["name"]: each for each in containers(documents()[workload])[container]["env"]}
        reference = env["KUBERNETES_SERVICE_HOST"]["valueFrom"]["configMapKeyRef"]
        assert reference == {"name": "romana-ovs", "key": "KUBERNETES_SERVICE_HOST", "optional": True}


def test_options_of_the_agent_can_be_added() -> None:
    node = documents(attachOptions=["--mtu=1400", "--no-portmap"])["DaemonSet", "romana-node"]
    assert containers(node)["attach"]["command"][-2:] == ["--mtu=1400", "--no-portmap"]


def test_each_container_has_the_least_rights() -> None:
    objects = documents()
    everything = {
        **containers(objects["DaemonSet", "romana-node"]),
        **containers(objects["Deployment", "romana-registry"]),
    }
    added = {}
    for name, container in everything.items():
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
        assert "privileged" not in context and context["capabilities"]["drop"] == ["ALL"]
        added[name] = context["capabilities"].get("add", [])
    assert added == {"install-cni": [], "controller": [], "attach": ["NET_ADMIN", "SYS_ADMIN"], "registry": []}
    assert objects["Deployment", "romana-registry"]["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"]


def test_volumes_and_probes_of_each_container_exist() -> None:
    for workload in WORKLOADS:
        document = documents()[workload]
        volumes = {each["name"] for each in document["spec"]["template"]["spec"]["volumes"]}
        used = set()
        for container in containers(document).values():
            used |= {each["name"] for each in container["volumeMounts"]}
            for probe in ("livenessProbe", "readinessProbe"):
                if probe in container:
                    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
                    port = ports[container[probe]["httpGet"]["port"]]
                    assert f"--health-port={port}" in container["command"]
        assert used == volumes


def test_the_agents_options_exist() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = containers(documents()["DaemonSet", "romana-node"])["attach"]["command"]
    assert words[:2] == ["romana-ovs", "attach"]
    given = [word.replace("$(DATAPATH)", "system").replace("$(TUNNEL)", "vxlan") for word in words[2:]]
    assert parser.parse_args(given).create_bridge


def test_only_accounts_that_exist_are_used() -> None:
    objects = documents()
    for workload in WORKLOADS:
        assert ("ServiceAccount", objects[workload]["spec"]["template"]["spec"]["serviceAccountName"]) in objects


@pytest.mark.skipif(shutil.which("helm") is None, reason="needs helm in the PATH")
@pytest.mark.parametrize("changes", [{}, *CHANGES])
def test_helm_renders_the_same_objects(tmp_path: Path, changes: dict[str, Any]) -> None:
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(changes))
    options = [
        "--kube-version=1.30",
        "--include-crds",
        "--namespace=kube-system",
        "--values",
        str(tmp_path / "values.yaml"),
    ]
    helm = subprocess.run(
        ["helm", "template", "romana-ovs", str(ROOT / CHART), *options],
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert helm.returncode == 0, helm.stderr
    loaded = [each for each in yaml.safe_load_all(helm.stdout) if each]
    assert {(each["kind"], each["metadata"]["name"]): each for each in loaded} == documents(**changes)
