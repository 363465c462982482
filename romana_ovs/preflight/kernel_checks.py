"""Judges what the kernel keeps for all pods of a host: modules, the connection table, fragments, tracked tunnels."""

from __future__ import annotations

from collections.abc import Iterator

from romana_ovs.model.errors import Severity
from romana_ovs.model.settings import Settings
from romana_ovs.pipeline.zones import COMMON_DIVISOR, TENANT_DIVISOR, is_common
from romana_ovs.preflight.facts import ConntrackTable, HostFacts, KernelModules, known
from romana_ovs.preflight.findings import Finding

CONNTRACK_MAX = "net.netfilter.nf_conntrack_max"
FRAGMENT_MEMORY = "net.ipv4.ipfrag_high_thresh"
FRAGMENT_SECONDS = "net.ipv4.ipfrag_time"
UNANSWERED = (
    "net.netfilter.nf_conntrack_tcp_timeout_syn_sent",
    "net.netfilter.nf_conntrack_udp_timeout",
    "net.netfilter.nf_conntrack_icmp_timeout",
)
"""How many seconds the kernel keeps a connection that nobody has answered."""
NEW_CONNECTIONS_BURST_SECONDS = 10
"""How many seconds' worth of connections a pod may open at once (`new_connections` in docs/cli.md)."""
USERSPACE_SYN_SECONDS = 30
"""The same of the userspace datapath for TCP: enough for a client, as what it repeats later opens an entry again."""
HOST_DIVISOR = 8
"""In the kernel's table the connections of the host itself should find this part of the table free."""
FRAGMENT_BYTES = 4549
"""The most that one first fragment was seen to take of the memory: 24,028,800 bytes held 5,283 of them (Linux 6.1)."""
FRAGMENT_BURST_SECONDS = 2
"""How many seconds' worth of fragments a tenant may send at once (`tenant_fragments` in docs/cli.md)."""
FRAGMENT_DIVISOR = 3
"""The part of that memory that one tenant may hold without a finding."""
HOOKS = ("prerouting", "output")
"""Where packets are exempted from tracking: those that arrive, and those that this host sends."""


def check_modules(facts: HostFacts, _settings: Settings) -> Iterator[Finding]:
    """The modules that the kernel's datapath needs. Raises UnreadFact."""
    modules = known(facts.modules)
    needed: list[tuple[tuple[str, ...], str]] = [
        (("openvswitch",), "it is the datapath"),
        (("nf_conntrack_netlink",), "the connections of a pod that has ended cannot be deleted without it"),
    ]
    if facts.tunnel is not None:
        kind = facts.tunnel.type
        # Open vSwitch makes a device of the kernel's own module, and takes vport_* where it cannot.
        needed.append(((kind, f"vport_{kind}"), f"the bridge has a {kind} port"))
    for names, reason in needed:
        yield from _module_findings(modules, names, reason)


def _module_findings(modules: KernelModules, names: tuple[str, ...], reason: str) -> Iterator[Finding]:
    if modules.loaded.intersection(names):
        return
    name = names[0]
    if modules.loadable.intersection(names):
        severity, state = Severity.WARNING, "is not loaded"
        action = f"Run modprobe {name}, and write the name into a file of /etc/modules-load.d for the next boot."
    else:
        severity, state = Severity.ERROR, "does not exist for this kernel"
        action = f"Install the kernel package that has {name}, or use the userspace datapath (datapath_type=netdev)."
    yield Finding("kernel-modules", severity, f"module {name}", f"it {state}, and {reason}", action)


def check_connection_table(facts: HostFacts, settings: Settings) -> Iterator[Finding]:
    """Whether the connection table has room for what tenants may open. Raises UnreadFact."""
    table, userspace = known(facts.conntrack), facts.userspace
    subject = f"connection table of {table.size}"
    if not settings.tenant_connections:
        reason = "tenant_connections is 0, so one tenant can fill it, and no other pod opens a connection then"
        yield Finding(
            "connection-table",
            Severity.INFO if userspace else Severity.WARNING,
            subject,
            reason if userspace else f"{reason}, nor does this host",
            "Set tenant_connections.",
        )
        return
    per_tenant = min(settings.tenant_connections, table.size // TENANT_DIVISOR)
    allowed = sum(limit for zone, limit in table.limits.items() if not is_common(zone))
    room = table.size - table.size // COMMON_DIVISOR - (0 if userspace else table.size // HOST_DIVISOR)
    if allowed > room:
        yield _too_many(table, allowed, room, userspace=userspace, settings=settings)
    elif per_tenant < settings.tenant_connections:
        yield Finding(
            "connection-table",
            Severity.INFO,
            subject,
            f"a tenant may have {per_tenant} connections, a fourth of it, and not the {settings.tenant_connections} of "
            "tenant_connections",
            f"To allow all, {_larger_table(settings.tenant_connections * TENANT_DIVISOR, userspace=userspace)}",
        )


def _too_many(table: ConntrackTable, allowed: int, room: int, *, userspace: bool, settings: Settings) -> Finding:
    per_tenant = min(settings.tenant_connections, table.size // TENANT_DIVISOR)
    tenants = max(1, -(-allowed // per_tenant))
    enough = -(-tenants * settings.tenant_connections * table.size // room)
    owners = "connections of no single tenant" if userspace else "connections of no single tenant and of this host"
    return Finding(
        "connection-table",
        Severity.WARNING,
        f"connection table of {table.size}",
        f"the limits of {tenants} tenants add up to {allowed}, and {room} are left beside the {owners}: tenants that "
        "open all of theirs leave no room for these",
        f"Set tenant_connections to at most {room // tenants}, or {_larger_table(enough, userspace=userspace)}",
    )


def _larger_table(size: int, *, userspace: bool) -> str:
    """The command for a table of `size` entries, as the end of a sentence."""
    if userspace:
        return f"run: ovs-appctl dpctl/ct-set-maxconns {size}."
    return f"run: sysctl -w {CONNTRACK_MAX}={size}, and write it into a file of /etc/sysctl.d."


def check_unanswered(facts: HostFacts, settings: Settings) -> Iterator[Finding]:
    """Whether one pod can take all connections of its tenant without any answer. Raises UnreadFact."""
    timeouts = {name: facts.number(name) for name in UNANSWERED}
    longest = max(timeouts, key=lambda name: timeouts[name])
    size = known(facts.conntrack).size
    of_tenant = min(
        settings.tenant_connections or size, size // TENANT_DIVISOR if settings.tenant_connections else size
    )
    of_pod = settings.new_connections * (timeouts[longest] + NEW_CONNECTIONS_BURST_SECONDS)
    if settings.new_connections and of_pod <= of_tenant:
        return
    if not settings.new_connections:
        reason = (
            "new_connections is 0, so one pod can take all connections of its tenant on this host without any answer"
        )
        action = "Set new_connections."
    else:
        enough = of_tenant // settings.new_connections - NEW_CONNECTIONS_BURST_SECONDS
        reason = (
            f"one pod may keep {of_pod} unanswered connections towards other nodes, and its tenant has {of_tenant} on "
            "this host"
        )
        slower = of_tenant // (USERSPACE_SYN_SECONDS + NEW_CONNECTIONS_BURST_SECONDS)
        action = (
            f"Run: sysctl -w {longest}={min(enough, USERSPACE_SYN_SECONDS)}, and write it into a file of /etc/sysctl.d."
            if enough >= USERSPACE_SYN_SECONDS
            else f"Set new_connections to at most {slower}, and run: sysctl -w {longest}={USERSPACE_SYN_SECONDS}."
        )
    yield Finding("unanswered-connections", Severity.WARNING, f"{longest} = {timeouts[longest]}", reason, action)


def check_fragments(facts: HostFacts, settings: Settings) -> Iterator[Finding]:
    """Whether a tenant can take most of the memory for fragments of IP packets. Raises UnreadFact."""
    memory, seconds = facts.number(FRAGMENT_MEMORY), facts.number(FRAGMENT_SECONDS)
    subject, capacity = f"{FRAGMENT_MEMORY} = {memory}", memory // FRAGMENT_BYTES
    if not settings.tenant_fragments:
        yield Finding(
            "fragments",
            Severity.WARNING,
            subject,
            "tenant_fragments is 0, so a tenant can fill this memory, and large datagrams of others and of this host "
            "are lost",
            "Set tenant_fragments.",
        )
        return
    of_tenant = settings.tenant_fragments * (seconds + FRAGMENT_BURST_SECONDS)
    if of_tenant * FRAGMENT_DIVISOR > capacity:
        enough = of_tenant * FRAGMENT_DIVISOR * FRAGMENT_BYTES
        yield Finding(
            "fragments",
            Severity.WARNING,
            subject,
            f"a tenant may keep {of_tenant} fragments waiting for {seconds} s, of about {capacity} that fit; further "
            "large datagrams of others and of this host are lost",
            f"Run: sysctl -w {FRAGMENT_MEMORY}={enough}, and write it into a file of /etc/sysctl.d.",
        )


def check_tunnel_tracking(facts: HostFacts, _settings: Settings) -> Iterator[Finding]:
    """Whether the host tracks tunnel packets as connections of its own. Raises UnreadFact."""
    tunnel = facts.tunnel
    if tunnel is None:
        return
    untracked = known(facts.ruleset).untracked
    tracked = [hook for hook in HOOKS if tunnel.udp_port not in untracked.get(hook, frozenset())]
    if tracked:
        yield Finding(
            "tunnel-tracking",
            Severity.WARNING,
            f"UDP port {tunnel.udp_port}",
            f"this host tracks tunnel packets ({', '.join(tracked)}): each connection between nodes also takes two or "
            "three entries of the host's own",
            "Run: nft -f etc/nftables/untracked-tunnels.nft, at each boot.",
        )
