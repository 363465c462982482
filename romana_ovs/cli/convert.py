"""Implements `romana-ovs convert FILE`: converts objects of obsolete API versions to current ones."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

from romana_ovs.cli.common import print_json, read_argument
from romana_ovs.cli.crd import policy_definition
from romana_ovs.kube.decode.decoder import decode
from romana_ovs.kube.decode.objects import Document
from romana_ovs.kube.decode.romanapolicy import CURRENT_VERSION, DEMO_VERSION
from romana_ovs.kube.manifests.folder import parse_bytes
from romana_ovs.kube.manifests.scalars import resolve
from romana_ovs.model.errors import InputError, Problem
from romana_ovs.model.settings import Settings

HELP = (
    "Convert objects of obsolete API versions (romana.io/demo/v1, the ThirdPartyResource network-policy.romana.io) to "
    "current ones, on stdout; other objects pass unchanged. Exit code 1 if an object of the result is invalid."
)

Object = dict[str, object]

_KNOWN_KEYS = ("apiVersion", "kind", "metadata", "spec", "allowIncoming", "from")
_MISPLACED_KEYS: tuple[str, ...] = ("spec", "allowIncoming", "from")
"""Keys that the first publication has inside `metadata`, by wrong indentation."""

THIRD_PARTY = "ThirdPartyResource"
THIRD_PARTY_NAME = "network-policy.romana.io"
_SLASHED_COMMENT = re.compile(rb"(?m)(?<=[\s:])//.*$")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `convert`."""
    parser.add_argument("file", metavar="FILE", help="YAML or JSON with any number of objects, - for standard input")


def run(args: argparse.Namespace) -> int:
    """Print the objects of the file in their current form. Returns exit code 1 when one of them is invalid, else 0."""
    name = "stdin" if args.file == "-" else Path(args.file).name
    documents = _documents(name, read_argument(args.file))
    converted = [to_current(document.value) for document in documents]
    if args.json:
        print_json({"apiVersion": "v1", "kind": "List", "items": converted})
    else:
        yaml.dump_all(converted, sys.stdout, Dumper=_Dumper, sort_keys=False, explicit_start=len(converted) > 1)
    sys.stdout.flush()
    problems = _validate(name, documents, converted)
    for problem in problems:
        print(f"warning: {problem}", file=sys.stderr)
    return 1 if problems else 0


def current_objects(path: Path) -> list[object]:
    """The objects of a file in their current form. Raises InputError."""
    return [to_current(document.value) for document in _documents(path.name, read_argument(str(path)))]


class _Dumper(yaml.SafeDumper):
    """Writes YAML without anchors and aliases, which kubectl reads as it is meant."""

    def ignore_aliases(self, data: object) -> bool:
        """True: an object that is referenced twice is written twice."""
        return True

    def represent_text(self, text: str) -> yaml.Node:
        """A string, quoted where kubectl would take it for something else: it has more booleans and numbers."""
        style = "'" if resolve(text) is not text else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)


def _documents(name: str, data: bytes) -> list[Document]:
    """The documents of the file that are not empty. Raises InputError.

    Comments that start with `//`, as the demonstration published them, are removed when the file is invalid with them.
    """
    try:
        documents = parse_bytes(name, data)
    except InputError:
        if DEMO_VERSION.encode() not in data or not _SLASHED_COMMENT.search(data):
            raise
        documents = parse_bytes(name, _SLASHED_COMMENT.sub(b"", data))
    duplicates = [
        Problem("is given twice", name, document.number, field=key.path)
        for document in documents
        for key in document.duplicates
    ]
    if duplicates:
        raise InputError(*duplicates)
    return [document for document in documents if document.value is not None]


def _validate(name: str, documents: list[Document], converted: list[object]) -> list[Problem]:
    """The problems of the converted objects, with the numbers of their documents in the file."""
    settings = Settings()  # With tenant_source = namespace no object needs a tenant label.
    return [
        problem
        for document, value in zip(documents, converted, strict=True)
        for problem in decode(Document(document.number, value), name, settings).problems
    ]


def to_current(value: object) -> object:
    """An object (or a List of them) in its current form; `value` itself when that is its form already."""
    if not isinstance(value, dict):
        return value
    kind, version = value.get("kind"), value.get("apiVersion")
    if isinstance(kind, str) and kind.endswith("List") and isinstance(value.get("items"), list):
        return {**value, "items": [to_current(item) for item in value["items"]]}
    if kind == "NetworkPolicy" and version == DEMO_VERSION:
        return upgrade_policy(value)
    if kind == THIRD_PARTY and THIRD_PARTY_NAME in (value.get("name"), _mapping(value.get("metadata")).get("name")):
        return policy_definition()
    return value


def upgrade_policy(old: Mapping[str, object]) -> Object:
    """A `romana.io/demo/v1` NetworkPolicy as `romana.io/v1`, with the mistakes of its first publication corrected.

    The mistakes are indentation: `spec`, `allowIncoming` and `from` at a wrong depth, and the fields of `toPorts` or
    `pods` as siblings of that key instead of its children.
    """
    metadata = dict(_mapping(old.get("metadata")))
    unknown: Object = {key: value for key, value in old.items() if key not in _KNOWN_KEYS}
    outside_spec: Object = {key: metadata.pop(key) for key in _MISPLACED_KEYS if key in metadata}
    outside_spec |= {key: value for key, value in old.items() if value is not None}
    if not isinstance(outside_spec.get("spec", {}), dict):
        return {**old, "apiVersion": CURRENT_VERSION}
    spec = {**_mapping(outside_spec.get("spec"))}
    rules = spec.pop("allowIncoming", None)
    duplicate = rules is not None and "allowIncoming" in outside_spec
    if rules is None:
        rules = outside_spec.get("allowIncoming")
    sources = spec.pop("from", outside_spec.get("from"))
    if "labels" in metadata:
        metadata["labels"] = _current_labels(metadata["labels"])
    if "podSelector" in spec:
        spec["podSelector"] = _current_selector(spec["podSelector"])
    if rules is not None:
        spec["allowIncoming"] = _current_rules(rules, sources)
    if duplicate:
        unknown["allowIncoming"] = outside_spec["allowIncoming"]
    return {"apiVersion": CURRENT_VERSION, "kind": "NetworkPolicy", "metadata": metadata, "spec": spec, **unknown}


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _current_labels(value: object) -> object:
    """Labels as a map; what is neither a map nor a list of maps is returned unchanged, and `_validate` reports it."""
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        return value
    pairs = [pair for entry in value for pair in entry.items()]
    return dict(pairs) if len(dict(pairs)) == len(pairs) else value


def _current_selector(value: object) -> object:
    """Plain labels as a LabelSelector (`matchLabels`); a LabelSelector is returned unchanged."""
    labels = _current_labels(value)
    if not isinstance(labels, dict):
        return value
    if any(isinstance(labels.get(key), (dict, list)) for key in ("matchLabels", "matchExpressions")):
        return value
    return {"matchLabels": labels} if labels else {}


def _current_rules(value: object, sources: object) -> object:
    """The rules of `allowIncoming`; a `from` beside it (`sources`) becomes that of its only rule, if that has none."""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        return value
    rules = [_current_rule(entry) for entry in _merge_split_ports(value)]
    only = rules[0] if len(rules) == 1 else None
    if sources is not None and isinstance(only, dict) and only.get("from") is None:
        return [{**only, "from": _current_sources(sources)}]
    return rules


def _merge_split_ports(entries: list[object]) -> list[object]:
    """The entries of a rule list, in which a port that was split from its `toPorts` is one entry with it again.

    So `[{toPorts: null}, {port: 80}]` becomes `[{toPorts: null, port: 80}]`.
    """
    merged: list[object] = []
    for entry in entries:
        last = merged[-1] if merged else None
        lacks_port = isinstance(last, dict) and set(last) == {"toPorts"} and last["toPorts"] is None
        if lacks_port and isinstance(entry, dict) and "port" in entry and "toPorts" not in entry:
            merged[-1] = {"toPorts": None, **entry}
        else:
            merged.append(entry)
    return merged


def _current_rule(value: object) -> object:
    if not isinstance(value, dict):
        return value
    rule = dict(value)
    siblings = {key: rule.pop(key) for key in ("port", "protocol") if key in rule}
    ports = rule.get("toPorts")
    if isinstance(ports, dict):
        ports = [ports]
    if siblings and not ports:
        ports = [siblings]
    elif "port" not in siblings and isinstance(ports, list) and len(ports) == 1 and isinstance(ports[0], dict):
        ports = [{**siblings, **ports[0]}]
    else:
        rule |= siblings
    if ports is not None:
        rule["toPorts"] = ports
    if rule.get("from") is not None:
        rule["from"] = _current_sources(rule["from"])
    return rule


def _current_sources(value: object) -> object:
    if isinstance(value, dict):
        value = [value]
    return [_current_source(entry) for entry in value] if isinstance(value, list) else value


def _current_source(value: object) -> object:
    if not isinstance(value, dict) or "pods" not in value:
        return value
    if value["pods"] is None and len(value) > 1:
        return {"pods": _current_selector({key: label for key, label in value.items() if key != "pods"})}
    return {**value, "pods": _current_selector(value["pods"])}
