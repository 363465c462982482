"""What cannot be made of one group or pod closes it alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from romana_ovs.model.errors import PipelineError
from romana_ovs.pipeline.compile import compile_node, forwarding, policy_tables, spoof_guard
from romana_ovs.pipeline.compile.fail_closed import MAX_ACTIONS, sendable
from romana_ovs.policy.view import ServerGroup
from romana_ovs.simulator.interpret import Switch
from romana_ovs.simulator.network import Network, Wiring
from romana_ovs.simulator.packet import tcp
from tests.support.simulated_network import SimNetwork, SimPod, allow

BROKEN = ServerGroup(99, (allow(),), ())


def lab() -> SimNetwork:
    return SimNetwork.of(SimPod("c", 1, 1), SimPod("s", 1, 2), SimPod("t", 1, 3, server=BROKEN))


def failing(real: Callable[..., Any], about: Callable[..., bool]) -> Callable[..., Any]:
    def make(*args: Any, **kwargs: Any) -> Any:
        if about(*args):
            raise PipelineError("there is no room")
        return real(*args, **kwargs)

    return make


def test_a_group_that_cannot_be_compiled_is_closed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        policy_tables, "ingress_rows", failing(policy_tables.ingress_rows, lambda group: group.number == 99)
    )
    here = lab()
    program = compile_node(here.view(1), here.permissions(1))
    assert program.failures == ("server group 99 is closed, as its flows cannot be compiled: there is no room",)
    assert here.delivered("c", tcp(here.ends("c", "s"), 4000, 80)) == ["s"]
    assert here.delivered("c", tcp(here.ends("c", "t"), 4000, 80)) == []


@pytest.mark.parametrize(("module", "name"), [(spoof_guard, "pod_guard"), (forwarding, "pod_route")])
def test_a_pod_that_cannot_be_compiled_is_closed_alone(
    module: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, failing(getattr(module, name), lambda pod, *_: pod.key == "test/t"))
    here = lab()
    assert [text.partition(",")[0] for text in here.program(1).failures] == ["pod test/t is closed"]
    here.network = Network({f"n{node}": Switch(here.flows(node)) for node in (1, 2)}, Wiring.of(here._facts()))
    for source, target in (("c", "t"), ("t", "c")):
        assert here.delivered(source, tcp(here.ends(source, target), 4000, 80)) == []
    assert here.delivered("c", tcp(here.ends("c", "s"), 4000, 80)) == ["s"]


def test_an_error_in_common_rows_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_tables, "ingress_base", failing(policy_tables.ingress_base, lambda: True))
    with pytest.raises(PipelineError, match="no room"):
        lab()


def test_a_flow_with_too_many_actions_is_refused() -> None:
    flows = lab().flows(1)
    assert sendable(flows) is flows
    large = next(item for item in flows if item.actions)
    with pytest.raises(PipelineError, match="actions"):
        sendable((replace(large, actions=large.actions * (MAX_ACTIONS + 1)),))
