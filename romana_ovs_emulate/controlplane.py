"""Runs a real Kubernetes control plane as private processes on this machine: etcd, API server, optional controllers.

    with ControlPlane() as plane:
        plane.kubectl("get", "nodes")

Everything is in a run folder (romana_ovs_emulate/runs.py), so two never collide, and the next run or `romana-ovs
clean` removes the remains of a killed one. It listens on loopback only, or on the given address.

With a `Site` it runs in a network namespace where nodes reach it, and is forwarded to loopback here.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from romana_ovs.model.errors import SetupError
from romana_ovs_emulate.binaries import Binaries, find_or_build
from romana_ovs_emulate.build_cache import Progress
from romana_ovs_emulate.daemon import Daemon
from romana_ovs_emulate.pki import DAYS, Pair, make_authority, make_key, public_key, write_kubeconfig
from romana_ovs_emulate.port_forward import PortForward
from romana_ovs_emulate.runs import RUNS_FOLDER, Run, start_run

LOOPBACK = "127.0.0.1"
SERVICE_RANGE = "172.30.0.0/16"
SERVICE_ADDRESS = "172.30.0.1"
"""The cluster IP of the API server: the first address of SERVICE_RANGE."""
ISSUER = "https://kubernetes.default.svc"
READY_SECONDS = 60.0
"""How long the API server may take to be ready, on a loaded machine, in seconds."""
RETRY_SECONDS = 0.05
NICENESS = 5
"""A lower priority (nice(1)): an API server that starts uses all CPUs, while switches must forward."""
ATTEMPTS = 3
"""How many ports are tried: another process may take a free port first."""
REQUEST_SECONDS = 10.0
COMMAND_SECONDS = 120.0
MASTERS = "system:masters"
SECURE_PORT = 6443
"""The port of the API server at a site; elsewhere it has a free one."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where a control plane for real nodes runs: in a network namespace of `run`, which has `address`."""

    run: Run
    netns: str
    address: str


class ControlPlane:
    """A control plane, as a context manager; its processes can be stopped and started again meanwhile."""

    def __init__(
        self,
        *,
        address: str = LOOPBACK,
        controllers: bool = False,
        binaries: Binaries | None = None,
        progress: Progress = lambda text: None,
        options: Sequence[str] = (),
        niceness: int = NICENESS,
        site: Site | None = None,
    ) -> None:
        """Nothing is started yet.

        `address` is what the API server listens on; `controllers` starts kube-controller-manager and kube-scheduler,
        too. Without controllers nothing creates service accounts, so pods have none. `options` are further ones of the
        API server. `niceness` is that of nice(1). With `site` the API server listens there instead; the run is not
        the control plane's to close.
        """
        self._address = address
        self._site = site
        self._forward = PortForward(site.netns, SECURE_PORT) if site is not None else None
        self._controllers = controllers
        self._binaries = binaries
        self._progress = progress
        self._options = tuple(options)
        self._niceness = niceness
        self._run: Run | None = None
        self._daemons: dict[str, Daemon] = {}
        self._port = 0

    def __enter__(self) -> Self:
        """Start everything; returns when it is ready. Raises SetupError, with the end of the log of what failed."""
        self._binaries = self._binaries or find_or_build(self._progress)
        programs = {name: self._binaries.path(name) for name in (*_PARTS, *(_CONTROLLERS if self._controllers else ()))}
        self._run = start_run(_runs_folder()) if self._site is None else self._site.run
        try:
            self._authority = make_authority(self.folder / "pki")
            self._prepare_keys()
            netns = self._site.netns if self._site is not None else ""
            self._daemons = {
                name: Daemon(self._run, path, niceness=self._niceness, netns=netns) for name, path in programs.items()
            }
            self._daemons["etcd"].start(_etcd_arguments(self.folder))
            self._start_on_free_port()
            if self._controllers:
                self._start_controllers()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End everything and remove all of it."""
        self.close()

    @property
    def folder(self) -> Path:
        """The run folder, readable by its owner only."""
        if self._run is None:
            raise SetupError("the control plane is not started")
        return self._run.folder

    @property
    def url(self) -> str:
        """Where the API server is reached from here; it stays the same when it is started again."""
        return f"https://{self._address}:{self._port}"

    @property
    def node_url(self) -> str:
        """Where nodes reach the API server."""
        return self.url if self._site is None else f"https://{self._site.address}:{SECURE_PORT}"

    @property
    def authority(self) -> Path:
        """The certificate of the authority that signed the API server's, as a PEM file."""
        return self._authority.pair.certificate

    @property
    def admin(self) -> Pair:
        """Key and certificate of a cluster administrator."""
        return self._admin

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig of the cluster administrator."""
        return self.folder / "admin.kubeconfig"

    @property
    def kubectl_path(self) -> Path:
        """The kubectl of the same version. Raises SetupError when there is none."""
        return (self._binaries or find_or_build(self._progress)).path("kubectl")

    def daemon(self, program: str) -> Daemon:
        """The process of `etcd`, `kube-apiserver`, ...: for tests of faults. Raises KeyError when never started."""
        return self._daemons[program]

    def close(self) -> None:
        """End everything and remove all of it. Idempotent."""
        for daemon in reversed(self._daemons.values()):
            daemon.kill()
        if self._forward is not None:
            self._forward.close()
        if self._run is not None and self._site is None:
            self._run.close()

    def stop_api_server(self) -> None:
        """Stop the API server by SIGTERM: it closes open watches."""
        self._daemons["kube-apiserver"].stop()

    def kill_api_server(self) -> None:
        """Kill the API server by SIGKILL, as a crash does."""
        self._daemons["kube-apiserver"].kill()

    def start_api_server(self) -> None:
        """Start the API server again, with the same data and port; returns when it is ready. Raises SetupError."""
        self._daemons["kube-apiserver"].start(self._api_server_arguments())
        self.await_ready()

    def await_ready(self) -> None:
        """Wait until the API server is ready. Raises SetupError when it ends, or is not ready in time."""
        deadline = time.monotonic() + READY_SECONDS
        server = self._daemons["kube-apiserver"]
        while not self._is_ready():
            for daemon in (self._daemons["etcd"], server):
                if not daemon.running:
                    raise SetupError(f"{daemon.name} ended at once; its log ends:\n{daemon.log_tail()}")
            if time.monotonic() > deadline:
                log = server.log_tail()
                raise SetupError(f"{server.name} is not ready after {READY_SECONDS:.0f} s; its log ends:\n{log}")
            time.sleep(RETRY_SECONDS)

    def kubectl(self, *arguments: str, stdin: str = "", kubeconfig: Path | None = None) -> str:
        """The output of a kubectl command, as administrator unless `kubeconfig` is given. Raises SetupError."""
        done = self.try_kubectl(*arguments, stdin=stdin, kubeconfig=kubeconfig)
        if done.returncode != 0:
            raise SetupError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def try_kubectl(
        self,
        *arguments: str,
        stdin: str = "",
        kubeconfig: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """The outcome of a kubectl command that may fail. It writes nothing outside of the run folder."""
        environment = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig or self.kubeconfig),
            "HOME": str(self.folder),
            "KUBECACHEDIR": str(self.folder / "kubectl"),
            "KUBERC": "off",
        }
        return subprocess.run(
            [str(self.kubectl_path), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            timeout=COMMAND_SECONDS,
            start_new_session=True,
        )

    def apply(self, *paths: Path) -> None:
        """`kubectl apply` files and folders; returns when every definition in them is served. Raises SetupError."""
        files = [word for path in paths for word in ("-f", str(path))]
        applied = self.kubectl("apply", "-o", "name", *files).split()
        definitions = [name for name in applied if name.startswith("customresourcedefinition.")]
        if definitions:
            self.kubectl("wait", "--for=condition=Established", f"--timeout={READY_SECONDS:.0f}s", *definitions)

    def kubeconfig_for(self, user: str, groups: Sequence[str] = (), *, url: str = "") -> Path:
        """A kubeconfig of that user in those groups, by client certificate. Raises SetupError.

        `url` is the API server's where the kubeconfig is used, by default `self.url`.
        """
        pair = self._authority.client(user, groups)
        path = self.folder / "pki" / f"{pair.certificate.stem}.kubeconfig"
        write_kubeconfig(path, url or self.url, self._authority, pair)
        return path

    def kubeconfig_for_service_account(self, namespace: str, name: str, *, node: str = "", url: str = "") -> Path:
        """A kubeconfig with a token of that service account (which exists), bound to the Node `node` when given.

        `url` is as in `kubeconfig_for`; the token lasts as long as certificates do. Raises SetupError. Source: https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-request-v1/
        """
        bound = ["--bound-object-kind=Node", f"--bound-object-name={node}"] if node else []
        lasting = [f"--duration={DAYS * 24}h"]
        token = self.kubectl("create", "token", name, f"--namespace={namespace}", *lasting, *bound).strip()
        path = self.folder / "pki" / f"account-{namespace}-{name}-{node}.kubeconfig"
        write_kubeconfig(path, url or self.url, self._authority, token)
        return path

    def _prepare_keys(self) -> None:
        here = self._address if self._site is None else self._site.address
        hosts = ["localhost", LOOPBACK, here, SERVICE_ADDRESS, "kubernetes.default.svc"]
        self._serving = self._authority.server("kube-apiserver", list(dict.fromkeys(hosts)))
        self._admin = self._authority.client("admin", [MASTERS])
        make_key(self.folder / "pki" / "accounts.key")
        public_key(self.folder / "pki" / "accounts.key", self.folder / "pki" / "accounts.pub")

    def _start_on_free_port(self) -> None:
        """Start the API server on a free port, or on another one when that is taken meanwhile; at a site on its own."""
        if self._forward is not None:
            self._port = self._forward.start()
            write_kubeconfig(self.kubeconfig, self.url, self._authority, self._admin)
            self.start_api_server()
            return
        for attempt in range(1, ATTEMPTS + 1):
            self._port = _free_port(self._address)
            write_kubeconfig(self.kubeconfig, self.url, self._authority, self._admin)
            try:
                self.start_api_server()
                return
            except SetupError as error:
                if "address already in use" not in str(error) or attempt == ATTEMPTS:
                    raise

    def _is_ready(self) -> bool:
        """Whether it reports ready, and has created the namespace kube-system."""
        return self._is_served("/readyz") and self._is_served("/api/v1/namespaces/kube-system")

    def _is_served(self, path: str) -> bool:
        """Whether the API server answers GET of `path` with 200 OK."""
        context = ssl.create_default_context(cafile=self.authority)
        context.load_cert_chain(self._admin.certificate, self._admin.key)
        connection = http.client.HTTPSConnection(self._address, self._port, timeout=REQUEST_SECONDS, context=context)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", path)
            return connection.getresponse().status == http.client.OK
        return False

    def _api_server_arguments(self) -> list[str]:
        pki = self.folder / "pki"
        return [
            f"--etcd-servers={_etcd_url(self.folder)}",
            *self._listening_arguments(),
            f"--tls-cert-file={self._serving.certificate}",
            f"--tls-private-key-file={self._serving.key}",
            f"--client-ca-file={self.authority}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            # Without a controller manager there are no service accounts whose tokens this plugin could mount.
            *([] if self._controllers else ["--disable-admission-plugins=ServiceAccount"]),
            f"--service-account-issuer={ISSUER}",
            f"--service-account-key-file={pki / 'accounts.pub'}",
            f"--service-account-signing-key-file={pki / 'accounts.key'}",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            "--allow-privileged",
            "--profiling=false",
            *self._options,
        ]

    def _listening_arguments(self) -> list[str]:
        """Where the API server listens, and what it needs there to reach kubelets."""
        if self._site is None:
            own = [f"--bind-address={self._address}", f"--advertise-address={self._address}"]
            return [*own, f"--secure-port={self._port}", "--endpoint-reconciler-type=none"]
        kubelets = self._authority.client("kube-apiserver-kubelet-client", [MASTERS])
        return [
            "--bind-address=0.0.0.0",
            f"--advertise-address={self._site.address}",
            f"--secure-port={SECURE_PORT}",
            f"--kubelet-client-certificate={kubelets.certificate}",
            f"--kubelet-client-key={kubelets.key}",
            "--kubelet-preferred-address-types=InternalIP",
        ]

    def _start_controllers(self) -> None:
        kubeconfig = self.folder / "controllers.kubeconfig"
        write_kubeconfig(kubeconfig, self.node_url, self._authority, self._admin)
        shared = [f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--secure-port=0", "--profiling=false"]
        self._daemons["kube-controller-manager"].start(
            [
                *shared,
                "--use-service-account-credentials",
                f"--root-ca-file={self.authority}",
                f"--service-account-private-key-file={self.folder / 'pki' / 'accounts.key'}",
            ]
        )
        self._daemons["kube-scheduler"].start(shared)
        self._await_account()

    def _await_account(self) -> None:
        """Wait until pods can be created in the namespace `default`: its service account exists."""
        deadline = time.monotonic() + READY_SECONDS
        manager = self._daemons["kube-controller-manager"]
        while self.try_kubectl("get", "serviceaccount", "default").returncode != 0:
            if not manager.running or time.monotonic() > deadline:
                raise SetupError(f"{manager.name} creates no service account; its log ends:\n{manager.log_tail()}")
            time.sleep(RETRY_SECONDS)


_PARTS = ("etcd", "kube-apiserver")
_CONTROLLERS = ("kube-controller-manager", "kube-scheduler")


def _runs_folder() -> Path:
    """The folder of runs: root's, or one of the user, as a control plane needs no root."""
    if os.geteuid() == 0:
        return RUNS_FOLDER
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "romana-ovs" if runtime else Path.home() / ".cache" / "romana-ovs" / "runs"


def _etcd_url(folder: Path) -> str:
    return f"unix://{folder}/etcd.sock"


def _etcd_arguments(folder: Path) -> list[str]:
    """Arguments for etcd on sockets in the folder, which no other user can reach; a crash may lose data."""
    peers = f"unix://{folder}/etcd-peers.sock"
    return [
        f"--data-dir={folder / 'etcd'}",
        "--unsafe-no-fsync",
        "--max-wals=1",
        "--max-snapshots=1",
        "--log-level=warn",
        f"--listen-client-urls={_etcd_url(folder)}",
        f"--advertise-client-urls={_etcd_url(folder)}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=default={peers}",
    ]


def _free_port(address: str) -> int:
    with socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET) as server:
        return int(server.getsockname()[1])
