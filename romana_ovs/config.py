"""Settings and where they come from: group `[romana]` of an oslo.config file, as ryu-manager reads it.

Every option is kept as text by oslo.config and understood here, so that the controller's file and a
manifest folder's `romana.conf` mean the same and are refused in the same words. A value may be followed
by a comment that starts with ` #`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from romana_ovs.model.addresses import network_fault
from romana_ovs.model.errors import InputError, Problem
from romana_ovs.model.settings import Isolation, Settings, TenantSource
from romana_ovs.model.syntax import key_fault, plain, shown, subdomain_fault, value_fault

if TYPE_CHECKING:
    from oslo_config.cfg import ConfigOpts

GROUP = "romana"
FILE_NAME = "romana.conf"
IN_CLUSTER = "in-cluster"
"""In the place of a kubeconfig file: the service account of the pod that the controller runs in."""
MAX_BITS = 30
"""Widest part of an address in bits; whether the parts fit together is for the address plan to say."""
MAX_RATE = 1_000_000
MAX_COST = 10_000_000
"""Connections a second; ten seconds' worth of it still fit a meter's burst size."""
MAX_CONNECTIONS = 100_000_000
"""Connections of one tenant on one node; no table is that large."""

T = TypeVar("T")


class Option(NamedTuple):
    """One option of the group: its name, default as text, unit (empty for none) and meaning."""

    name: str
    default: str
    unit: str
    help: str


OPTIONS = (
    Option(
        "isolation",
        "tenant",
        "",
        "What a pod that no policy selects may receive from other pods: tier (from its "
        "own tenant and tier), tenant (from its own tenant), none (from everyone).",
    ),
    Option(
        "tenant_source",
        "namespace",
        "",
        "Where a pod's tenant is read from: namespace, namespace-label:KEY or "
        "pod-label:KEY (with which whoever may create pods chooses their tenant).",
    ),
    Option("shared_tenants", "kube-system", "comma-separated tenants", "Tenants that every tenant may connect to."),
    Option("tier_labels", "tier", "comma-separated label keys", "Pod labels that name a pod's tier in its tenant."),
    Option("network", "10.0.0.0/8", "CIDR", "The range of all pod addresses."),
    Option("segment_bits", "12", "bits", "Bits of a pod address that number tenants' segments."),
    Option("host_bits", "6", "bits", "Bits of a pod address that number hosts."),
    Option("endpoint_bits", "6", "bits", "Bits of a pod address that number the pods of a segment on one host."),
    Option(
        "new_connections",
        "1000",
        "connections a second",
        "How many connections one pod may open towards other nodes and outside, ten "
        "seconds' worth of them at once; 0: no limit.",
    ),
    Option(
        "tenant_connections",
        "250000",
        "connections",
        "How many connections one tenant may have on one node, and at most a fourth of the node's table; 0: no limit.",
    ),
    Option(
        "fragments",
        "50",
        "fragments a second",
        "How many fragments of IP packets one pod may send, two seconds' worth of them at once; 0: no limit.",
    ),
    Option(
        "namespace_terms",
        "10000",
        "peers and ports",
        "How many peers and ports the policies of one namespace may have, both directions together: the oldest "
        "policies count, the others isolate and allow nothing; 0: no limit.",
    ),
    Option(
        "namespace_flows",
        "25000",
        "flows",
        "How many policy flows one node makes for the policies of one namespace; what needs more is left out; 0: no "
        "limit.",
    ),
    Option(
        "manifests",
        "/etc/romana-ovs/manifests",
        "path",
        "Folder of Kubernetes manifests that the controller follows, from when it is there.",
    ),
    Option("nodes", "2", "nodes", "How many nodes there are when the folder has no Node object."),
    Option(
        "kubeconfig",
        "",
        "path",
        "The Kubernetes API server that the controller follows in place of the folder: a kubeconfig file, or "
        "in-cluster for the service account of the pod that it runs in; empty: none.",
    ),
    Option(
        "node",
        "",
        "node name",
        "With an API server: drive the bridge of this node alone, and watch no other node's pods; empty: every bridge.",
    ),
    Option(
        "registry_only",
        "no",
        "yes or no",
        "With an API server: give out numbers as the registry, and drive no bridge at all.",
    ),
    Option(
        "ovsdb",
        "unix:/var/run/openvswitch/db.sock",
        "comma-separated OVSDB remotes",
        "Databases of the Open vSwitch instances whose bridges the controller drives.",
    ),
    Option("state_file", "", "path", "File that remembers allocated numbers and addresses; empty: none."),
    Option("status_socket", "", "path", "Unix socket that answers with the controller's status; empty: none."),
)
_NAMES = frozenset(option.name for option in OPTIONS)


@dataclass(frozen=True, slots=True)
class ControllerOptions:
    """What the controller needs besides Settings. What is not set is None; `kubeconfig` may be `IN_CLUSTER`."""

    manifests: Path | None = Path("/etc/romana-ovs/manifests")
    nodes: int = 2
    kubeconfig: str | None = None
    node: str | None = None
    registry_only: bool = False
    ovsdb: tuple[str, ...] = ("unix:/var/run/openvswitch/db.sock",)
    state_file: Path | None = None
    status_socket: Path | None = None


def register(conf: ConfigOpts, given: Mapping[str, str] | None = None) -> None:
    """Declare the options in `conf` (such as ryu's CONF); doing so twice is harmless.

    `given` counts above what files say.
    """
    from oslo_config import cfg  # it takes longer to import than the offline commands do

    options = [
        cfg.StrOpt(option.name, default=option.default, help=f"{option.help} Unit: {option.unit or 'none'}.")
        for option in OPTIONS
    ]
    conf.register_opts(options, group=GROUP)
    for name, text in (given or {}).items():
        conf.set_override(name, text, group=GROUP)


def settings_from(conf: ConfigOpts) -> Settings:
    """The Settings in a parsed `conf` on which `register` was called.

    Raises InputError naming every bad value, and every option of our group that there is not.
    """
    values, source = _values_of(conf)
    reading = _Reading(values, source, list(_unknown_in(conf)))
    settings = _settings(reading)
    reading.finish()
    return settings


def controller_options_from(conf: ConfigOpts) -> ControllerOptions:
    """The controller's own options in a parsed `conf`. Raises InputError naming every bad value."""
    values, source = _values_of(conf)
    reading = _Reading(values, source)
    options = ControllerOptions(
        manifests=reading.of("manifests", _path),
        nodes=reading.of("nodes", _count),
        kubeconfig=reading.of("kubeconfig", _text_or_none),
        node=reading.of("node", _node_name),
        registry_only=reading.of("registry_only", _yes),
        ovsdb=reading.of("ovsdb", _remotes),
        state_file=reading.of("state_file", _path),
        status_socket=reading.of("status_socket", _path),
    )
    reading.check(_parts_fault(options))
    reading.finish()
    return options


def _parts_fault(options: ControllerOptions) -> tuple[str, str] | None:
    """The option that does not go with the others, and why."""
    alone = [name for name, set_ in (("node", options.node), ("registry_only", options.registry_only)) if set_]
    if alone and options.kubeconfig is None:
        return alone[0], "only an API server's cluster can be shared out; name one by kubeconfig"
    if len(alone) > 1:
        return "registry_only", "the registry alone drives no bridge, so node cannot be given"
    return None


def load_settings(folder: Path) -> Settings:
    """The Settings that `romana.conf` in `folder` gives, the defaults when there is none (or `folder` is a file).

    Raises InputError naming the file and every unknown option and bad value.
    """
    path = folder / FILE_NAME
    return settings_in(path) if path.is_file() else Settings()


def settings_in(path: Path) -> Settings:
    """The Settings that a configuration file gives. Raises InputError naming it and all that is wrong with it."""
    groups = _parsed(path)
    values = {name: texts[-1] for name, texts in groups.pop(GROUP, {}).items()}
    problems = [
        Problem(f"unknown group, write [{GROUP}]", file=str(path), field=f"[{plain(name)}]")
        for name in sorted(groups.keys() - {"DEFAULT"})
    ]
    problems += _unknown(values, path)
    reading = _Reading(values, str(path), problems)
    settings = _settings(reading)
    _controller_values(reading)
    reading.finish()
    return settings


def _unknown_in(conf: ConfigOpts) -> Iterator[Problem]:
    """What oslo.config passes over: options of our group that nobody declared. Other groups are not ours to judge."""
    for name in (conf.config_file if "config_file" in conf else None) or ():
        yield from _unknown(_parsed(Path(name)).get(GROUP, {}), Path(name))


def _unknown(names: Iterable[str], path: Path) -> list[Problem]:
    unknown = sorted(set(names) - _NAMES)
    return [Problem("unknown option", file=str(path), field=_field(plain(name))) for name in unknown]


def _settings(reading: _Reading) -> Settings:
    source, key = reading.of("tenant_source", _tenant_source)
    return Settings(
        isolation=reading.of("isolation", _isolation),
        tenant_source=source,
        tenant_key=key,
        shared_tenants=frozenset(reading.of("shared_tenants", _tenants)),
        tier_labels=reading.of("tier_labels", _label_keys),
        network=reading.of("network", _network),
        segment_bits=reading.of("segment_bits", _bits),
        host_bits=reading.of("host_bits", _bits),
        endpoint_bits=reading.of("endpoint_bits", _bits),
        new_connections=reading.of("new_connections", _rate),
        tenant_connections=reading.of("tenant_connections", _connections),
        fragments=reading.of("fragments", _fragments),
        namespace_terms=reading.of("namespace_terms", _terms),
        namespace_flows=reading.of("namespace_flows", _flows),
    )


def _controller_values(reading: _Reading) -> None:
    """Check the controller's options, which a folder's file may hold too."""
    reading.of("nodes", _count)
    reading.of("node", _node_name)
    reading.of("registry_only", _yes)
    reading.of("ovsdb", _remotes)


class _Reading:
    """Understands option texts and gathers what is wrong with them."""

    def __init__(self, values: Mapping[str, str], source: str, problems: list[Problem] | None = None) -> None:
        self.values = values
        self.source = source
        self.problems = problems if problems is not None else []

    def of(self, name: str, understand: Callable[[str], T]) -> T:
        """The value of an option; a bad one is noted and its default returned."""
        default = next(option.default for option in OPTIONS if option.name == name)
        try:
            return understand(self._text(self.values.get(name, default)))
        except ValueError as error:
            self.problems.append(Problem(str(error), file=self.source, field=_field(name)))
            return understand(default)

    @staticmethod
    def _text(text: str) -> str:
        """`text` without the comment that may follow it."""
        return "" if text.lstrip().startswith("#") else text.split(" #")[0].split("\t#")[0].strip()

    def check(self, fault: tuple[str, str] | None) -> None:
        """Note what is wrong with an option (name, reason) beside its own text."""
        if fault is not None:
            self.problems.append(Problem(fault[1], file=self.source, field=_field(fault[0])))

    def finish(self) -> None:
        """Raise InputError when anything was wrong."""
        if self.problems:
            raise InputError(*self.problems)


def _values_of(conf: ConfigOpts) -> tuple[dict[str, str], str]:
    """The texts of all options in `conf`, and the file that they are from as far as it is known."""
    group = getattr(conf, GROUP)
    files = conf.config_file if "config_file" in conf else None
    source = str(files[-1]) if files else ""
    return {option.name: getattr(group, option.name) or "" for option in OPTIONS}, source


def _parsed(path: Path) -> dict[str, dict[str, list[str]]]:
    """The texts of each option of each group in a file. Raises InputError."""
    from oslo_config import cfg
    from oslo_config.iniparser import ParseError

    sections: dict[str, dict[str, list[str]]] = {}
    try:
        cfg.ConfigParser(str(path), sections).parse()
    except ParseError as error:
        raise InputError.because(f"line {error.lineno}: {error.msg}: {shown(error.line)}", file=str(path)) from error
    except UnicodeDecodeError as error:
        raise InputError.because("is not UTF-8 text", file=str(path)) from error
    except OSError as error:
        raise InputError.because(f"cannot be read: {error.strerror}", file=str(path)) from error
    return sections


def _field(name: str) -> str:
    return f"[{GROUP}] {name}"


def _list(text: str) -> tuple[str, ...]:
    return tuple(part for part in (piece.strip() for piece in text.replace("\n", ",").split(",")) if part)


def _isolation(text: str) -> Isolation:
    try:
        return Isolation(text)
    except ValueError as error:
        raise ValueError(f"{shown(text)} is none of {', '.join(one.value for one in Isolation)}") from error


def _tenant_source(text: str) -> tuple[TenantSource, str]:
    name, colon, key = (part.strip() for part in text.partition(":"))
    try:
        source = TenantSource(name)
    except ValueError as error:
        raise ValueError(f"{shown(text)} is none of namespace, namespace-label:KEY, pod-label:KEY") from error
    if source is TenantSource.NAMESPACE:
        if colon:
            raise ValueError("namespace takes no label key")
        return source, ""
    if fault := key_fault(key) if key else f"{name} needs a label key, as in {name}:owner":
        raise ValueError(fault)
    return source, key


def _tenants(text: str) -> tuple[str, ...]:
    found = _list(text)
    for tenant in found:
        if fault := value_fault(tenant):
            raise ValueError(f"tenant {shown(tenant)}: {fault}")
    return found


def _label_keys(text: str) -> tuple[str, ...]:
    found = _list(text)
    for key in found:
        if fault := key_fault(key):
            raise ValueError(fault)
    if len(set(found)) < len(found):
        raise ValueError("a label key is given twice")
    return found


def _network(text: str) -> IPv4Network:
    if "/" not in text:
        raise ValueError(f"{shown(text)} is not a CIDR such as 10.0.0.0/8")
    try:
        network = IPv4Network(text)
    except ValueError as error:
        raise ValueError(f"{shown(text)} is not an IPv4 CIDR without host bits, such as 10.0.0.0/8") from error
    if fault := network_fault(network):
        raise ValueError(fault)
    return network


def _whole(text: str, low: int, high: int, unit: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and low <= int(text) <= high):
        raise ValueError(f"{shown(text)} is not a number of {unit} from {low} to {high}")
    return int(text)


def _bits(text: str) -> int:
    return _whole(text, 1, MAX_BITS, "bits")


def _rate(text: str) -> int:
    return _whole(text, 0, MAX_RATE, "connections a second")


def _fragments(text: str) -> int:
    return _whole(text, 0, MAX_RATE, "fragments a second")


def _connections(text: str) -> int:
    return _whole(text, 0, MAX_CONNECTIONS, "connections")


def _terms(text: str) -> int:
    return _whole(text, 0, MAX_COST, "peers and ports")


def _flows(text: str) -> int:
    return _whole(text, 0, MAX_COST, "flows")


def _count(text: str) -> int:
    return _whole(text, 1, 10_000, "nodes")


def _text_or_none(text: str) -> str | None:
    return text or None


def _node_name(text: str) -> str | None:
    if text and (fault := subdomain_fault(text)):
        raise ValueError(fault)
    return text or None


def _yes(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError(f"{shown(text)} is neither yes nor no")
    return text == "yes"


def _path(text: str) -> Path | None:
    return Path(text) if text else None


def _remotes(text: str) -> tuple[str, ...]:
    """OVSDB remotes; ovs-vswitchd(8) names the forms."""
    found = _list(text)
    if not found:
        raise ValueError("names no OVSDB remote")
    for remote in found:
        if not remote.startswith(("unix:", "tcp:", "ssl:")):
            raise ValueError(f"{shown(remote)} is no OVSDB remote such as unix:/var/run/openvswitch/db.sock")
    return found
