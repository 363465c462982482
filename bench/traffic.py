"""Measures TCP and UDP between two pods, through full tables and through one NORMAL flow, in turns.

`python -m bench.traffic PODS ROUNDS SECONDS` prints JSON, with `--ratios` a table without rates. With `--tunnel vxlan`
(or geneve) the pods are on two nodes, and NORMAL uses the same tunnel ports.
A third set of tables, one pass through conntrack before NORMAL, says what tracking alone costs here; a fourth turn, the
full tables again, has the filter of ethertypes at the pods' ports, as they have it in production
(romana_ovs/switch/ethertypes.py).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from bench.pods import PORT, Bench, Place, Tables, ask, bench, serving
from bench.report_traffic import ratios
from romana_ovs_emulate.fabric import Fabric, underlay_address
from romana_ovs_emulate.system import inside, run

NORMAL = "priority=0,actions={normal}"
TRACKED = (
    "table=0,priority=1,ip,actions=ct(zone=1,table=1)",
    "table=0,priority=0,actions={normal}",
    "table=1,priority=1,ct_state=+trk+new,ip,actions=ct(zone=1,commit),{normal}",
    "table=1,priority=1,ct_state=+trk+est,ip,actions={normal}",
)
"""One pass through conntrack, then NORMAL."""
FILTERED = "filtered"
COUNTED = ("romana", "normal", "tracked")
PACKETS = re.compile(r"packets:(\d+)")
MASKS = re.compile(r"masks: hit:\d+ total:(\d+)")
"""The kernel's datapath shows how many masks its megaflows have (ovs-dpctl(8), show)."""
FIRST_LOOKUP = "recirc_id(0)"
READY_SECONDS = 10.0
TICK = 1 / os.sysconf("SC_CLK_TCK")
"""Seconds of a clock tick, in which processor time is counted."""


def measure(pods: int, rounds: int, seconds: float, fabric: Fabric | None = None) -> dict[str, Any]:
    """Medians and ratios of `rounds` turns of `seconds` for each set of tables; with a `fabric` between two nodes."""
    with bench(pods, 1, 1, fabric) as found:
        normal, tracked = _to_each_other(found, (NORMAL,)), _to_each_other(found, TRACKED)
        sets = {"romana": found.tables, "normal": normal, "tracked": tracked, FILTERED: found.tables}
        with streaming(found) as stream:
            found.program(normal)
            stream(seconds)
            streams, work = _turns(found, sets, rounds, lambda: stream(seconds))
            lookups = {name: _lookups(found, sets[name], lambda: stream(seconds)) for name in COUNTED}
        datagrams, _ = _turns(found, sets, rounds, lambda: _datagrams(found, seconds))
        with serving(found.servers):
            client, server = found.clients[0], found.servers[0].address
            words = ("connect", server, str(PORT), str(seconds))
            rates, _ = _turns(found, sets, rounds, lambda: float(ask(client, *words)["rate"]))
        return {
            "pods": pods,
            "flows": found.flows,
            "datapath": found.node.datapath.value,
            "fabric": fabric.value if fabric else "",
            "lookups": lookups,
            "rounds": rounds,
            "seconds": seconds,
            "sender": "iperf3" if shutil.which("iperf3") else "a sender of our own",
            "throughput": _compared(streams),
            "per processor": _compared(
                {
                    name: [rate * seconds / max(used, TICK) for rate, used in zip(rates, work[name], strict=True)]
                    for name, rates in streams.items()
                }
            ),
            "datagrams": _compared(datagrams),
            "connections": _compared(rates),
        }


Taken = dict[str, list[float]]


def _to_each_other(found: Bench, flows: Sequence[str]) -> Tables:
    """For each node flows with NORMAL in place of `{normal}`; what it puts into a tunnel goes to the other node."""
    remotes = [f"set_field:{underlay_address(index)}->tun_dst," for index in range(len(found.nodes))][::-1]
    if found.fabric is None:
        remotes = [""]
    return tuple("\n".join(flows).replace("{normal}", f"{remote}NORMAL") for remote in remotes)


def _turns(found: Bench, sets: dict[str, Tables], rounds: int, once: Callable[[], float]) -> tuple[Taken, Taken]:
    """What `once` says under each set of tables, in turns; and the switch's seconds of processor time meanwhile.

    Every other turn runs backwards.
    """
    taken: Taken = {name: [] for name in sets}
    work: Taken = {name: [] for name in sets}
    for turn in range(rounds):
        for name in list(sets)[:: -1 if turn % 2 else 1]:
            found.program(sets[name])
            found.filter_ports(filtered=name == FILTERED)
            before = _worked(found)
            taken[name].append(once())
            work[name].append(_worked(found) - before)
    return taken, work


def _datagrams(found: Bench, seconds: float) -> float:
    """Datagrams per second that reach the server's pod, whether or not its socket has room for them."""
    client, server = found.clients[0], found.servers[0]
    with serving([server], "answer"):
        before = _received(server)
        sent = ask(client, "flood", server.address, str(PORT), str(seconds))
        return (_received(server) - before) / float(sent["seconds"])


def _received(place: Place) -> int:
    """Packets that the pod's device has received (proc(5), net/dev)."""
    lines = run(inside(place.netns, ["cat", "/proc/net/dev"])).splitlines()
    (counters,) = (line.partition(":")[2].split() for line in lines if line.strip().startswith("eth0:"))
    return int(counters[1])


def _lookups(found: Bench, tables: Tables, once: Callable[[], float]) -> dict[str, float]:
    """After one stream: megaflows for IP, how often a packet is looked up again, and the masks (0 where not known).

    Megaflows and masks of both nodes where there are two, and the look-ups of a packet on the clients' node.
    """
    found.program(tables)
    found.filter_ports(filtered=False)
    once()
    megaflows = found.megaflows()
    packets = [int(match.group(1)) if (match := PACKETS.search(line)) else 0 for line in megaflows]
    entered = sum(count for count, line in zip(packets, megaflows, strict=True) if FIRST_LOOKUP in line)
    again = sum(count for count, line in zip(packets, megaflows, strict=True) if ",recirc(" in line)
    masks = [MASKS.search(node.appctl("dpctl/show")) for node in found.nodes]
    return {
        "megaflows": sum(len(found.megaflows(node)) for node in found.nodes),
        "recirculations": again / max(entered, 1),
        "masks": sum(int(each.group(1)) for each in masks if each),
    }


def _worked(found: Bench) -> float:
    """Seconds of processor time that the switch processes have used (proc(5), fields 14 and 15)."""
    used = 0
    for node in found.nodes:
        fields = Path(f"/proc/{node.switch_pid()}/stat").read_text().rpartition(")")[2].split()
        used += int(fields[11]) + int(fields[12])
    return used * TICK


def _compared(taken: Taken) -> dict[str, Any]:
    """Medians by set of tables; ratios to NORMAL turn by turn, as their quartiles."""
    compared = {
        name: _quartiles([one / base for one, base in zip(rates, taken["normal"], strict=True)])
        for name, rates in taken.items()
    }
    for name in ("romana", FILTERED):
        compared[f"{name} to tracked"] = _quartiles(
            [one / base for one, base in zip(taken[name], taken["tracked"], strict=True)]
        )
    return {"median": {name: median(rates) for name, rates in taken.items()}, "ratio": compared}


def _quartiles(values: list[float]) -> list[float]:
    return quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3


@contextmanager
def streaming(found: Bench) -> Iterator[Callable[[float], float]]:
    """A function that sends one TCP stream for some seconds, and returns bits per second: iperf3's, or our own."""
    client, server = found.clients[0], found.servers[0]
    if shutil.which("iperf3") is None:
        with serving([server]):
            yield lambda seconds: float(ask(client, "send", server.address, str(PORT), str(seconds))["rate"])
        return
    argv = inside(server.netns, ["iperf3", "--server", "--port", str(PORT), "--bind", server.address, "--forceflush"])
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        for line in process.stdout or ():
            if "listening" in line:
                break
        yield lambda seconds: _iperf(client, server, seconds)
    finally:
        process.kill()
        process.wait()


def _iperf(client: Place, server: Place, seconds: float) -> float:
    words = ["iperf3", "--client", server.address, "--port", str(PORT), "--time", f"{seconds:.0f}", "--json"]
    told = json.loads(run(inside(client.netns, [*words, "--connect-timeout", f"{READY_SECONDS * 1000:.0f}"])))
    return float(told["end"]["sum_received"]["bits_per_second"])


if __name__ == "__main__":
    options = dict(zip(sys.argv[4:], sys.argv[5:], strict=False))
    chosen = Fabric(options["--tunnel"]) if "--tunnel" in options else None
    figures = measure(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), chosen)
    print(ratios(figures) if "--ratios" in sys.argv[4:] else json.dumps(figures))
