"""Reads the facts about this host, one Open vSwitch on it, and the cluster: sockets, /proc, `ip`, `nft`, API server.

Changes nothing.

It belongs at the edge: everything else of this package is pure. A fact that cannot be read stands as `Unread`.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from romana_ovs.kube.api.client import Api
from romana_ovs.kube.api.object_decoder import decoder, object_meta
from romana_ovs.kube.api.resources import NODES, SERVICE_CIDRS, Resource
from romana_ovs.kube.api.source import ApiSource
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import ApiError, MissingError, SetupError, SwitchError
from romana_ovs.model.objects import Node
from romana_ovs.model.services import ServiceCIDR
from romana_ovs.model.settings import Settings
from romana_ovs.preflight import host_output, switch_facts
from romana_ovs.preflight.facts import (
    CONFLIST,
    DEFAULT_BRIDGE,
    CniConfiguration,
    ConntrackTable,
    HostFacts,
    KernelModules,
    Ruleset,
    SwitchBridge,
    Unread,
)
from romana_ovs.preflight.kernel_checks import FRAGMENT_MEMORY, FRAGMENT_SECONDS, UNANSWERED
from romana_ovs.preflight.network_checks import ALL_DEVICES, FORWARDING, rp_filter
from romana_ovs.switch.database_query import read_tables
from romana_ovs.switch.ethertypes import filter_hooks
from romana_ovs.switch.vswitchd import Vswitchd
from romana_ovs.switch.zone_limits import KERNEL, ZoneLimits

T = TypeVar("T")

COMMAND_SECONDS = 5.0
"""How long `ip` or `nft` may take: a host with kube-proxy has ten thousands of rules."""
REQUEST_SECONDS = 10.0
"""How long the API server may take to answer."""
SYSCTLS = (FRAGMENT_MEMORY, FRAGMENT_SECONDS, FORWARDING, *UNANSWERED)
LEGACY = "iptables-legacy"
CNI_SUFFIXES = (".conf", ".conflist", ".json")
TIME_ERROR = 5
"""What adjtimex(2) returns for a clock that nobody synchronizes."""
PROC, MODULES = Path("/proc"), Path("/lib/modules")
_INVALID = (ValueError, LookupError, TypeError, AttributeError)
"""What decoding raises for the output of a program of another version."""


class CniFolders(NamedTuple):
    """Where a container runtime looks for its network, and for the programs that this names (containerd's defaults)."""

    configuration: Path = Path("/etc/cni/net.d")
    plugins: Path = Path("/opt/cni/bin")


def read_facts(remote: str, cni: CniFolders | None = None) -> HostFacts:
    """All facts of this host and of the Open vSwitch with its database at `remote`. Raises nothing."""
    bridges = _attempt(lambda: switch_facts.bridges_of(read_tables(remote, switch_facts.COLUMNS)))
    known_bridges = bridges if isinstance(bridges, tuple) else ()
    switch = Vswitchd(remote)
    datapath = known_bridges[0].datapath if known_bridges else KERNEL
    gateway = known_bridges[0].name if known_bridges else DEFAULT_BRIDGE
    elsewhere = _other_namespace(switch)

    def of_namespace(read: Callable[[], T]) -> T | Unread:
        """As `_attempt`, for facts of the network namespace in which this process is."""
        return elsewhere if elsewhere is not None else _attempt(read)

    return HostFacts(
        version=_attempt(lambda: switch_facts.version_of(switch.transact("version"))),
        bridges=bridges,
        features=_attempt(lambda: _features(switch, known_bridges)),
        conntrack=_attempt(lambda: _conntrack(remote, datapath)),
        modules=_attempt(_modules),
        sysctls=of_namespace(lambda: _sysctls((ALL_DEVICES, gateway))),
        links=of_namespace(lambda: host_output.links_of(_output("ip", "-j", "-d", "address", "show"))),
        routes=of_namespace(lambda: host_output.routes_of(_output("ip", "-j", "-4", "route", "show", "table", "all"))),
        ruleset=of_namespace(_ruleset),
        listening=of_namespace(lambda: host_output.listening_of((PROC / "net" / "tcp").read_text())),
        filters=of_namespace(lambda: filter_hooks([name for each in known_bridges for name in each.pod_ports])),
        own_namespace=elsewhere is None,
        cni=_attempt(lambda: _cni(cni or CniFolders())),
        clock_synchronized=_attempt(_clock_synchronized),
    )


def _ruleset() -> Ruleset:
    """The rules of nftables, and what matters of those of iptables-legacy, which `nft` does not list."""
    rules = host_output.ruleset_of(_output("nft", "-j", "-t", "list", "ruleset"))
    in_use = "filter" in _text_of(PROC / "net" / "ip_tables_names").split() and shutil.which(LEGACY) is not None
    if in_use and host_output.legacy_forward_drop(_output(LEGACY, "-w", "-S", "FORWARD")):
        return replace(rules, forward_drops=(*rules.forward_drops, f"{LEGACY} filter FORWARD"))
    return rules


def _cni(folders: CniFolders) -> CniConfiguration | None:
    """The configuration of CNI; None without its folder. Raises OSError."""
    if not folders.configuration.is_dir():
        return None
    files = sorted(each.name for each in folders.configuration.iterdir() if each.suffix in CNI_SUFFIXES)
    plugins: tuple[str, ...] = ()
    if CONFLIST in files:
        plugins = host_output.plugins_of((folders.configuration / CONFLIST).read_text())
    missing = tuple(each for each in plugins if not (folders.plugins / each).exists())
    return CniConfiguration(str(folders.configuration), tuple(files), missing)


def _clock_synchronized() -> bool:
    """What the kernel says of the clock (adjtimex(2)). Raises OSError."""
    # Larger than struct timex of any architecture; no field of it is set: nothing changes.
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(512))
    if state < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return bool(state != TIME_ERROR)


def read_cluster(source: ApiSource) -> Cluster | Unread:
    """The nodes and ServiceCIDRs of an API server, without their invalid objects. Raises nothing."""
    api = Api(source)
    try:
        nodes = [value for value in _listed(api, NODES) if isinstance(value, Node)]
        cidrs = [value for value in _listed(api, SERVICE_CIDRS) if isinstance(value, ServiceCIDR)]
    except ApiError as error:
        return Unread(str(error))
    except _INVALID as error:
        return Unread(f"unexpected answer of the API server ({type(error).__name__}: {error})")
    return Cluster(
        nodes=MappingProxyType({node.name: node for node in nodes}),
        service_cidrs=MappingProxyType({cidr.name: cidr for cidr in cidrs}),
    )


def _listed(api: Api, resource: Resource) -> list[object]:
    """The objects of a resource, None for an invalid one; none if the server does not know it. Raises ApiError."""
    try:
        items = api.request("GET", resource.path, deadline=REQUEST_SECONDS).json()["items"]
    except MissingError:
        return []
    decode = decoder(resource, Settings())
    return [decode(item, meta).value for item in items if (meta := object_meta(item, resource)) is not None]


def _other_namespace(switch: Vswitchd) -> Unread | None:
    """Why facts of the network namespace are not those of the switch: it runs in another one. None when it does not.

    Such as the switch of an emulated node. From a container its process may be invisible: then it is the host's.
    """
    try:
        there = os.readlink(PROC / str(switch.pid()) / "ns" / "net")
        here = os.readlink(PROC / "self" / "ns" / "net")
    except (OSError, SwitchError):
        return None
    return Unread("Open vSwitch runs in another network namespace") if there != here else None


def _attempt(read: Callable[[], T]) -> T | Unread:
    """What `read` returns, or why it cannot be read."""
    try:
        return read()
    except (SwitchError, SetupError) as error:
        return Unread(str(error))
    except OSError as error:
        return Unread(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except _INVALID as error:
        return Unread(f"unexpected output ({type(error).__name__}: {error})")


def _features(switch: Vswitchd, bridges: Sequence[SwitchBridge]) -> Mapping[str, Mapping[str, str]]:
    """The features of each bridge's datapath. Raises SwitchError."""
    return {
        each.name: switch_facts.features_of(switch.transact("dpif/show-dp-features", each.name)) for each in bridges
    }


def _conntrack(remote: str, datapath: str) -> ConntrackTable:
    """The connection table of a datapath. Raises SwitchError, and SetupError when its size is unknown."""
    zones = ZoneLimits(remote, datapath)
    size = zones.table_size()
    if size is None:
        raise SetupError("the size of the connection table is unknown: the kernel tracks no connections yet")
    try:
        limits = {zone: use.limit for zone, use in zones.read_any().items()}
    except SwitchError:
        # The datapath of this type does not exist yet: nothing limits a zone of it.
        limits = {}
    return ConntrackTable(size, limits)


def _modules() -> KernelModules:
    """The modules of the running kernel. Raises OSError, and SetupError for a kernel without modules."""
    try:
        loaded = (PROC / "modules").read_text()
    except FileNotFoundError as error:
        raise SetupError("this kernel was built without modules") from error
    folder = MODULES / os.uname().release
    return host_output.modules_of(loaded, _text_of(folder / "modules.builtin"), _text_of(folder / "modules.dep"))


def _text_of(path: Path) -> str:
    """The text of a file, empty when it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _sysctls(devices: Sequence[str]) -> Mapping[str, str]:
    """The values of the sysctls that the checks ask about, as far as they can be read."""
    paths = {name: PROC / "sys" / name.replace(".", "/") for name in SYSCTLS}
    # The name of a device may have dots.
    paths |= {rp_filter(device): PROC / "sys/net/ipv4/conf" / device / "rp_filter" for device in devices}
    texts = {name: _text_of(path).strip() for name, path in paths.items()}
    return {name: text for name, text in texts.items() if text}


def _output(*argv: str) -> str:
    """The output of a program. Raises SetupError."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=COMMAND_SECONDS)
    except FileNotFoundError as error:
        raise SetupError(f"the program {argv[0]} is missing") from error
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"{' '.join(argv)} did not end within {COMMAND_SECONDS:g} s") from error
    if done.returncode != 0:
        raise SetupError(f"{' '.join(argv)}: {' '.join(done.stderr.split()) or f'exit code {done.returncode}'}")
    return done.stdout
