"""Renders docs from code (`python -m romana_ovs_emulate.docs`); with `--check`, exits 1 when one is stale.

For developers of romana-ovs: it works in a checkout, on `etc/demo`, `docs/pipeline.md`, `docs/matrix.svg` and the
manifests of an installation there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from romana_ovs.cli.offline import compile_node_tables, offline_engine
from romana_ovs.config import load_settings
from romana_ovs.engine import Engine
from romana_ovs.kube.manifests.folder import FolderReader
from romana_ovs.kube.manifests.store import ManifestStore
from romana_ovs.model.bridge import BridgeFacts
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import InputError
from romana_ovs.model.objects import PodKey
from romana_ovs.pipeline.render import Example, Journey, document
from romana_ovs.simulator.interpret import Switch
from romana_ovs.simulator.network import Network, Wiring
from romana_ovs.simulator.packet import ACK, Addresses, Packet, tcp
from romana_ovs.simulator.trace import trace
from romana_ovs_emulate.manifests import rendered_files
from romana_ovs_emulate.readme_svg import picture

ROOT = Path(__file__).resolve().parents[1]
DEMO = Path("etc") / "demo"
FRONTEND, BACKEND = PodKey("default/nginx-frontend"), PodKey("default/nginx-backend")
SHOWN_NODE = "node1"
NODES = 3
"""With three, placing pods in turn puts frontend and backend on different nodes."""
CLIENT_PORT = 40000

_INTRODUCTION = """\
The demonstration of `etc/demo` with its policy applied, on three nodes in a line of links: tenant t1 has a
frontend and a backend pod, tenant t2 three replicas. Isolation is by tier, and `policy1` lets the frontend reach
the backend on TCP port 80. Here are all flows of {node}, where the backend is, by origin: as `romana-ovs flows`
prints them, but with the names of tables, and with meters. Then come some packets, step by step."""


def main(argv: list[str] | None = None) -> int:
    """Returns exit code 0, or 1 when `--check` finds a page that differs from the code."""
    parser = argparse.ArgumentParser(prog="python -m romana_ovs_emulate.docs", description="Render docs from code.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a page is stale")
    args = parser.parse_args(argv)
    stale = 0
    rendered = {page: render(ROOT / DEMO) for page, render in PAGES.items()}
    for page, text in (rendered | rendered_files(ROOT)).items():
        path = ROOT / page
        if not args.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            print(f"{page} does not match the code; run `make docs`", file=sys.stderr)
            stale += 1
    return 1 if stale else 0


def pipeline_page(demo: Path) -> str:
    """The text of docs/pipeline.md, with the demonstration at `demo`. Raises InputError when that cannot be used."""
    _, cluster = _before_and_after_policy(demo)
    engine, facts = offline_engine(cluster, None)
    flows = {node: list(compile_node_tables(engine, facts, node).flows.values()) for node in facts}
    network = Network({node: Switch(own) for node, own in flows.items()}, Wiring.of(facts))
    packets = _Packets(cluster, engine, facts, network)
    first_packet = packets.first_packet(FRONTEND, BACKEND, 80)
    journeys = (
        packets.journey("The first packet from frontend to backend, TCP port 80", FRONTEND, first_packet),
        packets.journey("The backend's answer", BACKEND, first_packet.reply()),
        packets.journey("The frontend's next packet", FRONTEND, first_packet.with_flags(ACK)),
        packets.journey("From frontend to backend on port 81", FRONTEND, packets.first_packet(FRONTEND, BACKEND, 81)),
    )
    introduction = _INTRODUCTION.format(node=SHOWN_NODE)
    return document(Example(introduction, {SHOWN_NODE: flows[SHOWN_NODE]}, journeys))


def matrix_picture(demo: Path) -> str:
    """The text of docs/matrix.svg. Raises as `pipeline_page` does."""
    return picture(*_before_and_after_policy(demo))


PAGES: Mapping[Path, Callable[[Path], str]] = MappingProxyType(
    {
        Path("docs") / "pipeline.md": pipeline_page,
        Path("docs") / "matrix.svg": matrix_picture,
    }
)
"""The rendered documents, and the functions that render them from the folder of the demonstration."""


def _before_and_after_policy(demo: Path) -> tuple[Cluster, Cluster]:
    """The demonstration before the policy of its sub-folder is in force, and after: pods stay where they are."""
    settings = load_settings(demo)
    store = ManifestStore(settings, default_nodes=NODES)
    folder = FolderReader(demo, settings).read()
    policy = FolderReader(demo / "policy" / "policy1.yaml", settings).read()
    before = store.apply(folder).cluster
    loaded = store.apply(type(folder)(folder.folder, (*folder.files, *policy.files)))
    if loaded.problems:
        raise InputError(*loaded.problems)
    return before, loaded.cluster


class _Packets:
    """Sends packets between the demonstration's pods, and records what happens to them."""

    def __init__(self, cluster: Cluster, engine: Engine, facts: Mapping[str, BridgeFacts], network: Network) -> None:
        self._places = {key: (pod.node, facts[pod.node].pod_ports[key].ofport) for key, pod in cluster.pods.items()}
        self._names = {place: key for key, place in self._places.items()}
        self._engine = engine
        self._network = network

    def first_packet(self, source: PodKey, target: PodKey, port: int) -> Packet:
        """The first packet of a TCP connection."""
        addresses = [self._engine.agents.address_of(key) for key in (source, target)]
        return tcp(Addresses.of(*(address for address in addresses if address is not None)), CLIENT_PORT, port)

    def journey(self, title: str, sender: PodKey, packet: Packet) -> Journey:
        """The hops of a packet from `sender`, step by step."""
        arrivals = self._network.send(*self._places[sender], packet)
        names = [self._names.get((one.place.node, one.place.port), str(one.place)) for one in arrivals]
        outcome = f"It arrives at {names[0]}." if names else "It arrives nowhere."
        return Journey(title, (*trace(self._network.hops), outcome))


if __name__ == "__main__":
    sys.exit(main())
