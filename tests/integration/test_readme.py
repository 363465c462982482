"""The README's commands for one's own bridge and for one's own manifests, typed as they stand there.

Network, mounts and processes are namespaces that end with the shell, and `/etc` and `/var/lib` of the commands are
folders of the test's, so nothing can stay behind and the system's Open vSwitch is not touched.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from romana_ovs.config import FILE_NAME, load_settings
from romana_ovs.model.settings import Settings
from romana_ovs_emulate.patience import patience
from tests.support.datapath import datapath_type
from tests.support.private_ovs import START_SWITCH

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SECONDS = patience(120)
PROGRAMS = {
    "romana-ovs": "from romana_ovs.cli.main import main",
    "ryu-manager": "from romana_ovs import _ryu_shim; _ryu_shim.install(); from ryu.cmd.manager import main",
}

START = f"""
set -eu
mount -t tmpfs none /run/netns
{START_SWITCH}"""

# Without the host name that `python3 -m http.server` asks a name server for, which is not to be reached.
SERVER = """
from http.server import SimpleHTTPRequestHandler
from socketserver import TCPServer
TCPServer(("10.0.64.0", 80), SimpleHTTPRequestHandler).serve_forever()
"""

AFTERWARDS = """
for port in db-port web-port; do
    { ip -d link show $port; tc filter show dev $port ingress; } | grep "name ethertypes"
done
for i in $(seq 100); do ip netns exec web ping -c 1 -W 1 10.0.64.0 > ping && break; done
grep ' 0% packet loss' ping
ip netns exec db python3 -c "$SERVER" > http 2>&1 &
reaches() { ip netns exec web curl -s -m 1 -o got http://10.0.64.0/; }
for i in $(seq 100); do reaches && echo "port 80 is open" && break || sleep 0.1; done
cp policy.yaml manifests/
for i in $(seq 100); do ip netns exec web ping -c 1 -W 1 10.0.64.0 > ping || break; done
grep '100% packet loss' ping
reaches && echo "port 80 is still open"
"""


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rmn-") as name:
        folder = Path(name)
        (folder / "bin").mkdir()
        for program, code in PROGRAMS.items():
            path = folder / "bin" / program
            start = f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
            path.write_text(f"{start}{code}\nsys.exit(main())\n")
            path.chmod(0o755)
        python = folder / "bin" / "python"
        python.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {shlex.quote(sys.executable)} "$@"\n')
        python.chmod(0o755)
        yield folder


def chapter(title: str) -> str:
    """The text under a heading of the README."""
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def blocks(text: str, kind: str = "") -> list[str]:
    """The contents of code blocks."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.root
def test_pods_by_hand_reach_each_other_until_the_policy_comes(home: Path) -> None:
    commands = "".join(blocks(chapter("On your own bridge, by hand")))
    (home / "policy.yaml").write_text(blocks(chapter("Policies open paths, and close them"), "yaml")[0])
    for place, own in (("/etc/romana-ovs.conf", "conf"), ("/etc/romana-ovs", "."), ("/var/lib/romana-ovs", "lib")):
        assert place in commands
        commands = commands.replace(place, str(home / own))
    assert commands.count("netdev") == 1
    commands = commands.replace("DATAPATH=netdev\n", f"DATAPATH={datapath_type().value}\n")
    commands = commands.replace("[romana]\n", f"[romana]\novsdb = unix:{home}/db.sock\n")
    ping = "ip netns exec web ping -c 3 10.0.64.0\n"
    assert ping in commands
    folders = dict.fromkeys(("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"), str(home))
    path = f"{home / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        [
            "unshare",
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "bash",
            "-c",
            START + commands.replace(ping, "") + AFTERWARDS,
        ],
        env={**os.environ, **folders, "PATH": path, "SERVER": SERVER},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "port 80 is open\n" in done.stdout
    assert done.stdout.endswith("port 80 is still open\n"), done.stdout


def test_the_commands_for_ones_own_manifests(home: Path) -> None:
    names = {"DIR": str(ROOT / "docs" / "examples" / "shop"), "default/web": "shop/web-0", "default/db": "shop/db"}
    lines = [line for line in blocks(chapter("On your own manifests"))[0].splitlines() if "emulate" not in line]
    assert len(lines) >= 4
    for line in lines:
        words = [names.get(word, word) for word in shlex.split(line, comments=True)]
        done = subprocess.run([home / "bin" / words[0], *words[1:]], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), line
        assert done.stdout


def test_the_settings_are_the_defaults(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(blocks(chapter("On your own manifests"))[1])
    assert load_settings(tmp_path) == Settings()
    (tmp_path / FILE_NAME).write_text("[romana]\nhost_bits = 7\n")
    assert load_settings(tmp_path) != Settings()
