"""Defines how an API server is selected; `credentials` reads the files that this names."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ApiSource:
    """Selects an API server: a kubeconfig file (several joined by `:`) and a context in it.

    Without a file the service account of our pod is used, without a context the current one of the file.
    """

    kubeconfig: str = ""
    context: str = ""

    def __str__(self) -> str:
        if not self.kubeconfig:
            return "the service account of this pod"
        return f"{self.kubeconfig}, context {self.context}" if self.context else self.kubeconfig
