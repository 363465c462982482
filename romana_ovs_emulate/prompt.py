"""Runs the prompt of an emulated cluster: Mininet's command syntax, with pods in place of hosts.

`ns/pod curl ns/pod[:port]`, `a ping b`, `a <any command>`; short names work where they are unique.
"""

from __future__ import annotations

import cmd
import re
import readline
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from typing import IO

from romana_ovs.model.errors import InputError, RomanaError
from romana_ovs.model.objects import PodKey
from romana_ovs_emulate.agent_client import PROBE_SECONDS
from romana_ovs_emulate.emulation import Emulation
from romana_ovs_emulate.pods import RunningPod
from romana_ovs_emulate.system import inside

PROMPT = "romana-ovs> "
PING_OPTIONS = ("-c", "3", "-i", "0.3", "-W", "1")
"""The options that `a ping b` adds, so that it ends by itself."""
_NAME_PART = r"[A-Za-z0-9._-]"

HELP = """\
  POD curl POD[:PORT]    get the name of a pod from its HTTP server (port 80)
  POD ping POD           three echo requests
  POD COMMAND ...        any command inside a pod; names of pods in it become addresses
  NODE COMMAND ...       any command inside a node
  matrix [PORT,...]      measure with real packets which paths are open, and compare with the expected matrix
  pods, nodes            where each pod runs, and the nodes' switches
  flows [NODE]           the OpenFlow tables, and the command that shows them
  help, exit             this text; leave (or Ctrl-D)
POD is namespace/name, or the name alone where only one pod has it."""


class Prompt(cmd.Cmd):
    """The prompt; `show_matrix` measures the given ports (empty: the default ones) and draws the result."""

    def __init__(
        self,
        emulation: Emulation,
        *,
        show_matrix: Callable[[tuple[str, ...]], None],
        stdin: IO[str] = sys.stdin,
        stdout: IO[str] = sys.stdout,
    ) -> None:
        super().__init__(stdin=stdin, stdout=stdout)
        self._emulation = emulation
        self._show_matrix = show_matrix
        self.use_rawinput = stdin.isatty()
        self.prompt = PROMPT if self.use_rawinput else ""
        readline.set_completer_delims(" \t\n")

    def run(self) -> None:
        """Run until the user leaves; an error, or Ctrl-C on a terminal, ends one command only."""
        while True:
            try:
                self.cmdloop()
                return
            except KeyboardInterrupt:
                if not self.use_rawinput:
                    raise
                self._print("^C (exit or Ctrl-D leaves)")
            except RomanaError as error:
                self._print(str(error))

    def emptyline(self) -> bool:
        """Do nothing, instead of repeating the last command."""
        return False

    def default(self, line: str) -> bool:  # type: ignore[override]
        """`POD COMMAND ...` or `NODE COMMAND ...`."""
        if line == "EOF":
            self._print("")
            return True
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise InputError.because(f"the line cannot be read: {error}") from error
        if words:
            self._command(words, line)
        return False

    def do_help(self, arg: str) -> None:
        """help: list the commands."""
        self._print(HELP)

    def do_exit(self, arg: str) -> bool:
        """exit: leave, and remove the emulated cluster."""
        return True

    do_quit = do_exit

    def do_matrix(self, arg: str) -> None:
        """matrix [PORT,...]: measure which paths are open."""
        self._show_matrix(tuple(port.strip() for port in arg.split(",") if port.strip()))

    def do_pods(self, arg: str) -> None:
        """pods: list the pods."""
        rows: list[tuple[str, ...]] = [("POD", "NODE", "ADDRESS", "MAC", "PORT", "NAMESPACE (ip netns exec ...)")]
        running = self._emulation.pods
        for key, pod in sorted(self._emulation.state.pods.items()):
            netns = running[key].netns if key in running else "-"
            rows.append((key, pod.node, pod.address, pod.mac, "-" if pod.port is None else str(pod.port), netns))
        self._table(rows)
        for sentence in self._emulation.failures:
            self._print(sentence)

    def do_nodes(self, arg: str) -> None:
        """nodes: list the nodes, and the commands that show their flows."""
        rows: list[tuple[str, ...]] = [("NODE", "ADDRESS", "CONTROLLER", "FLOWS")]
        states, addresses = self._emulation.state.nodes, self._emulation.node_addresses
        for name in self._emulation.nodes:
            state = states.get(name)
            connected = "connected" if state is not None and state.connected else "disconnected"
            flows = ", ".join(f"{kind} {count}" for kind, count in state.flows.items()) if state is not None else ""
            rows.append((name, str(addresses.get(name, "-")), connected, flows))
        self._table(rows)
        for node in self._emulation.nodes.values():
            self._print(f"{node.name}: {node.dump_flows}")

    def do_flows(self, arg: str) -> None:
        """flows [NODE]: print the flows of one node, or of all."""
        nodes = self._emulation.nodes
        if arg and arg not in nodes:
            raise InputError.because(f"there is no node {arg}; the nodes are {', '.join(nodes)}")
        for node in nodes.values():
            if arg in ("", node.name):
                self._print(f"{node.name}: {node.dump_flows}")
                self._print(node.ofctl("dump-flows").rstrip())

    def completenames(self, text: str, *ignored: object) -> list[str]:
        """Commands, nodes and pods that begin with `text`."""
        return [*super().completenames(text, *ignored), *self._names(text)]

    def completedefault(self, *ignored: object) -> list[str]:
        """Nodes and pods that begin with what was typed (the first argument that readline passes)."""
        return self._names(str(ignored[0]))

    def _names(self, begin: str) -> list[str]:
        """Names that `resolve` takes, full ones and unique short ones, and nodes."""
        shorts = Counter(key.partition("/")[2] for key in self._emulation.pods)
        names = [*self._emulation.nodes, *self._emulation.pods, *(name for name, count in shorts.items() if count == 1)]
        return [name for name in names if name.startswith(begin)]

    def _command(self, words: list[str], line: str) -> None:
        nodes, pods = self._emulation.nodes, self._emulation.pods
        netns = nodes[words[0]].netns if words[0] in nodes else resolve(pods, words[0]).netns
        if len(words) == 1:
            raise InputError.because(f"{words[0]} needs a command: try `{words[0]} curl POD`, or help")
        if words[1] == "curl" and len(words) == 3 and words[0] not in nodes and "://" not in words[2]:
            self._curl(resolve(pods, words[0]), words[2])
            return
        rest = [with_addresses(word, pods) for word in words[2:]]
        if words[1] == "ping" and len(words) == 3:
            rest = [*PING_OPTIONS, *rest]
        self._execute(netns, [words[1], *rest])

    def _curl(self, client: RunningPod, where: str) -> None:
        name, _, port = where.partition(":")
        if port and not port.isdigit():
            raise InputError.because(f"{port} is not a port number")
        address = _address_of(name, self._emulation.pods)
        answer = client.agent.probe([(address, int(port or 80), "tcp", "")])[0]
        if answer.open:
            self._print(str(answer.name))
        else:
            waited = f" after {PROBE_SECONDS:g} s" if answer.detail == "no answer" else ""
            self._print(f"curl: {where} ({address}): {answer.detail}{waited}")

    def _execute(self, netns: str, argv: list[str]) -> None:
        """Run a command; its output is passed on, unless it writes to the terminal itself."""
        shown = None if self.use_rawinput else subprocess.PIPE
        stderr = None if self.use_rawinput else subprocess.STDOUT
        done = subprocess.run(
            inside(netns, argv), stdin=subprocess.DEVNULL, stdout=shown, stderr=stderr, text=True, check=False
        )
        if done.stdout:
            self._print(done.stdout.rstrip())

    def _table(self, rows: list[tuple[str, ...]]) -> None:
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            self._print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

    def _print(self, text: str) -> None:
        self.stdout.write(text + "\n")
        self.stdout.flush()


def resolve(pods: Mapping[PodKey, RunningPod], name: str) -> RunningPod:
    """The pod of a full name, or of a short one that only one pod has. Raises InputError."""
    matches = [pod for key, pod in pods.items() if name in (key, key.partition("/")[2])]
    exact = [pod for pod in matches if pod.place.pod == name]
    if len(exact or matches) == 1:
        return (exact or matches)[0]
    if matches:
        raise InputError.because(f"{name} is the name of several pods: {', '.join(pod.place.pod for pod in matches)}")
    raise InputError.because(f"{name} is neither a pod nor a command; `pods` lists the pods, `help` the commands")


def with_addresses(word: str, pods: Mapping[PodKey, RunningPod]) -> str:
    """A word of a command with the names of pods replaced by addresses: full names anywhere, short names alone."""
    short, colon, port = word.partition(":")
    try:
        return resolve(pods, short).place.address + colon + port
    except InputError:
        for key in sorted(pods, key=len, reverse=True):
            pattern = f"(?<!{_NAME_PART}){re.escape(key)}(?!{_NAME_PART})"
            word = re.sub(pattern, pods[key].place.address, word)
        return word


def _address_of(name: str, pods: Mapping[PodKey, RunningPod]) -> str:
    """The address of a pod, or `name` itself when it is an address. Raises InputError."""
    if re.fullmatch(r"\d+(\.\d+){3}", name):
        return name
    return resolve(pods, name).place.address
