"""Renders the figures of an API server as a section of `bench/results.md`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.markdown import met, table

Found = dict[str, Any]
LISTED_AIM = 3.0
CHANGE_AIM = 20.0
MEMORY_AIM = 250.0
ECHO_AIM = 500.0

_STARTS = (
    ("first", "first start of all, every number to be given"),
    ("again", "restart, with its state file"),
    ("node", "`--node NAME`, numbers given by a registry apart"),
)
_WAYS = (("one", "one process for all"), ("node", "`--node NAME`, registry apart"))
_CHANGES = (("all", "all"), ("pods", "pods"), ("policies", "policies"))


def aims(found: Found) -> list[tuple[str, str, str, str]]:
    """The rows about it in the table of aims."""
    return list(_aims(found))


def _aims(found: Found) -> Iterator[tuple[str, str, str, str]]:
    pods = f"{found['pods']:,}"
    again = found["starts"]["again"]
    seconds = again["start"]["programmed"] / 1000
    listed = (_listing(again) + again["computing"]) / 1000
    yield (
        f"API server: {pods} pods listed and compiled",
        f"under {LISTED_AIM:g} s",
        f"{listed:.1f} s ({seconds:.1f} s from the start of Python to the barrier)",
        met(listed < LISTED_AIM),
    )
    one = found["changes"]["one"]
    middle = one["changes"]["all"]["median"]
    yield (
        f"API server: event to programmed, median under {found['per second']:.0f} changes/s",
        f"under {CHANGE_AIM:g} ms",
        f"{middle:.1f} ms",
        met(middle < CHANGE_AIM),
    )
    memory = one["resident"]["controller"] + one["resident"]["kubernetes"]
    yield (
        f"API server: controller and its Kubernetes process, {pods} pods",
        f"under {MEMORY_AIM:g} MiB",
        f"{memory:.0f} MiB",
        met(memory < MEMORY_AIM),
    )
    longest = max(
        [each["echo"] for each in found["starts"].values()] + [each["echo"] for each in found["changes"].values()]
    )
    yield (
        "API server: longest OpenFlow echo delay meanwhile",
        f"under {ECHO_AIM:g} ms",
        f"{longest:.0f} ms",
        met(longest < ECHO_AIM),
    )


def _listing(start: Found) -> float:
    """Milliseconds from the first word of the Kubernetes process until all is listed and decoded."""
    listed: float = start["start"]["listed"] - start["start"]["first message"]
    return listed


def section(found: Found) -> str:
    """The section itself."""
    one = found["changes"]["one"]
    return f"""
## From an API server to the switch, at {found["pods"]:,} pods

A real kube-apiserver on the same machine, which shares the two cores; pods as a ReplicaSet makes them, about 3 KB \
each as they are served. From the start of the process to the barrier by which the switch has all tables and every \
pod its class:

{_start_table(found)}

*Python* is until the application runs, *Kubernetes process* until that process says its first word, *listing* until \
every resource is listed and decoded there, *computing* all rounds together. *Numbers* is the rest before the first \
tables, a wait for the API server: an Allocation and a ClassSet for each of the namespaces are written one by one at \
the first start of all, nothing at a restart. With `--node` only the node's own pods are listed.

Then {found["per second"]:.0f} changes a second for {found["seconds"]:.0f} s, a quarter each of pods added, \
relabelled and deleted on the node, the same on another node, pods relabelled there, policies added and deleted that \
concern the node; timed from when the event came to the Kubernetes process to the barrier of the round that has it:

{_change_table(found)}

Changes that come during a round are taken together by the next. An event's way from the Kubernetes process to the \
one that computes takes {one["changes"]["all"]["pipe"]:.1f} ms (median); a change costs the controller \
{one["work"]:.1f} ms of processor time, all told. The rest is waiting: for the round before, for the disk (new \
addresses are in the state file before their flows are sent), for the switch, and for a core, since kube-apiserver, \
etcd, the switch and the asker share the same two; where the machine has other work that is most of it.

*Questions* are policies that ask of peers what none asked before (here one a second): they are in force only when \
the classes that answer are known to every node, in three steps, each published and acknowledged by way of the API \
server. The Allocation is written for each step; at this size that one object is 65 KB, which kube-apiserver takes \
some 40 ms to validate and store.

{_memory_table(found)}

*Echo* is the longest that an OpenFlow echo request, asked all the time on the controller's socket, waited for its \
answer: from the start to the barrier, and under the changes.
"""


def _start_table(found: Found) -> str:
    head = ("", "total", "Python", "Kubernetes process", "listing", "computing", "numbers", "flows", "rounds")
    return table(head, (_start_row(name, found["starts"][key]) for key, name in _STARTS))


def _start_row(name: str, each: Found) -> tuple[str, ...]:
    moments = each["start"]
    numbers = max(0.0, moments["programmed"] - moments["listed"] - each["computing"])
    parts = (
        moments["programmed"],
        moments["application"],
        moments["first message"] - moments["application"],
        _listing(each),
        each["computing"],
        numbers,
    )
    return name, *(f"{part:,.0f} ms" for part in parts), f"{max(each['flows']):,}", str(each["rounds"])


def _change_table(found: Found) -> str:
    head = ("", "changes", "count", "median", "99th percentile", "longest", "came to be, per second")
    rows = []
    for key, name in _WAYS:
        way = found["changes"][key]
        for kind, what in _CHANGES:
            rows.append(_change_row(name, what, way["changes"][kind], f"{way['rate']:.0f}"))
        rows.append(_change_row(name, "questions", way["questions"], "1"))
    return table(head, rows)


def _change_row(name: str, what: str, each: Found, rate: str) -> tuple[str, ...]:
    times = (f"{each[part]:.1f} ms" for part in ("median", "p99", "most"))
    return name, what, f"{each['count']:.0f}", *times, rate


def _memory_table(found: Found) -> str:
    head = ("", "controller", "Kubernetes process", "together", "at most so far", "echo, start", "echo, changes")
    rows = []
    for (key, name), start in zip(_WAYS, ("first", "node"), strict=True):
        memory, way = found["changes"][key]["resident"], found["changes"][key]
        both = memory["controller"] + memory["kubernetes"]
        sizes = (memory["controller"], memory["kubernetes"], both, memory["most"])
        rows.append(
            (
                name,
                *(f"{size:.0f} MiB" for size in sizes),
                f"{found['starts'][start]['echo']:.0f} ms",
                f"{way['echo']:.0f} ms",
            )
        )
    return table(head, rows)
