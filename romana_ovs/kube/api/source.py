"""Which API server is meant; what is read from there is in `credentials`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ApiSource:
    """Which API server is meant: a kubeconfig file (several joined by `:`) and a context in it.

    No file means the account of the pod that we run in, no context the file's current one.
    """

    kubeconfig: str = ""
    context: str = ""

    def __str__(self) -> str:
        if not self.kubeconfig:
            return "the account of this pod"
        return f"{self.kubeconfig}, context {self.context}" if self.context else self.kubeconfig
