"""Settings from files: the folder's and the controller's mean the same, and are refused in the same words."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from oslo_config.cfg import ConfigOpts

from romana_ovs.config import (
    OPTIONS,
    ControllerOptions,
    controller_options_from,
    datapath_in,
    load_settings,
    register,
    settings_from,
)
from romana_ovs.model.bridge import DatapathType
from romana_ovs.model.errors import InputError
from romana_ovs.model.settings import Isolation, Settings, TenantSource

ETC = Path(__file__).parents[2] / "etc"

FULL = """
[DEFAULT]
verbose = true

[romana]
isolation = tier               # tier | tenant | none
tenant_source = pod-label:example.com/owner
shared_tenants = kube-system, infra
tier_labels = tier,role
network = 172.16.0.0/12        # a comment
segment_bits = 8
host_bits = 6
endpoint_bits = 6
new_connections = 250
tenant_connections = 5000
fragments = 20
tenant_fragments = 30
service_ranges = 10.96.0.0/12, 10.200.0.0/16
datapath = system
manifests = /srv/manifests
manifests_recursive = yes
nodes = 3
ovsdb = unix:/run/a.sock, tcp:127.0.0.1:6640
state_file = /var/lib/romana/state
"""

WANTED = Settings(
    isolation=Isolation.TIER,
    tenant_source=TenantSource.POD_LABEL,
    tenant_key="example.com/owner",
    shared_tenants=frozenset({"kube-system", "infra"}),
    tier_labels=("tier", "role"),
    network=IPv4Network("172.16.0.0/12"),
    segment_bits=8,
    host_bits=6,
    endpoint_bits=6,
    new_connections=250,
    tenant_connections=5000,
    fragments=20,
    tenant_fragments=30,
    service_ranges=(IPv4Network("10.96.0.0/12"), IPv4Network("10.200.0.0/16")),
)


def parsed(path: Path) -> ConfigOpts:
    """What ryu-manager makes of its --config-file."""
    conf = ConfigOpts()
    register(conf)
    register(conf)
    conf(args=["--config-file", str(path)])
    return conf


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def writer(text: str) -> Path:
        path = tmp_path / "romana.conf"
        path.write_text(text)
        return path

    return writer


def test_a_folder_and_the_controller_read_the_same(write: Callable[[str], Path]) -> None:
    path = write(FULL)
    assert load_settings(path.parent) == WANTED
    conf = parsed(path)
    assert settings_from(conf) == WANTED
    assert controller_options_from(conf) == ControllerOptions(
        manifests=Path("/srv/manifests"),
        manifests_recursive=True,
        nodes=3,
        ovsdb=("unix:/run/a.sock", "tcp:127.0.0.1:6640"),
        state_file=Path("/var/lib/romana/state"),
        datapath=DatapathType.SYSTEM,
    )
    assert datapath_in(path) is DatapathType.SYSTEM


def test_defaults(tmp_path: Path) -> None:
    assert load_settings(tmp_path) == Settings()
    assert load_settings(tmp_path / "missing") == Settings()
    (tmp_path / "empty.conf").write_text("")
    conf = parsed(tmp_path / "empty.conf")
    assert (settings_from(conf), controller_options_from(conf)) == (Settings(), ControllerOptions())
    assert datapath_in(tmp_path / "empty.conf") is None


def test_the_example_file_names_every_option_with_its_default(tmp_path: Path) -> None:
    text = (ETC / "romana-ovs.conf").read_text()
    shown = dict(re.findall(r"^# (\w+) =[ ]?(.*)$", text, re.MULTILINE))
    assert shown == {option.name: option.default for option in OPTIONS}
    uncommented = re.sub(r"^# (\w+ =)", r"\1", text, flags=re.MULTILINE)
    (tmp_path / "romana.conf").write_text(uncommented)
    assert load_settings(tmp_path) == Settings()
    assert settings_from(parsed(ETC / "romana-ovs.conf")) == Settings()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("isolation = tiers", '[romana] isolation: "tiers" is none of tier, tenant, none'),
        ("isolation =", '[romana] isolation: "" is none of tier, tenant, none'),
        ("tenant_source = label:a", "is none of namespace, namespace-label:KEY, pod-label:KEY"),
        ("tenant_source = pod-label:", "pod-label needs a label key"),
        ("tenant_source = pod-label:a b", 'label key "a b"'),
        ("tenant_source = namespace:a", "namespace takes no label key"),
        ("shared_tenants = a b", 'tenant "a b"'),
        ("tier_labels = a,/b", 'label key "/b"'),
        ("tier_labels = a,a", "given twice"),
        ("service_ranges = 192.0.2.0/24, 192.0.2.0", '[romana] service_ranges: "192.0.2.0" is not a CIDR'),
        (
            "service_ranges = 10.96.0.0/12",
            "[romana] service_ranges: the Services' range 10.96.0.0/12 overlaps the pods' network 10.0.0.0/8",
        ),
        ("network = 10.0.0.0", "is not a CIDR"),
        ("network = 10.0.0.1/8", "without host bits"),
        ("network = fd00::/8", "IPv4"),
        ("network = 224.0.0.0/8", "224.0.0.0/8 holds addresses of 224.0.0.0/4, which no pod and no node can have"),
        ("network = 0.0.0.0/2", "0.0.0.0/2 holds addresses of 0.0.0.0/32"),
        ("network = 126.0.0.0/7", "127.0.0.0/8"),
        ("network = 169.254.0.0/16", "169.254.0.0/16"),
        ("segment_bits = 0", '"0" is not a number of bits from 1 to 30'),
        ("host_bits = six", '"six" is not a number of bits'),
        ("endpoint_bits = -6", '"-6" is not a number of bits'),
        ("new_connections = -1", '"-1" is not a number of connections a second from 0 to 1000000'),
        ("new_connections = 1k", "is not a number of connections a second"),
        ("new_connections = 1000001", "is not a number of connections a second"),
        ("fragments = -1", '"-1" is not a number of fragments a second from 0 to 1000000'),
        ("tenant_connections = -1", '"-1" is not a number of connections from 0 to 100000000'),
        ("tenant_connections = many", "is not a number of connections"),
        ("nodes = 0", "is not a number of nodes"),
        ("ovsdb = /var/run/db.sock", "is no OVSDB remote"),
        ("datapath = kernel", '[romana] datapath: "kernel" is none of auto, system, netdev'),
        ("segment_bit = 6", "[romana] segment_bit: unknown option"),
    ],
)
def test_what_is_wrong_is_named_with_file_option_and_reason(
    write: Callable[[str], Path], line: str, message: str
) -> None:
    path = write(f"[romana]\n{line}\n")
    with pytest.raises(InputError) as caught:
        load_settings(path.parent)
    assert str(caught.value).startswith(f"{path}: [romana] ")
    assert message in str(caught.value)
    assert len(caught.value.problems) == 1


def test_all_that_is_wrong_is_named_at_once(write: Callable[[str], Path]) -> None:
    path = write("[romana]\nisolation = x\nnodes = x\nfoo = 1\n[romano]\nbar = 1\n")
    with pytest.raises(InputError) as caught:
        load_settings(path.parent)
    assert [problem.field for problem in caught.value.problems] == [
        "[romano]",
        "[romana] foo",
        "[romana] isolation",
        "[romana] nodes",
    ]
    write("[romana]\nisolation = x\nnodes = x\nisolaton = tier\n[other_app]\nbar = 1\n")
    with pytest.raises(InputError) as caught:
        settings_from(parsed(path))
    assert [problem.field for problem in caught.value.problems] == ["[romana] isolaton", "[romana] isolation"]
    assert str(path) in str(caught.value)
    with pytest.raises(InputError, match="nodes"):
        controller_options_from(parsed(path))


@pytest.mark.parametrize(
    ("text", "message"), [("isolation = tier\n", "Section"), ("[romana\n", "line 1"), ("[romana]\nwords\n", "line 2")]
)
def test_a_file_that_is_no_configuration(write: Callable[[str], Path], text: str, message: str) -> None:
    path = write(text)
    with pytest.raises(InputError, match=message) as caught:
        load_settings(path.parent)
    assert str(path) in str(caught.value)
