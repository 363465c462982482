"""The objects that carry published numbers and reports: `Allocation`, `ClassSet`, `NodeReport` (group romana.io).

Pure: plain dicts as the API server has them, to frozen values and back, and what to write next. What is damaged or
foreign is refused with the field that is wrong; a number that stands there twice is not taken. All that is exclusive
is in the one Allocation, so that the API server's optimistic concurrency alone keeps two registries from giving one
number twice.
"""

from romana_ovs.kube.published.objects import Objects
from romana_ovs.kube.published.planning import Checked, Superseded, Verb, Write, next_writes
from romana_ovs.kube.published.reading import Base, Reader, decode_report, published_from_json
from romana_ovs.kube.published.writing import (
    ALLOCATION,
    MARKER,
    PublishedText,
    allocation_object,
    class_set_object,
    marker_object,
    published_to_json,
    report_object,
)

__all__ = [
    "ALLOCATION",
    "MARKER",
    "Base",
    "Checked",
    "Objects",
    "PublishedText",
    "Reader",
    "Superseded",
    "Verb",
    "Write",
    "allocation_object",
    "class_set_object",
    "decode_report",
    "marker_object",
    "next_writes",
    "published_from_json",
    "published_to_json",
    "report_object",
]
