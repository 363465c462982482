"""The table by the reference evaluation."""

from __future__ import annotations

from romana_ovs.model.connection import Connection, PortRef
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.evaluate import Reference
from romana_ovs.policy.matrix import reachability
from tests.conformance.made_up_addresses import ADDRESSES, NODES, OTHERS, address
from tests.conformance.offline import Folder, end_of, endpoints, every_case, every_mode, expected
from tests.conformance.states import resolved, states
from tests.conformance.words import Case


@every_mode
@every_case
def test_every_pair_is_as_the_table_says(case: Case, mode: str) -> None:
    folder = Folder(mode)
    for step, state in states(case.steps):
        cluster = folder.read(resolved(state, address))
        pods = endpoints(state)
        addresses = {
            PodKey(name): cluster.pods[PodKey(name)].address or ADDRESSES.get(name, OTHERS + number)
            for number, name in enumerate(pods)
        }
        matrix = reachability(cluster, addresses, [PortRef.parse(port) for port in step.ports])
        assert list(matrix.pods) == pods
        assert set(matrix.open_paths()) ^ expected(step, pods, mode) == set(), step.does
        reference = Reference.of(cluster, addresses)
        for claim in step.claims:
            ends = (end_of(claim.source, NODES), end_of(claim.destination, NODES))
            decision = reference.decide(Connection(*ends, PortRef.parse(claim.port)))
            assert decision.allowed == claim.open, f"{step.does}: {decision.reason}"
