"""Where attacks take place: two nodes, three tenants, and who attacks whom.

Every pod of tenant blue may be reached by blue alone; `iso1` and `iso2` have a policy that admits pods `app: pal`
on one UDP port and nothing else. kube-system is shared: every tenant may connect to it, and it to nobody's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from romana_ovs_emulate.fabric import Fabric
from tests.support.live_cluster import LiveCluster, live_cluster
from tests.support.manifests import count_pods, ingress_policy, placed_pod
from tests.support.waiting import eventually

NODES = ("node1", "node2")
LISTEN = 9000
"""The UDP port on which every pod listens and answers nothing: what arrives there makes no pod say anything."""
SEND = 9100
"""The UDP port from which controls are sent to LISTEN: another one, so that what goes back is no reply to them."""
ONE_PORT = f"{{from: [{{podSelector: {{matchLabels: {{app: pal}}}}}}], ports: [{{port: {LISTEN}, protocol: UDP}}]}}"
PODS = (
    placed_pod("atk", "node1", "red")
    + placed_pod("mate1", "node1", "red")
    + placed_pod("mate2", "node2", "red")
    + placed_pod("v1", "node1", "blue")
    + placed_pod("v2", "node2", "blue")
    + placed_pod("iso1", "node1", "blue", app="iso")
    + placed_pod("iso2", "node2", "blue", app="iso")
    + placed_pod("pal1", "node1", "blue", app="pal")
    + placed_pod("pal2", "node2", "blue", app="pal")
    + placed_pod("foe", "node1", "blue")
    + placed_pod("spy1", "node1", "blue")
    + placed_pod("spy2", "node2", "blue")
    + placed_pod("dns", "node1", "kube-system")
    + placed_pod("kin1", "node1", "kube-system")
    + placed_pod("kin2", "node2", "kube-system")
)
POLICIES = ingress_policy("iso", "app: iso", ONE_PORT, namespace="blue")


@dataclass(frozen=True, slots=True)
class Duel:
    """Who attacks whom, all by their keys.

    `ally` is a pod on the victim's node that the attacker may reach: its answering for the way there. `friend` may
    reach the victim on LISTEN.
    """

    name: str
    attacker: str
    ally: str
    victim: str
    friend: str


TENANT = (
    Duel("other tenant, same node", "red/atk", "red/mate1", "blue/v1", "blue/pal1"),
    Duel("other tenant, other node", "red/atk", "red/mate2", "blue/v2", "blue/pal1"),
)
POLICY = (
    Duel("closed by policy, same node", "blue/foe", "blue/v1", "blue/iso1", "blue/pal1"),
    Duel("closed by policy, other node", "blue/foe", "blue/v2", "blue/iso2", "blue/pal1"),
)
COLLUSION = (
    Duel("same node", "red/atk", "red/mate1", "blue/spy1", "blue/pal1"),
    Duel("other node", "red/atk", "red/mate2", "blue/spy2", "blue/pal1"),
)
"""The victim is an accomplice, and nobody else's victim: what it sent leaves traces in its switch."""
SHARED = (
    Duel("from a shared tenant, same node", "kube-system/dns", "kube-system/kin1", "blue/v1", "blue/pal1"),
    Duel("from a shared tenant, other node", "kube-system/dns", "kube-system/kin2", "blue/v2", "blue/pal1"),
)
ONE_PORT_OPEN = (
    Duel("one port open, same node", "blue/pal1", "blue/v1", "blue/iso1", "blue/pal2"),
    Duel("one port open, other node", "blue/pal1", "blue/v2", "blue/iso2", "blue/pal2"),
)


@contextmanager
def cluster(
    folder: Path, fabric: Fabric, *, more: str = "", settings: str = "", ports: tuple[str, ...] = ()
) -> Iterator[LiveCluster]:
    """The pods above and those of the manifests `more`; `settings` are lines of the controller's configuration.

    Pods serve `ports` only: servers that echo datagrams would answer each other's answers for ever.

    The pods come when the switches are programmed already, so that none of them can be taken for one that is older
    than its switch: what holds then is tested here, and what an ordinary start makes of it in a test of its own.
    """
    files: tuple[Path, ...] = ()
    if settings:
        files = (folder / "romana.conf",)
        files[0].write_text(f"[romana]\n{settings}\n")
    with live_cluster(folder, NODES, fabric=fabric, manifests={}, settings=files) as running:
        running.emulation.serve(ports)
        add(running, "ground", PODS + POLICIES + more)
        yield running


def add(running: LiveCluster, name: str, text: str) -> None:
    """Apply manifests that bring pods; returns once these run and every switch has what that needs."""
    wanted = len(running.emulation.pods) + count_pods(text)
    running.edit(lambda: running.write(name, text))
    eventually(lambda: len(running.emulation.pods) == wanted and running.emulation.settled, "every pod runs")
