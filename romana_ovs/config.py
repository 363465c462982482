"""Parses settings: the group `[romana]` of an oslo.config file, as ryu-manager reads it.

All options are strings for oslo.config and are parsed here, so that the controller's file and a manifest folder's
`romana.conf` have the same meaning and the same error messages. A comment that starts with ` #` may follow a value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from romana_ovs import option_values
from romana_ovs.model.addresses import overlap_fault
from romana_ovs.model.bridge import DatapathType
from romana_ovs.model.errors import InputError, Problem
from romana_ovs.model.settings import Settings
from romana_ovs.model.syntax import plain, shown
from romana_ovs.option_values import AUTO

if TYPE_CHECKING:
    from oslo_config.cfg import ConfigOpts

GROUP = "romana"
FILE_NAME = "romana.conf"
IN_CLUSTER = "in-cluster"
"""The value of `kubeconfig` that means the service account of the controller's pod."""

T = TypeVar("T")


class Option(NamedTuple):
    """One option of the group: its name, default as text, unit (empty for none) and help text."""

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
        "pod-label:KEY (then users who may create pods choose the tenant).",
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
        "tenant_fragments",
        "100",
        "fragments a second",
        "The same of all pods of one tenant on one node together, two seconds' worth of them at once; 0: no limit.",
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
        "How many policy flows one node makes for the policies of one namespace; excess flows are left out; 0: no "
        "limit.",
    ),
    Option(
        "service_ranges",
        "",
        "comma-separated CIDRs",
        "Ranges of the cluster addresses of Services, beside those of the API server's ServiceCIDR objects. Packets to "
        "them go to the node itself, whose kube-proxy translates them.",
    ),
    Option(
        "datapath",
        AUTO,
        "",
        "The datapath of bridges: system (the kernel's), netdev (userspace), auto. Emulated nodes are on it, with auto "
        "on the kernel's where it has one; the controller reports each bridge that is on another, with auto none.",
    ),
    Option(
        "manifests",
        "/etc/romana-ovs/manifests",
        "path",
        "Folder of Kubernetes manifests that the controller follows; it may be created later.",
    ),
    Option(
        "manifests_recursive", "no", "yes or no", "Whether the controller reads the sub-folders of that folder, too."
    ),
    Option("nodes", "2", "nodes", "How many nodes there are when the folder has no Node object."),
    Option(
        "kubeconfig",
        "",
        "path",
        "The Kubernetes API server that the controller watches instead of the folder: a kubeconfig file, or "
        "in-cluster for the service account of the controller's pod; empty: none.",
    ),
    Option(
        "node",
        "",
        "node name",
        "With an API server: program only the bridge of this node, and watch only its pods; empty: every bridge.",
    ),
    Option(
        "registry_only",
        "no",
        "yes or no",
        "With an API server: act as the registry, and program no bridge.",
    ),
    Option(
        "ovsdb",
        "unix:/var/run/openvswitch/db.sock",
        "comma-separated OVSDB remotes",
        "Databases of the Open vSwitch instances whose bridges the controller programs.",
    ),
    Option("state_file", "", "path", "File in which allocated numbers and addresses are saved; empty: none."),
    Option("status_socket", "", "path", "Unix socket on which the controller reports its status; empty: none."),
)
_NAMES = frozenset(option.name for option in OPTIONS)


@dataclass(frozen=True, slots=True)
class ControllerOptions:
    """The controller's options besides Settings. None: not set; `kubeconfig` may be `IN_CLUSTER`."""

    manifests: Path | None = Path("/etc/romana-ovs/manifests")
    manifests_recursive: bool = False
    nodes: int = 2
    kubeconfig: str | None = None
    node: str | None = None
    registry_only: bool = False
    ovsdb: tuple[str, ...] = ("unix:/var/run/openvswitch/db.sock",)
    state_file: Path | None = None
    status_socket: Path | None = None
    datapath: DatapathType | None = None


def register(conf: ConfigOpts, overrides: Mapping[str, str] | None = None) -> None:
    """Declare the options in `conf` (such as ryu's CONF). Idempotent.

    `overrides` take precedence over configuration files.
    """
    from oslo_config import cfg  # imported here: it takes longer than an offline command

    options = [
        cfg.StrOpt(option.name, default=option.default, help=f"{option.help} Unit: {option.unit or 'none'}.")
        for option in OPTIONS
    ]
    conf.register_opts(options, group=GROUP)
    for name, text in (overrides or {}).items():
        conf.set_override(name, text, group=GROUP)


def settings_from(conf: ConfigOpts) -> Settings:
    """The Settings in a parsed `conf` on which `register` was called.

    Raises InputError with every invalid value and every unknown option of the group.
    """
    values, source = _values_of(conf)
    parser = _Parser(values, source, list(_unknown_in(conf)))
    settings = _settings(parser)
    parser.finish()
    return settings


def controller_options_from(conf: ConfigOpts) -> ControllerOptions:
    """The controller's own options in a parsed `conf`. Raises InputError with every invalid value."""
    values, source = _values_of(conf)
    parser = _Parser(values, source)
    options = ControllerOptions(
        manifests=parser.of("manifests", option_values.path),
        manifests_recursive=parser.of("manifests_recursive", option_values.boolean),
        nodes=parser.of("nodes", option_values.node_count),
        kubeconfig=parser.of("kubeconfig", option_values.text_or_none),
        node=parser.of("node", option_values.node_name),
        registry_only=parser.of("registry_only", option_values.boolean),
        ovsdb=parser.of("ovsdb", option_values.remotes),
        state_file=parser.of("state_file", option_values.path),
        status_socket=parser.of("status_socket", option_values.path),
        datapath=parser.of("datapath", option_values.datapath),
    )
    parser.check(_conflict(options))
    parser.finish()
    return options


def _conflict(options: ControllerOptions) -> tuple[str, str] | None:
    """An option that contradicts the others, and the reason; None without a conflict."""
    roles = [name for name, set_ in (("node", options.node), ("registry_only", options.registry_only)) if set_]
    if roles and options.kubeconfig is None:
        return roles[0], "this needs an API server; set kubeconfig"
    if len(roles) > 1:
        return "registry_only", "a process that is only the registry programs no bridge; unset node"
    return None


def load_settings(folder: Path) -> Settings:
    """The Settings in the `romana.conf` of `folder`, the defaults without one (or when `folder` is a file).

    Raises InputError with the file, every unknown option and every invalid value.
    """
    path = folder / FILE_NAME
    return settings_in(path) if path.is_file() else Settings()


def settings_in(path: Path) -> Settings:
    """The Settings in a configuration file. Raises InputError with the file and all its problems."""
    groups = _parsed(path)
    values = {name: texts[-1] for name, texts in groups.pop(GROUP, {}).items()}
    problems = [
        Problem(f"unknown group, write [{GROUP}]", file=str(path), field=f"[{plain(name)}]")
        for name in sorted(groups.keys() - {"DEFAULT"})
    ]
    problems += _unknown(values, path)
    parser = _Parser(values, str(path), problems)
    settings = _settings(parser)
    _controller_values(parser)
    parser.finish()
    return settings


def datapath_in(path: Path) -> DatapathType | None:
    """The datapath that a configuration file names; None for `auto`. Raises InputError when it is invalid."""
    values = {name: texts[-1] for name, texts in _parsed(path).get(GROUP, {}).items()}
    parser = _Parser(values, str(path))
    datapath = parser.of("datapath", option_values.datapath)
    parser.finish()
    return datapath


def kubeconfig_in(path: Path) -> str | None:
    """The API server that a configuration file names, maybe `IN_CLUSTER`; None for none. Raises InputError."""
    values = {name: texts[-1] for name, texts in _parsed(path).get(GROUP, {}).items()}
    return _Parser(values, str(path)).of("kubeconfig", option_values.text_or_none)


def _unknown_in(conf: ConfigOpts) -> Iterator[Problem]:
    """Unknown options of the group, which oslo.config ignores. Other groups belong to other programs."""
    for name in (conf.config_file if "config_file" in conf else None) or ():
        yield from _unknown(_parsed(Path(name)).get(GROUP, {}), Path(name))


def _unknown(names: Iterable[str], path: Path) -> list[Problem]:
    unknown = sorted(set(names) - _NAMES)
    return [Problem("unknown option", file=str(path), field=_field(plain(name))) for name in unknown]


def _settings(parser: _Parser) -> Settings:
    source, key = parser.of("tenant_source", option_values.tenant_source)
    settings = Settings(
        isolation=parser.of("isolation", option_values.isolation),
        tenant_source=source,
        tenant_key=key,
        shared_tenants=frozenset(parser.of("shared_tenants", option_values.tenants)),
        tier_labels=parser.of("tier_labels", option_values.label_keys),
        network=parser.of("network", option_values.network),
        segment_bits=parser.of("segment_bits", option_values.bits),
        host_bits=parser.of("host_bits", option_values.bits),
        endpoint_bits=parser.of("endpoint_bits", option_values.bits),
        new_connections=parser.of("new_connections", option_values.rate),
        tenant_connections=parser.of("tenant_connections", option_values.connections),
        fragments=parser.of("fragments", option_values.fragments),
        tenant_fragments=parser.of("tenant_fragments", option_values.fragments),
        namespace_terms=parser.of("namespace_terms", option_values.terms),
        namespace_flows=parser.of("namespace_flows", option_values.flows),
        service_ranges=parser.of("service_ranges", option_values.service_ranges),
    )
    for service_range in settings.service_ranges:
        fault = overlap_fault(settings.network, service_range)
        parser.check(("service_ranges", fault) if fault else None)
    return settings


def _controller_values(parser: _Parser) -> None:
    """Check the values of the controller's options, which the file of a folder may have, too."""
    parser.of("nodes", option_values.node_count)
    parser.of("node", option_values.node_name)
    parser.of("registry_only", option_values.boolean)
    parser.of("manifests_recursive", option_values.boolean)
    parser.of("ovsdb", option_values.remotes)
    parser.of("datapath", option_values.datapath)


class _Parser:
    """Parses option texts and collects their problems."""

    def __init__(self, values: Mapping[str, str], source: str, problems: list[Problem] | None = None) -> None:
        self.values = values
        self.source = source
        self.problems = problems if problems is not None else []

    def of(self, name: str, parse: Callable[[str], T]) -> T:
        """The value of an option; for an invalid one its problem is added and its default returned."""
        default = next(option.default for option in OPTIONS if option.name == name)
        try:
            return parse(self._text(self.values.get(name, default)))
        except ValueError as error:
            self.problems.append(Problem(str(error), file=self.source, field=_field(name)))
            return parse(default)

    @staticmethod
    def _text(text: str) -> str:
        """`text` without a comment."""
        return "" if text.lstrip().startswith("#") else text.split(" #")[0].split("\t#")[0].strip()

    def check(self, fault: tuple[str, str] | None) -> None:
        """Add the problem (name, reason) of an option, if any."""
        if fault is not None:
            self.problems.append(Problem(fault[1], file=self.source, field=_field(fault[0])))

    def finish(self) -> None:
        """Raise InputError if there are problems."""
        if self.problems:
            raise InputError(*self.problems)


def _values_of(conf: ConfigOpts) -> tuple[dict[str, str], str]:
    """The texts of all options in `conf`, and their file if known."""
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
