"""Whether the measurements work, with tiny sizes; how fast anything is, `make bench` says."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from bench.allocation import PODS_PER_NODE, SIZES, large_cluster
from bench.markdown import table
from bench.nodes import dns_cluster, facts_of, tier_cluster
from bench.report import results
from romana_ovs.model.settings import Isolation
from romana_ovs_emulate import binaries
from tests.support.private_ovs import needs_ovs

ROOT = Path(__file__).resolve().parents[2]
MACHINE = {"cores": "2", "memory": "4 GiB", "kernel": "6", "python": "3", "ovs": "3", "datapath": "netdev", "load": "0"}


@pytest.mark.parametrize("pods", SIZES)
def test_one_nodes_pods_have_all_tenants_and_tiers(pods: int) -> None:
    cluster = large_cluster(pods)
    on_node = Counter(pod.node for pod in cluster.pods.values())
    assert set(on_node.values()) == {PODS_PER_NODE}
    for node in cluster.nodes:
        local = [pod for pod in cluster.pods.values() if pod.node == node]
        segments = {(pod.namespace, pod.labels["tier"]) for pod in local}
        assert len({pod.namespace for pod in local}) == min(SIZES[pods], PODS_PER_NODE)
        assert len({tier for _, tier in segments}) == 4
        assert len(segments) == min(4 * SIZES[pods], PODS_PER_NODE)


def test_the_clusters_are_what_they_are_called() -> None:
    dns, tier = dns_cluster(100), tier_cluster(100)
    assert tier.settings.isolation is Isolation.TIER
    home = facts_of(dns, min(dns.nodes))
    assert {"kube-system/dns0", "kube-system/dns1"} <= set(home.pod_ports)
    assert len(dns.policies) == len(large_cluster(100).policies) + SIZES[100]


def test_an_aim_that_is_missed_is_called_so() -> None:
    flows = {"policy": 1, "forwarding": 1, "pods": 1, "other": 998, "total": 1_001}
    figures = ("engine_ms", "full_ms", "change_ms", "base_mib", "cluster_mib", "process_mib")
    one = {"case": "tenant", "pods": 100, "nodes": 2, "flows": flows, **dict.fromkeys(figures, 1.0)}
    text = results({"machine": MACHINE, "flows": {"tenant": [one], "tier": [one], "dns": [one]}})
    assert "| under 1,000 | 1,001 at most | not met, explained below |" in text
    assert "Restarting" not in text


def test_tables_have_a_ruler() -> None:
    assert table(("a", "b"), [("x", 1)]).splitlines() == ["| a | b |", "|---|---:|", "| x | 1 |"]


@pytest.mark.root
@needs_ovs
def test_the_measurements_run_and_are_written_down(tmp_path: Path) -> None:
    started = []
    for name, sections in (("one", ["flows", "latency", "reading"]), ("two", ["megaflows", "traffic"])):
        argv = [sys.executable, "bench/run.py", *sections, "--quick", "--output", str(tmp_path / name)]
        started.append(subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    told = [process.communicate(timeout=60)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], told
    one, two = ((tmp_path / name).read_text() for name in ("one", "two"))
    assert "| A remote pod, flow-mods | 0 | 0 | met |" in one
    assert "| Flows of one node, every size | under 1,000 |" in one
    assert "| Reading 100 pods and 4 policies, 0 MB of YAML | under 3 s |" in one
    assert "| Megaflows, one pair of pods | under 20 |" in two
    assert "TCP, one stream" in two
    assert "| UDP, 64 bytes |" in two
    assert "| one TCP stream | megaflows | recirculations per packet | masks |" in two
    assert str(ROOT) not in one + two


@pytest.mark.root
@pytest.mark.slow("the shortest measurements that mean something, with a control plane of their own")
@needs_ovs
@pytest.mark.skipif(binaries.find() is None, reason="needs Kubernetes built")
def test_an_api_servers_cluster_is_followed_and_measured(tmp_path: Path) -> None:
    argv = [sys.executable, "bench/run.py", "kubernetes", "--quick", "--output", str(tmp_path / "page")]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "page").read_text()
    assert "| API server: 100 pods listed and compiled | under 3 s |" in page
    # One question may be told of more than once, step by step, where the machine is busy.
    assert re.search(r"^\| `--node NAME`, registry apart \| questions \| [1-9] \|", page, re.MULTILINE), page
    assert str(ROOT) not in page
