"""What the kubelet of emulated nodes says of pods, to an API server that only listens."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

from romana_ovs.model.objects import PodKey
from romana_ovs_emulate.kubelet import Kubelet
from romana_ovs_emulate.pods import PodPlacement
from tests.support.api_objects import pod

PATIENCE = 30.0


class Listener:
    """Takes every request; `told` are the paths of the statuses of pods."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.news = threading.Condition()

    def request(self, method: str, path: str, **_: Any) -> None:
        """Nothing is answered."""
        with self.news:
            if "/pods/" in path:
                self.told.append(path)
                self.news.notify_all()

    def heard(self, path: str) -> bool:
        """Whether a status of this path comes."""
        with self.news:
            return self.news.wait_for(lambda: path in self.told, PATIENCE)


def test_a_finished_pod_is_not_reported_running() -> None:
    """Until the controller takes note of its end its namespace is still there."""
    api = Listener()
    kubelet = Kubelet(api, addresses={}, on_error=lambda text: None, on_terminating=lambda: None)  # type: ignore[arg-type]
    kubelet.start(SimpleNamespace(id="run"), {"node1": SimpleNamespace()})  # type: ignore[arg-type, dict-item]
    phases = {"done": "Succeeded", "broken": "Failed", "new": "Pending"}
    pods = {name: pod(f"x/{name}", "node1", uid=name, status={"phase": phase}) for name, phase in phases.items()}
    kubelet.on_pods({PodKey(f"x/{name}"): one for name, one in pods.items()})
    kubelet.report_running(
        {PodKey(f"x/{name}"): PodPlacement(PodKey(f"x/{name}"), "node1", "10.0.0.1", "") for name in phases}
    )
    assert api.heard("/api/v1/namespaces/x/pods/new/status")
    kubelet.close()
    assert api.told == ["/api/v1/namespaces/x/pods/new/status"]
