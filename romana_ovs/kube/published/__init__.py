"""Reads and writes the objects of published numbers and reports: `Allocation`, `ClassSet`, `NodeReport` (romana.io).

Pure: converts objects of the API server to frozen values and back, and plans the next writes. A damaged object is
refused with the field; a number that occurs twice is not accepted. Everything exclusive is in the one Allocation, so
that the API server's optimistic concurrency alone prevents two registries from giving one number twice.
"""

from romana_ovs.kube.published.objects import PublishedObjects
from romana_ovs.kube.published.planning import TermOver, Verb, Write, WriteCache, plan_writes
from romana_ovs.kube.published.reading import PublishedReader, TermBase, decode_report, published_from_json
from romana_ovs.kube.published.writing import (
    ALLOCATION,
    COMPLETE_MARKER,
    PublishedJson,
    allocation_object,
    class_set_object,
    marker_object,
    published_to_json,
    report_object,
)

__all__ = [
    "ALLOCATION",
    "COMPLETE_MARKER",
    "TermBase",
    "WriteCache",
    "PublishedObjects",
    "PublishedJson",
    "PublishedReader",
    "TermOver",
    "Verb",
    "Write",
    "allocation_object",
    "class_set_object",
    "decode_report",
    "marker_object",
    "plan_writes",
    "published_from_json",
    "published_to_json",
    "report_object",
]
