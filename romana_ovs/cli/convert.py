"""Implements `romana-ovs convert FILE`: prints old forms of objects in their present form."""

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
from romana_ovs.model.errors import InputError, Problem
from romana_ovs.model.settings import Settings

HELP = (
    "Turn old forms (romana.io/demo/v1, the ThirdPartyResource network-policy.romana.io) into today's objects on "
    "stdout; other objects pass unchanged. Exit code 1 if something in the result is still not valid."
)

Object = dict[str, object]

_PLACED = ("apiVersion", "kind", "metadata", "spec", "allowIncoming", "from")
_LIFTED: tuple[str, ...] = ("spec", "allowIncoming", "from")

THIRD_PARTY = "ThirdPartyResource"
THIRD_PARTY_NAME = "network-policy.romana.io"
_SLASHED_COMMENT = re.compile(rb"(?m)(?<=[\s:])//.*$")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `convert`."""
    parser.add_argument("file", metavar="FILE", help="YAML or JSON with any number of objects, - for standard input")


def run(args: argparse.Namespace) -> int:
    """Print the objects of the file in their present form; 1 when one of them is invalid."""
    name = "stdin" if args.file == "-" else Path(args.file).name
    documents = _documents(name, read_argument(args.file))
    converted = [today(document.value) for document in documents]
    if args.json:
        print_json({"apiVersion": "v1", "kind": "List", "items": converted})
    else:
        yaml.dump_all(converted, sys.stdout, Dumper=_Dumper, sort_keys=False, explicit_start=len(converted) > 1)
    sys.stdout.flush()
    problems = _left_over(name, documents, converted)
    for problem in problems:
        print(f"warning: {problem}", file=sys.stderr)
    return 1 if problems else 0


def objects_of_today(path: Path) -> list[object]:
    """The objects of a file in their present form. Raises InputError."""
    return [today(document.value) for document in _documents(path.name, read_argument(str(path)))]


class _Dumper(yaml.SafeDumper):
    """Writes every value where it stands, without anchors."""

    def ignore_aliases(self, data: object) -> bool:
        """Always: an object that stands in two places is written twice."""
        return True


def _documents(name: str, data: bytes) -> list[Document]:
    """The documents of the file that hold anything. Raises InputError.

    The demonstration's write-up has comments that start with `//`; they are removed when the file is invalid with them.
    """
    try:
        documents = parse_bytes(name, data)
    except InputError:
        if DEMO_VERSION.encode() not in data or not _SLASHED_COMMENT.search(data):
            raise
        documents = parse_bytes(name, _SLASHED_COMMENT.sub(b"", data))
    repeated = [
        Problem("is given twice", name, document.number, field=key.path)
        for document in documents
        for key in document.duplicates
    ]
    if repeated:
        raise InputError(*repeated)
    return [document for document in documents if document.value is not None]


def _left_over(name: str, documents: list[Document], converted: list[object]) -> list[Problem]:
    """Problems of the result, with the numbers of the documents in the file."""
    settings = Settings()  # The namespace as the tenant asks for no label.
    return [
        problem
        for document, value in zip(documents, converted, strict=True)
        for problem in decode(Document(document.number, value), name, settings).problems
    ]


def today(value: object) -> object:
    """An object (or a List of them) in its present form; `value` itself when it has that already."""
    if not isinstance(value, dict):
        return value
    kind, version = value.get("kind"), value.get("apiVersion")
    if isinstance(kind, str) and kind.endswith("List") and isinstance(value.get("items"), list):
        return {**value, "items": [today(item) for item in value["items"]]}
    if kind == "NetworkPolicy" and version == DEMO_VERSION:
        return policy_of_today(value)
    if kind == THIRD_PARTY and THIRD_PARTY_NAME in (value.get("name"), _mapping(value.get("metadata")).get("name")):
        return policy_definition()
    return value


def policy_of_today(old: Mapping[str, object]) -> Object:
    """A `romana.io/demo/v1` NetworkPolicy as `romana.io/v1`, with mistakes of its first publication corrected.

    These are: `spec`, `allowIncoming` and `from` at another depth than they belong to, and the fields of a
    port or of selected pods beside, instead of below, the name that introduces them.
    """
    metadata = dict(_mapping(old.get("metadata")))
    rest: Object = {key: value for key, value in old.items() if key not in _PLACED}
    around: Object = {key: metadata.pop(key) for key in _LIFTED if key in metadata}
    around |= {key: value for key, value in old.items() if value is not None}
    if not isinstance(around.get("spec", {}), dict):
        return {**old, "apiVersion": CURRENT_VERSION}
    spec = {**_mapping(around.get("spec"))}
    rules = spec.pop("allowIncoming", None)
    doubled = rules is not None and "allowIncoming" in around
    if rules is None:
        rules = around.get("allowIncoming")
    sources = spec.pop("from", around.get("from"))
    if "labels" in metadata:
        metadata["labels"] = _labels(metadata["labels"])
    if "podSelector" in spec:
        spec["podSelector"] = _selector(spec["podSelector"])
    if rules is not None:
        spec["allowIncoming"] = _rules(rules, sources)
    if doubled:
        rest["allowIncoming"] = around["allowIncoming"]
    return {"apiVersion": CURRENT_VERSION, "kind": "NetworkPolicy", "metadata": metadata, "spec": spec, **rest}


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _labels(value: object) -> object:
    """Labels as a map; what is neither a map nor a list of maps is left for the check that follows."""
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        return value
    pairs = [pair for entry in value for pair in entry.items()]
    return dict(pairs) if len(dict(pairs)) == len(pairs) else value


def _selector(value: object) -> object:
    """Plain labels as a LabelSelector, which has the label maps one level deeper."""
    labels = _labels(value)
    if not isinstance(labels, dict):
        return value
    if any(isinstance(labels.get(key), (dict, list)) for key in ("matchLabels", "matchExpressions")):
        return value
    return {"matchLabels": labels} if labels else {}


def _rules(value: object, sources: object) -> object:
    """`allowIncoming`, with the `from` that stood beside it given to its only rule."""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        return value
    rules = [_rule(entry) for entry in _joined(value)]
    only = rules[0] if len(rules) == 1 else None
    if sources is not None and isinstance(only, dict) and only.get("from") is None:
        return [{**only, "from": _sources(sources)}]
    return rules


def _joined(entries: list[object]) -> list[object]:
    """Entries of a rule list, where `- toPorts:` and its ports became entries side by side, made one again."""
    joined: list[object] = []
    for entry in entries:
        before = joined[-1] if joined else None
        opened = isinstance(before, dict) and set(before) == {"toPorts"} and before["toPorts"] is None
        if opened and isinstance(entry, dict) and "port" in entry and "toPorts" not in entry:
            joined[-1] = {"toPorts": None, **entry}
        else:
            joined.append(entry)
    return joined


def _rule(value: object) -> object:
    if not isinstance(value, dict):
        return value
    rule = dict(value)
    beside = {key: rule.pop(key) for key in ("port", "protocol") if key in rule}
    ports = rule.get("toPorts")
    if isinstance(ports, dict):
        ports = [ports]
    if beside and not ports:
        ports = [beside]
    elif "port" not in beside and isinstance(ports, list) and len(ports) == 1 and isinstance(ports[0], dict):
        ports = [{**beside, **ports[0]}]
    else:
        rule |= beside
    if ports is not None:
        rule["toPorts"] = ports
    if rule.get("from") is not None:
        rule["from"] = _sources(rule["from"])
    return rule


def _sources(value: object) -> object:
    if isinstance(value, dict):
        value = [value]
    return [_source(entry) for entry in value] if isinstance(value, list) else value


def _source(value: object) -> object:
    if not isinstance(value, dict) or "pods" not in value:
        return value
    if value["pods"] is None and len(value) > 1:
        return {"pods": _selector({key: label for key, label in value.items() if key != "pods"})}
    return {**value, "pods": _selector(value["pods"])}
