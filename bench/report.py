"""Renders the figures as `bench/results.md`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from bench import report_kubernetes, report_traffic
from bench.markdown import met, table

SECTIONS = ("flows", "latency", "restart", "reading", "kubernetes", "traffic", "megaflows")

FLOWS_AIM = 1_000
MILLISECONDS_AIM = 10.0
THROUGHPUT_AIM = 0.95
MEGAFLOWS_AIM = 20
READING_AIMS = {"yaml": 3.0, "json": 1.2}
"""Seconds."""

_DATAPATHS = {
    "netdev": "its userspace datapath (`datapath_type=netdev`: every packet goes through one process, by way of the "
    "kernel's sockets)",
    "system": "the kernel's datapath (`datapath_type=system`)",
}

Found = dict[str, Any]


def results(found: Found) -> str:
    """The whole page; sections that were not measured are left out."""
    parts = [_head(found["machine"]), _aims(found)]
    parts += [_SECTION[name](found[name]) for name in SECTIONS if name in found]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _head(machine: Found) -> str:
    return f"""
# Figures

Written by `make bench`; run it to have those of your own machine. Sections can be chosen: `bench/run.py flows \
latency`.

Measured on {machine["cores"]} cores and {machine["memory"]} of memory, Linux {machine["kernel"]}, Python \
{machine["python"]}, Open vSwitch {machine["ovs"]} with {_DATAPATHS[machine["datapath"]]}; \
load at the start {machine["load"]}. Switches, \
controllers \
and pods share these cores, so what is compared was measured in turns and is given as medians.

The cluster: 50 pods on each node; 5 tenants of 4 tiers at 100 pods, 25 at 1,000, 250 at 10,000; tier i + 1 accepts \
TCP/80 from tier i of its tenant; the address plan has 11 segment bits, 8 host bits and 5 endpoint bits. Pods are \
dealt \
so that those of one node are of as many tenants and tiers as there are: at 10,000 pods, 50 pods of 50 tenants. \
Nodes \
are reached by one Geneve port. "The node" is the first one, with its controller beside it, as in production.
"""


def _aims(found: Found) -> str:
    rows: list[tuple[str, str, str, str]] = []
    if "flows" in found:
        most = max(each["flows"]["total"] for case in ("tenant", "tier") for each in found["flows"][case])
        rows.append(
            ("Flows of one node, every size", f"under {FLOWS_AIM:,}", f"{most:,} at most", met(most < FLOWS_AIM))
        )
    if "latency" in found:
        rows += _latency_aims(found["latency"]["changes"])
    if "reading" in found:
        rows += [_reading_aim(found["reading"][kind], kind) for kind in READING_AIMS]
    if "kubernetes" in found:
        rows += report_kubernetes.aims(found["kubernetes"])
    if "traffic" in found:
        low, ratio, high = found["traffic"]["throughput"]["ratio"]["romana"]
        enough = met(ratio >= THROUGHPUT_AIM)
        rows.append(
            (
                "Throughput of one stream, against NORMAL",
                f"at least {THROUGHPUT_AIM}",
                f"{ratio:.2f} ({low:.2f} to {high:.2f})",
                enough,
            )
        )
    if "megaflows" in found:
        one, many = (found["megaflows"][name]["megaflows"] for name in ("one pair", "all pairs"))
        pairs = found["megaflows"]["side"] ** 2
        rows.append(("Megaflows, one pair of pods", f"under {MEGAFLOWS_AIM}", str(one), met(one < MEGAFLOWS_AIM)))
        rows.append(
            (f"Megaflows, {pairs} pairs of pods", f"under {MEGAFLOWS_AIM}", str(many), met(many < MEGAFLOWS_AIM))
        )
    return "## Aims\n\n" + table(("", "aim", "measured", ""), rows)


def _latency_aims(changes: Found) -> list[tuple[str, str, str, str]]:
    rows = []
    for kind in ("policy", "local pod"):
        slowest = max(each["total"] for name, each in changes.items() if name.startswith(kind))
        what = f"A {kind} to programmed, slowest kind of change"
        rows.append((what, f"under {MILLISECONDS_AIM:g} ms", f"{slowest:.1f} ms", met(slowest < MILLISECONDS_AIM)))
    remote = max(each["most_flow_mods"] for name, each in changes.items() if name.startswith("remote"))
    rows.append(("A remote pod, flow-mods", "0", str(remote), met(remote == 0)))
    return rows


def _flows(found: Found) -> str:
    sizes = [*found["tenant"], *found["tier"]]
    worst = found["dns"]
    return f"""
## Flows, compile time and memory

{_flow_table(sizes)}

*Policy* are rows that say who may (rules, isolation, tenants), *forwarding* where a destination is (one row for \
each \
pod here and for each other node), *pods* who may send (three rows for each pod here, and the known nodes of the \
tunnel), *other* conntrack, ARP and delivery. With the number of pods elsewhere nothing grows; with the number of \
nodes \
one forwarding row each. With isolation `tier` the pods that no policy selects (tier 0) have a row of their own \
segment.

{_cost_table([*sizes, *worst])}

*All at once* is the first time a node is compiled, *one change* from a new cluster to the node's new tables when a \
policy comes or goes, both as medians in one process without a switch. *Engine* is following the whole cluster for \
the \
first time (addresses, identities). Memory is the resident set of that process: Python and the program before \
anything \
is loaded, the cluster's objects, and all of it at the end; a whole controller's is among the restarts below.

### The worst case: pods that every tenant's rules name

Two pods of cluster DNS on the node, in `kube-system`; every tenant has an egress policy that lets its pods out to \
them on port 53 and to pods of their own namespace, nowhere else. What clients may is then decided where the servers \
are, so this one node holds something of every tenant:

{_flow_table(worst)}

It grows with the tenants whose rules name these pods, by six rows each (two protocols, original and reply, and \
later fragments), all in table DeferredEgress; every other node is as above, with one row more for each egress rule \
of its own.
"""


def _flow_table(rows: Iterable[Found]) -> str:
    head = ("isolation", "pods", "nodes", "policy", "forwarding", "pods'", "other", "total")
    kinds = ("policy", "forwarding", "pods", "other", "total")
    return table(
        head,
        (
            (_case(each), f"{each['pods']:,}", each["nodes"], *(f"{each['flows'][kind]:,}" for kind in kinds))
            for each in rows
        ),
    )


def _cost_table(rows: Iterable[Found]) -> str:
    head = ("isolation", "pods", "engine", "all at once", "one change", "program", "cluster", "resident")
    return table(
        head,
        (
            (
                _case(each),
                f"{each['pods']:,}",
                *(f"{each[name]:.1f} ms" for name in ("engine_ms", "full_ms", "change_ms")),
                *(f"{each[name]:.0f} MiB" for name in ("base_mib", "cluster_mib", "process_mib")),
            )
            for each in rows
        ),
    )


def _case(each: Found) -> str:
    return "tenant, DNS here" if each["case"] == "dns" else str(each["case"])


def _latency(found: Found) -> str:
    changes: Found = found["changes"]
    head = ("change", "median", "99th percentile", "computing", "sending", "Open vSwitch", "flow-mods")
    rows = (
        (
            name,
            *(f"{each[part]:.1f} ms" for part in ("total", "p99", "computing", "sending", "answering")),
            f"{each['flow_mods']:.0f}",
        )
        for name, each in changes.items()
    )
    count = min(each["count"] for each in changes.values())
    first = found["first"]
    return f"""
## From a changed cluster to the barrier, at {found["pods"]:,} pods

{table(head, rows)}

{count} changes of each kind, one after the other, through the real Ryu application and a real Open vSwitch with the \
node's {found["flows"]["total"]:,} flows: from a new cluster in memory to the barrier that confirms its flows. \
*Computing* is from the cluster to the wanted tables, *Open vSwitch* the waits for its answers (one for the bundle, \
one \
for its commit, one more where a pod's old connections are forgotten, and one where its meter comes or goes), \
*sending* the rest: comparing, encoding, writing. A meter-mod counts as a flow-mod here. \
A relabelled pod changes its tier and keeps its address; a moved pod goes from one far node to another. Reading \
the folder of manifests is not in it, nor is the state file, \
which is written before the flows are sent whenever a pod comes or goes: {found["saving_ms"]:.0f} ms at this size, \
most of \
it as text and to the disk. The first time everything was sent: {first["flow_mods"]} flow-mods in \
{first["total"]:.0f} ms, \
{first["computing"]:.0f} ms of it computing.

The rows of remote pods are what **another node** is sent when a pod is added, deleted, moved or relabelled \
elsewhere: \
{max(each["most_flow_mods"] for name, each in changes.items() if name.startswith("remote"))} flow-mods, in every one \
of \
these changes.
"""


def _restart(found: Found) -> str:
    head = (
        "",
        "total",
        "starting Python",
        "manifests",
        "computing",
        "waiting for the switch",
        "reading back",
        "of the processor",
        "flow-mods",
        "resident",
    )
    parts = ("total", "importing", "manifests", "computing", "waiting", "reading", "processor")
    runs = [("first start", found["first"]), *((f"restart {i}", run) for i, run in enumerate(found["restarts"], 1))]
    rows = (
        (name, *(f"{each[part]:,.0f} ms" for part in parts), each["flow_mods"], f"{each['mib']:.0f} MiB")
        for name, each in runs
    )
    return f"""
## Restarting the controller, at {found["first"]["pods"]:,} pods

{table(head, rows)}

A new process with a folder of {found["first"]["pods"]:,} pods in JSON, its state file and the node's running \
switch, \
until the switch's barrier says that it has everything. Open vSwitch tries its controller again a second after it \
was \
lost, then less often; that is what the waiting is. Nothing is lost or opened meanwhile: the flows stay, and none is \
sent.
"""


def _reading_aim(one: Found, kind: str) -> tuple[str, str, str, str]:
    what = f"Reading {one['pods']:,} pods and {one['policies']:,} policies, {_megabytes(one)} of {kind.upper()}"
    aim, wall = READING_AIMS[kind], one["now"]["wall"]
    return what, f"under {aim:g} s", f"{wall:.2f} s", met(wall < aim)


def _megabytes(one: Found) -> str:
    return f"{one['bytes'] / 1e6:.0f} MB"


def _reading(found: Found) -> str:
    head = ("", "size", "time", "of the processor")
    rows = (
        (
            kind.upper(),
            _megabytes(found[kind]),
            *(f"{found[kind]['now'][part]:.2f} s" for part in ("wall", "processor")),
        )
        for kind in READING_AIMS
    )
    one = found["yaml"]
    return f"""
## Reading a folder of {one["pods"]:,} pods and {one["policies"]:,} policies

{table(head, rows)}

One file with a List, as `kubectl get pods,netpol -A -o yaml` (or `-o json`) prints it, to a cluster with all \
problems; the start of Python is not in it. `python -m bench.reading {one["pods"]} --against DIR` reads it with \
another checkout, too, in turns.
"""


def _megaflows(found: Found) -> str:
    pairs = found["side"] ** 2
    names = (
        ("one pair", "one client, one server"),
        ("all pairs", f"{found['side']} clients, {found['side']} servers"),
        ("denied", "one client, ports that no rule admits"),
    )
    rows = []
    for name, what in names:
        normal = found.get(f"normal {name}", {}).get("megaflows", "")
        rows.append((what, found[name]["connections"], found[name]["megaflows"], normal))
    answered = found["denied"]["answered"]
    return f"""
## Megaflows under {found["tuples"]:,} five-tuples of one tier pair

{table(("pods", "five-tuples", "megaflows", "with one NORMAL flow"), rows)}

Counted in `dpctl/dump-flows` once all connections had been made, each with a byte there and one back; none expired \
meanwhile. They do not grow with connections, nor with ports that are refused ({answered} of \
{found["denied"]["connections"]} were answered). They grow with pairs of pods that talk: each pair has its own ports \
and \
MACs, so a learning switch has two for a pair as well, and we have seven: before conntrack one for each direction; \
after it the \
opening, its delivery, the client's and the server's packets, the answer to the opening. For \
{pairs} pairs that is {found["all pairs"]["megaflows"]}; the aim holds for one pair, as any switch with {pairs} \
pairs has \
more than {MEGAFLOWS_AIM}.
"""


_SECTION: dict[str, Callable[[Found], str]] = {
    "flows": _flows,
    "latency": _latency,
    "restart": _restart,
    "reading": _reading,
    "kubernetes": report_kubernetes.section,
    "traffic": report_traffic.section,
    "megaflows": _megaflows,
}
