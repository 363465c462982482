"""Runs a control plane with the objects of etc/kubernetes until Ctrl-C (`make kube`)."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from romana_ovs.data_files import data_file
from romana_ovs.model.errors import SetupError
from romana_ovs_emulate.controlplane import LOOPBACK, ControlPlane

INTERRUPTED = 130


def manifests_folder() -> Path:
    """The folder of the manifests for Kubernetes. Raises SetupError when it is missing."""
    return data_file("kubernetes")


def main(argv: Sequence[str] | None = None) -> int:
    """Run until a signal. Returns exit code 0, or 2 after an error message."""
    parser = argparse.ArgumentParser(prog="make kube", description="A Kubernetes control plane for experiments.")
    parser.add_argument("--controllers", action="store_true", help="kube-controller-manager and kube-scheduler too")
    parser.add_argument("--address", default=LOOPBACK, help="what the API server listens on (default %(default)s)")
    args = parser.parse_args(argv)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        _stay(ControlPlane(address=args.address, controllers=args.controllers, progress=_print))
    except SetupError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _stay(plane: ControlPlane) -> None:
    began = time.monotonic()
    _print("Starting etcd and kube-apiserver ...")
    with plane:
        folder = manifests_folder()
        plane.apply(folder)
        _print(
            f"Kubernetes is ready after {time.monotonic() - began:.1f} s at {plane.url}, with the objects of {folder}."
        )
        _print(f"Its kubeconfig: {plane.kubeconfig}")
        _print(f"Try: {plane.kubectl_path} --kubeconfig {plane.kubeconfig} get crd")
        _print("Ctrl-C ends it and removes everything.")
        try:
            signal.pause()
        except KeyboardInterrupt:
            _print("Ending.")


def _print(text: str) -> None:
    print(text, flush=True)


def _end(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
