"""Creates keys, certificates and kubeconfigs of a control plane: short-lived, in a folder that only its owner can read.

Source: https://kubernetes.io/docs/setup/best-practices/certificates/
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from romana_ovs_emulate.system import run

DAYS = 7
"""How long certificates are valid, in days; a control plane here rarely runs for a day."""
CURVE = "prime256v1"
_AUTHORITY_CONFIG = """\
[req]
prompt = no
distinguished_name = subject
x509_extensions = extensions
[subject]
CN = romana-ovs emulated control plane
[extensions]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,digitalSignature
subjectKeyIdentifier = hash
"""
_REQUEST_CONFIG = """\
[req]
prompt = no
string_mask = utf8only
utf8 = yes
distinguished_name = subject
[subject]
{subject}
[extensions]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = {usage}
{alternatives}
"""
"""Configurations of openssl (config(5), req(1), x509v3_config(5))."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A key and its certificate, both as PEM files."""

    key: Path
    certificate: Path


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority in `folder` (mode 0700); `make_authority` makes it."""

    folder: Path

    @property
    def pair(self) -> Pair:
        """Its own key and certificate."""
        return Pair(self.folder / "ca.key", self.folder / "ca.crt")

    def server(self, name: str, hosts: Sequence[str]) -> Pair:
        """A server's key and certificate for `hosts`, DNS names or IP addresses. Raises SetupError."""
        kinds = (f"{'IP' if _is_address(host) else 'DNS'}:{host}" for host in hosts)
        return self._issue(name, "serverAuth", name, subject_alternatives=",".join(kinds))

    def client(self, user: str, groups: Sequence[str] = ()) -> Pair:
        """The key and certificate of a user and its groups, as Kubernetes reads them (CN and O). Raises SetupError."""
        distinct = hashlib.sha256("\0".join((user, *groups)).encode()).hexdigest()[:16]
        return self._issue(f"client-{distinct}", "clientAuth", user, organisations=groups)

    def _issue(
        self,
        name: str,
        usage: str,
        common_name: str,
        *,
        organisations: Sequence[str] = (),
        subject_alternatives: str = "",
    ) -> Pair:
        """A pair signed by this authority. Its subject goes through a file, so that no name needs quoting."""
        pair = Pair(self.folder / f"{name}.key", self.folder / f"{name}.crt")
        config, request = self.folder / f"{name}.cnf", self.folder / f"{name}.csr"
        config.write_text(_request_config(usage, common_name, organisations, subject_alternatives))
        make_key(pair.key)
        run(["openssl", "req", "-new", "-config", str(config), "-key", str(pair.key), "-out", str(request)])
        self._sign(request, config, pair.certificate)
        return pair

    def _sign(self, request: Path, config: Path, certificate: Path) -> None:
        """Write the certificate for a signing request, with the extensions of `config`."""
        command = ["openssl", "x509", "-req", "-in", str(request), "-days", str(DAYS), "-out", str(certificate)]
        authority = ["-CA", str(self.pair.certificate), "-CAkey", str(self.pair.key), "-CAcreateserial"]
        run([*command, *authority, "-extfile", str(config), "-extensions", "extensions"])


def make_authority(folder: Path) -> Authority:
    """A new authority in a new folder. Raises SetupError."""
    folder.mkdir(mode=0o700)
    authority = Authority(folder)
    key, certificate = authority.pair.key, authority.pair.certificate
    make_key(key)
    config = folder / "ca.cnf"
    config.write_text(_AUTHORITY_CONFIG)
    command = ["openssl", "req", "-x509", "-new", "-config", str(config), "-key", str(key)]
    run([*command, "-days", str(DAYS), "-out", str(certificate)])
    return authority


def make_key(path: Path) -> None:
    """Write a new private key. Raises SetupError."""
    run(["openssl", "ecparam", "-name", CURVE, "-genkey", "-noout", "-out", str(path)])


def public_key(private: Path, path: Path) -> None:
    """Write the public half of a key. Raises SetupError."""
    run(["openssl", "pkey", "-in", str(private), "-pubout", "-out", str(path)])


def write_kubeconfig(path: Path, url: str, authority: Authority, credentials: Pair | str) -> None:
    """Write a self-contained kubeconfig (mode 0600), with a certificate or a bearer token as credentials.

    Source: https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
    """
    name = "romana-ovs"
    user = (
        {"token": credentials}
        if isinstance(credentials, str)
        else {
            "client-certificate-data": _base64(credentials.certificate),
            "client-key-data": _base64(credentials.key),
        }
    )
    cluster = {"server": url, "certificate-authority-data": _base64(authority.pair.certificate)}
    path.touch(mode=0o600)
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": name,
                "clusters": [{"name": name, "cluster": cluster}],
                "users": [{"name": name, "user": user}],
                "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            },
            indent=2,
        )
        + "\n"
    )


def _request_config(usage: str, common_name: str, organisations: Sequence[str], subject_alternatives: str) -> str:
    """The configuration of a signing request and its certificate. `usage` is the value of extendedKeyUsage."""
    subject = [f"{number}.O = {_quoted(one)}" for number, one in enumerate(organisations)]
    subject.append(f"CN = {_quoted(common_name)}")
    alternatives = f"subjectAltName = {subject_alternatives}" if subject_alternatives else ""
    return _REQUEST_CONFIG.format(subject="\n".join(subject), usage=usage, alternatives=alternatives)


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


def _quoted(text: str) -> str:
    """`text` as a value in openssl's configuration (config(5))."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'"{escaped}"'
