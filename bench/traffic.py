"""Measures TCP and UDP between two local pods, through full tables and through one NORMAL flow, in turns.

`python -m bench.traffic PODS ROUNDS SECONDS` prints JSON, with `--ratios` a table without rates.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from bench.pods import PORT, Bench, Place, ask, bench, serving
from bench.report_traffic import ratios
from romana_ovs_emulate.system import inside, run

NORMAL = "priority=0,actions=NORMAL"
TRACKED = "\n".join(
    (
        "table=0,priority=1,ip,actions=ct(zone=1,table=1)",
        "table=0,priority=0,actions=NORMAL",
        "table=1,priority=1,ct_state=+trk+new,ip,actions=ct(zone=1,commit),NORMAL",
        "table=1,priority=1,ct_state=+trk+est,ip,actions=NORMAL",
    )
)
FILTERED = "filtered"
COUNTED = ("romana", "normal", "tracked")
PACKETS = re.compile(r"packets:(\d+)")
MASKS = re.compile(r"masks: hit:\d+ total:(\d+)")
"""The kernel's datapath shows how many masks its megaflows have (ovs-dpctl(8), show)."""
FIRST_LOOKUP = "recirc_id(0)"
READY_SECONDS = 10.0
TICK = 1 / os.sysconf("SC_CLK_TCK")
"""Seconds of a clock tick, in which processor time is counted."""


def measure(pods: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Medians and ratios of `rounds` turns of `seconds` for each set of tables."""
    with bench(pods, 1, 1) as found:
        sets = {"romana": found.tables, "normal": NORMAL, "tracked": TRACKED, FILTERED: found.tables}
        with streaming(found) as stream:
            found.program(NORMAL)
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


def _turns(found: Bench, sets: dict[str, str], rounds: int, once: Callable[[], float]) -> tuple[Taken, Taken]:
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


def _lookups(found: Bench, tables: str, once: Callable[[], float]) -> dict[str, float]:
    """After one stream: megaflows for IP, how often a packet is looked up again, and the masks (0 where not known)."""
    found.program(tables)
    found.filter_ports(filtered=False)
    once()
    megaflows = found.megaflows()
    packets = [int(match.group(1)) if (match := PACKETS.search(line)) else 0 for line in megaflows]
    entered = sum(count for count, line in zip(packets, megaflows, strict=True) if FIRST_LOOKUP in line)
    again = sum(count for count, line in zip(packets, megaflows, strict=True) if ",recirc(" in line)
    masks = MASKS.search(found.node.appctl("dpctl/show"))
    return {
        "megaflows": len(megaflows),
        "recirculations": again / max(entered, 1),
        "masks": int(masks.group(1)) if masks else 0,
    }


def _worked(found: Bench) -> float:
    """Seconds of processor time that the switch process has used (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{found.node.switch_pid()}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK


def _compared(taken: Taken) -> dict[str, Any]:
    """Medians by set of tables; ratios to NORMAL turn by turn, as their quartiles."""
    compared = {
        name: _quartiles([one / base for one, base in zip(rates, taken["normal"], strict=True)])
        for name, rates in taken.items()
    }
    compared["romana to tracked"] = _quartiles(
        [one / base for one, base in zip(taken["romana"], taken["tracked"], strict=True)]
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
    figures = measure(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
    print(ratios(figures) if "--ratios" in sys.argv[4:] else json.dumps(figures))
