"""Makes the source and the reconciler of a folder of manifests or of an API server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from romana_ovs.config import IN_CLUSTER, ControllerOptions
from romana_ovs.controller.api_reconciler import ApiReconciler
from romana_ovs.controller.folder_reconciler import FolderReconciler
from romana_ovs.controller.kubernetes import Kubernetes, resources_of
from romana_ovs.controller.manifests import Manifests
from romana_ovs.controller.reconciler import Reconciler, Source
from romana_ovs.flag import Flag
from romana_ovs.kube.api.source import ApiSource
from romana_ovs.model.errors import InputError
from romana_ovs.model.settings import Settings


def backend_of(
    options: ControllerOptions, settings: Settings, state: Mapping[str, Any] | None, flag: Flag
) -> tuple[Source, Reconciler]:
    """The source that the options name, and the reconciler of what it reads; the source raises `flag`.

    Raises AddressError and InputError when `state` is not what was saved or of another plan, InputError without either
    source.
    """
    if options.kubeconfig is not None:
        source = ApiSource() if options.kubeconfig == IN_CLUSTER else ApiSource(options.kubeconfig)
        process = Kubernetes(source, settings, flag, resources=resources_of(options.node))
        return process, ApiReconciler(settings, state, runs_registry=options.node is None)
    if options.manifests is None:
        raise InputError.because("names no folder of manifests", field="[romana] manifests")
    manifests = Manifests(options.manifests, settings, flag, recursive=options.manifests_recursive)
    return manifests, FolderReconciler(settings, state, default_nodes=options.nodes)
