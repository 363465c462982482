"""What is printed of flows: for ovs-ofctl, for JSON, and the page about the pipeline."""

from __future__ import annotations

import re

from romana_ovs.pipeline.listing import loadable, ordered, readable, rows, unmetered
from romana_ovs.pipeline.meters import METERS, arp_meter_number, fragment_meter_number, setting_of
from romana_ovs.pipeline.registers import CONNTRACK_BITS, REGISTERS, ZONE
from romana_ovs.pipeline.render import Example, Journey, document
from romana_ovs.pipeline.tables import TABLE_IDS, TABLES
from romana_ovs.simulator.packet import tcp, udp
from romana_ovs.simulator.trace import trace
from tests.support.simulated_network import CLOSED_SERVER, SimNetwork, SimPod

LAB = SimNetwork.of(SimPod("c", 1, 1), SimPod("s", 2, 2), SimPod("closed", 2, 3, server=CLOSED_SERVER))


def _journey(target: str) -> list[str]:
    LAB.delivered("c", tcp(LAB.ends("c", target), 4000, 80))
    return trace(LAB.network.hops)


def _page() -> str:
    journeys = (
        Journey("From c to s", (*_journey("s"), "It arrives.")),
        Journey("To closed", (*_journey("closed"), "Dropped.")),
    )
    return document(Example("Two nodes.", {"n1": LAB.flows(1)}, journeys))


def test_every_flow_is_one_line_below_its_table_and_its_origin() -> None:
    flows = LAB.flows(1)
    lines = loadable(flows).splitlines()
    assert sum(line.startswith("table=") for line in lines) == len(flows)
    table = origin = ""
    origins = {unmetered(item).text(TABLE_IDS): (item.table, str(item.origin)) for item in flows}
    for line in lines:
        if line.startswith("# Table "):
            table = line.rpartition(" ")[2]
        elif line.startswith("#"):
            origin = line.removeprefix("# ").partition(", first through")[0]
        elif line:
            assert origins[line.partition(" # ")[0]] == (table, origin)


def test_meters_are_listed_beside_flows_and_not_loaded() -> None:
    program = LAB.program(2)
    first, second = (program.meters[METERS[port]].text() for port in (2, 3))
    assert first == f"meter={METERS[2]},pktps,burst,stats,bands=type=drop,rate=1000,burst_size=10000"
    lines = loadable(program.flows.values(), program.meters).splitlines()
    others = [
        f"# {program.meters[number(port)].text()}"
        for number in (arp_meter_number, fragment_meter_number)
        for port in (2, 3)
    ]
    (tenant,) = (program.meters[number].text() for number in program.meters if setting_of(number) == "tenant_fragments")
    assert [line for line in lines if "bands=" in line] == [f"# {first}", f"# {second}", *others, f"# {tenant}"]
    (place,) = [number for number, line in enumerate(lines) if line.endswith(f", first through meter:{METERS[2]}")]
    assert "in_port=2," in lines[place + 1] and " actions=ct(commit," in lines[place + 1]
    listed = rows(program.flows.values(), program.meters)
    assert {row["origin"]: row["meter"] for row in listed if row["meter"] and row["table"] == "ConntrackCommit"} == {
        "Pod test/s": first, "Pod test/closed": second,
    }  # fmt: skip
    for text in (*(line for line in lines if line.startswith("table=")), *(row["actions"] for row in listed)):
        assert "meter" not in text
    assert "bands=" not in loadable(program.flows.values())


def test_flows_are_listed_by_table_and_priority() -> None:
    flows = LAB.flows(2)
    places = [(TABLE_IDS[item.table], -item.priority) for item in ordered(flows)]
    assert places == sorted(places)
    assert loadable(flows) == loadable(reversed(flows))


def test_rows_name_table_match_actions_and_origin() -> None:
    listed = rows(LAB.flows(1), LAB.program(1).meters)
    (row,) = [row for row in listed if row["table"] == "ConntrackZone" and row["priority"] == 100]
    assert {key: row[key] for key in ("table_id", "priority", "match", "actions", "origin", "meter")} == {
        "table_id": TABLE_IDS["ConntrackZone"],
        "priority": 100,
        "match": "ip",
        "actions": f"ct(table={TABLE_IDS['ConntrackState']},zone={ZONE.bits})",
        "origin": "Pipeline conntrack",
        "meter": "",
    }
    assert re.fullmatch("0x524f[0-9a-f]{12}", row["cookie"])


def test_readable_flows_name_their_tables() -> None:
    (item,) = [item for item in LAB.flows(1) if item.table == "ConntrackZone" and item.priority == 100]
    assert readable(item) == f"ConntrackZone priority=100,ip actions=ct(table=ConntrackState,zone={ZONE.bits})"


def test_the_page_has_every_table_register_and_conntrack_bit() -> None:
    page = _page()
    for table in TABLES:
        section = page.partition(f"### {table.name}\n")[2].partition("\n### ")[0]
        assert table.purpose in section
        assert all(f"`{item.name}` {item.value}" in section for item in table.priorities)
        assert all(f"`{name}`" in section for name in table.matches | table.writes)
    for register in (*REGISTERS, *CONNTRACK_BITS):
        assert f"| {register.name} | `{register.bits}` | {register.purpose} |" in page


def test_the_page_lists_the_example_and_follows_its_packets() -> None:
    page = _page()
    assert all(readable(item) in page for item in LAB.flows(1))
    arriving, dropped = page.partition("### From c to s")[2].split("### To closed")
    assert "On n1, in by port 1:" in arriving and "On n2, in by port 100:" in arriving
    assert "`+new+trk`" in arriving and "out of port 2, source MAC `0a:58:00:00:00:01`" in arriving
    assert "On n2" in dropped and "out of port 3" not in dropped


def test_the_trace_shows_a_table_miss() -> None:
    LAB.delivered("c", udp(LAB.ends("c", "c"), 1, 2))
    stray = udp(LAB.ends("s", "c"), 1, 2)
    LAB.arrivals("n1", 55, stray)
    page = document(Example("x", {}, (Journey("astray", tuple(trace(LAB.network.hops))),)))
    assert "1. SpoofGuard: no flow takes it, so it is dropped." in page
