"""Runs a cluster of real nodes until Ctrl-C (`make cluster`)."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from romana_ovs.model.errors import InputError, SetupError
from romana_ovs_emulate.cli.session import ended_by_signals
from romana_ovs_emulate.cluster import images
from romana_ovs_emulate.cluster.cluster import Cluster, ClusterOptions
from romana_ovs_emulate.cluster.kube_proxy import ProxyMode
from romana_ovs_emulate.fabric import Fabric

INTERRUPTED = 130
MAX_NODES = 20
"""Each takes some 300 MB."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run until a signal. Returns exit code 0, or 2 after an error message."""
    parser = _parser()
    args = parser.parse_args(argv)
    if not 1 <= args.nodes <= MAX_NODES:
        parser.error(f"--nodes: {args.nodes} is not from 1 to {MAX_NODES}")
    options = ClusterOptions(args.nodes, Fabric(args.fabric), ProxyMode(args.kube_proxy), args.config_file)
    try:
        with ended_by_signals():
            _stay(Cluster(options, _to_stderr if args.json else _print), as_json=args.json)
    except (InputError, SetupError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make cluster", description="A Kubernetes cluster of real nodes on this machine, with romana-ovs."
    )
    parser.add_argument("--nodes", type=int, default=2, metavar="N", help="how many nodes (default %(default)s)")
    fabrics = [fabric.value for fabric in (Fabric.GENEVE, Fabric.VXLAN)]
    parser.add_argument("--fabric", choices=fabrics, default=fabrics[0], help="the tunnels (default %(default)s)")
    modes = [mode.value for mode in ProxyMode]
    parser.add_argument("--kube-proxy", choices=modes, default=modes[0], help="its mode (default %(default)s)")
    parser.add_argument("--config-file", type=Path, metavar="FILE", help="settings of romana-ovs")
    parser.add_argument("--json", action="store_true", help="what it prints when it is ready, as one line of JSON")
    return parser


def _stay(cluster: Cluster, *, as_json: bool) -> None:
    with cluster:
        if as_json:
            print(json.dumps(_summary(cluster)), flush=True)
        else:
            _print(_introduction(cluster))
        try:
            signal.pause()
        except KeyboardInterrupt:
            if not as_json:
                _print("Ending.")


def _summary(cluster: Cluster) -> dict[str, object]:
    return {
        "kubeconfig": str(cluster.plane.kubeconfig),
        "kubectl": str(cluster.plane.kubectl_path),
        "images": [images.BUSYBOX, cluster.agnhost],
        "nodes": [
            {"name": node.name, "address": str(node.address), "netns": node.netns, "pid": node.init}
            for node in cluster.nodes.values()
        ],
    }


def _introduction(cluster: Cluster) -> str:
    node = next(iter(cluster.nodes.values()))
    return f"""
The cluster is ready. Images that pods can have: {images.BUSYBOX.rpartition("/")[2]}, {cluster.agnhost}
Try, in another terminal:

  export KUBECONFIG={cluster.plane.kubeconfig}
  alias kubectl={cluster.plane.kubectl_path}
  kubectl create deployment web --image busybox:stable --replicas 2 -- httpd -f -h /www
  kubectl get pods -o wide
  kubectl run client --image busybox:stable -- sleep 3600
  kubectl exec client -- timeout 2 wget -qO- http://ADDRESS

A shell on {node.name}, where ovs-vsctl, ovs-ofctl, ctr, nft and the logs in /var/log/programs are its own:

  nsenter --target {node.init} --mount --uts --ipc --net --pid

Ctrl-C ends the cluster and removes everything."""


def _print(text: str) -> None:
    print(text, flush=True)


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
