"""Writes the network configuration list, by which container runtimes find the plugin. Source: CNI specification, 1."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from romana_ovs.model.errors import SetupError
from romana_ovs.preflight.facts import CONFLIST

FILE_NAME = CONFLIST
_TEMPORARY = ".10-romana-ovs.new"
"""In the same folder, as runtimes overlook a file that comes from another one; no name that they would read."""
AGENT_SECONDS = 30
"""How long an ADD waits for an agent that is away: an upgrade takes seconds, ten or more on a busy node.

After an error kubelet would wait some 13 s before it tries again.
"""


def network_configuration(socket: Path, queue: Path, *, portmap: bool) -> dict[str, Any]:
    """The configuration list. `cniVersion` is one that containerd 1.6 knows; others choose among `cniVersions`."""
    plugin = {"type": "romana-cni", "socket": str(socket), "queue": str(queue), "agentWait": AGENT_SECONDS}
    plugins: list[dict[str, Any]] = [plugin]
    if portmap:
        plugins.append({"type": "portmap", "capabilities": {"portMappings": True}})
    return {
        "cniVersion": "1.0.0",
        "cniVersions": ["0.4.0", "1.0.0", "1.1.0"],
        "name": "romana-ovs",
        "plugins": plugins,
    }


def write(folder: Path, configuration: dict[str, Any]) -> bool:
    """Write the list in one step, unless it is there already; returns whether it was written. Raises SetupError.

    Nothing removes it: without it a runtime cannot even remove pods.
    """
    text = json.dumps(configuration, indent=2) + "\n"
    path, temporary = folder / FILE_NAME, folder / _TEMPORARY
    try:
        if path.exists() and path.read_text() == text:
            return False
        folder.mkdir(parents=True, exist_ok=True)
        with temporary.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError as error:
        raise SetupError(f"{path} cannot be written: {error.strerror}") from error
    return True
