"""Measures TCP between two local pods, through full tables and through one NORMAL flow, in turns.

`python -m bench.traffic PODS ROUNDS SECONDS` prints JSON. A third set of tables, one pass through conntrack
before NORMAL, says what tracking alone costs here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from bench.pods import PORT, Bench, Place, ask, bench, serving
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
READY_SECONDS = 10.0
TICK = 1 / os.sysconf("SC_CLK_TCK")
"""Seconds of a clock tick, in which processor time is counted."""


def measure(pods: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Medians and ratios of `rounds` turns of `seconds` for each set of tables."""
    with bench(pods, 1, 1) as found:
        sets = {"romana": found.tables, "normal": NORMAL, "tracked": TRACKED}
        with streaming(found) as stream:
            found.program(NORMAL)
            stream(seconds)
            streams, work = _turns(found, sets, rounds, lambda: stream(seconds))
        with serving(found.servers):
            client, server = found.clients[0], found.servers[0].address
            words = ("connect", server, str(PORT), str(seconds))
            rates, _ = _turns(found, sets, rounds, lambda: float(ask(client, *words)["rate"]))
        return {
            "pods": pods,
            "flows": found.flows,
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
            before = _worked(found)
            taken[name].append(once())
            work[name].append(_worked(found) - before)
    return taken, work


def _worked(found: Bench) -> float:
    """Seconds of processor time that the switch process has used (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{found.node.switch_pid()}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK


def _compared(taken: Taken) -> dict[str, Any]:
    """Medians by set of tables; ratios to NORMAL turn by turn, as their quartiles."""
    ratios = {
        name: _quartiles([one / base for one, base in zip(rates, taken["normal"], strict=True)])
        for name, rates in taken.items()
    }
    return {"median": {name: median(rates) for name, rates in taken.items()}, "ratio": ratios}


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
    print(json.dumps(measure(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))))
