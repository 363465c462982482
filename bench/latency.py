"""Measures from a change of the cluster to the switch's barrier: `python -m bench.latency PODS ROUNDS`.

The application is the real one, the switch a real Open vSwitch with one node's 50 pods; prints JSON.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

from bench import driven
from bench.allocation import into_tier, large_cluster, milliseconds
from bench.driven import Driven
from bench.switch import folder, node, plug
from bench.timed import Spent, configuration, serve
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.labels import Labels, Selector
from romana_ovs.model.objects import Pod
from romana_ovs.state import StateFile
from romana_ovs_emulate.controller import controller_socket

EXTRA = "extra"
"""Name of the pod that comes and goes."""
SAVES = 5
PERCENTILE = 0.99

Step = tuple[str, Cluster]


def home_of(cluster: Cluster) -> str:
    """The node that is measured."""
    return min(cluster.nodes)


def ports(cluster: Cluster) -> list[str]:
    """The pods whose ports are there from the start: the node's own, and the one that comes and goes."""
    home = home_of(cluster)
    some = _pattern(cluster)
    return [*sorted(key for key, pod in cluster.pods.items() if pod.node == home), f"{some.namespace}/{EXTRA}"]


def _pattern(cluster: Cluster) -> Pod:
    home = home_of(cluster)
    return next(pod for pod in cluster.pods.values() if pod.node == home and pod.labels["tier"] == "tier1")


def steps(base: Cluster, rounds: int) -> Iterator[Step]:
    """The changes to time, by name: each kind once in a round, the last of a round leads back to `base`."""
    some = _pattern(base)
    far, farther = sorted(base.nodes)[-2:]
    for index in range(rounds):
        policy = replace(into_tier(some.namespace, 2), name="more", selector=Selector.of({"tier": "tier1"}))
        with_policy = base.with_object(policy)
        yield "policy added", with_policy
        port = replace(policy.ingress[0].ports[0], port=8000 + index)
        edited = replace(policy, ingress=(replace(policy.ingress[0], ports=(port,)),))
        yield "policy edited", with_policy.with_object(edited)
        yield "policy deleted", base
        local = replace(some, name=EXTRA, uid=f"{EXTRA}{index}")
        yield "local pod added", base.with_object(local)
        yield "local pod relabelled", base.with_object(_relabelled(local))
        yield "local pod deleted", base
        remote = replace(some, name=f"far{index}", uid=f"far{index}", node=far)
        yield "remote pod added", base.with_object(remote)
        yield "remote pod relabelled", base.with_object(_relabelled(remote))
        yield "remote pod moved", base.with_object(replace(_relabelled(remote), node=farther, uid=f"moved{index}"))
        yield "remote pod deleted", base


def _relabelled(pod: Pod) -> Pod:
    return replace(pod, labels=Labels({**pod.labels, "tier": "tier2"}))


def scenario(base: Cluster, rounds: int, report: Path) -> Callable[[Driven], None]:
    """What is done once the switch is there: first everything, then single changes; the figures go to `report`."""

    def play(running: Driven) -> None:
        try:
            first = running.change(base)
            _settle(running, base)
            taken: dict[str, list[Spent]] = {}
            for name, cluster in steps(base, rounds):
                taken.setdefault(name, []).append(running.change(cluster))
            told = {
                "pods": len(base.pods),
                "first": _shown(first),
                "flows": next(iter(running.sessions.values())).confirmed.program.counts(),  # type: ignore[union-attr]
                "changes": {name: _summary(spent) for name, spent in taken.items()},
                "saving_ms": _saving(running, report.parent),
            }
            report.write_text(json.dumps(told))
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(0 if report.exists() else 1)

    return play


def _settle(running: Driven, base: Cluster) -> None:
    """One of every change first: what is done once only is no part of the figures."""
    for _, cluster in steps(base, 1):
        running.change(cluster)


def _shown(spent: Spent) -> dict[str, float]:
    return {
        "total": spent.total,
        "computing": spent.computing,
        "answering": spent.answering,
        "sending": spent.sending,
        "flow_mods": spent.flow_mods,
    }


def _summary(taken: list[Spent]) -> dict[str, float]:
    """Medians, the 99th percentile of the total, and the most flow-mods of one change."""
    totals = sorted(spent.total for spent in taken)
    shown = [_shown(spent) for spent in taken]
    return {
        **{name: median(each[name] for each in shown) for name in shown[0]},
        "p99": totals[min(len(totals) - 1, int(PERCENTILE * len(totals)))],
        "most_flow_mods": max(spent.flow_mods for spent in taken),
        "count": len(taken),
    }


def _saving(running: Driven, place: Path) -> float:
    file = StateFile(place / "state")
    return median(milliseconds(lambda: file.save(running._reconciler.durable_state.to_save())) for _ in range(SAVES))


def main(pods: int, rounds: int) -> None:
    """Prints the figures. The process in the middle is Ryu's, and ends itself."""
    base = large_cluster(pods)
    with folder() as place, node(home_of(base)) as (run, here):
        plug(here, ports(base))
        report, manifests = place / "report", place / "manifests"
        manifests.mkdir()
        config = place / "romana.conf"
        config.write_text(configuration(here.ovsdb, manifests))
        child = os.fork()
        if not child:
            Driven.scenario = staticmethod(scenario(base, rounds, report))
            serve(driven.__name__, config, controller_socket(run))
            os._exit(1)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status):
            raise SystemExit("the controller failed")
        print(report.read_text())


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
