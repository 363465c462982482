"""Plans: what they send makes actual desired, once, and never touches what is not ours."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from hypothesis import given
from hypothesis import strategies as st

from romana_ovs.pipeline.actions import Goto, Output
from romana_ovs.pipeline.cookies import OURS
from romana_ovs.pipeline.flow import Flow, FlowKey, canonical
from romana_ovs.policy.view import Origin
from romana_ovs.sync.diff import Change, applied, changed_sections, flow_diff

ORIGIN = Origin("Test")


def _flow(table: str, priority: int, register: int, port: int, cookie: int) -> Flow:
    match = canonical({"reg0": (register, 0xFF)})
    return Flow(table, priority, match, (Output(port),) if port else (), OURS | cookie, ORIGIN)


flows = st.builds(
    _flow,
    st.sampled_from(["L3Forward", "ClientServer"]),
    st.integers(1, 3),
    st.integers(0, 3),
    st.integers(0, 2),
    st.integers(0, 1),
)
maps = st.lists(flows, max_size=12).map(lambda listed: {flow.key: flow for flow in listed})
sections = st.dictionaries(
    st.integers(0, 5), st.lists(flows, max_size=4, unique_by=lambda flow: flow.key).map(tuple), max_size=6
)


@given(maps, maps)
def test_applying_a_diff_gives_the_desired_flows(desired: dict[FlowKey, Flow], actual: dict[FlowKey, Flow]) -> None:
    done = flow_diff(desired, actual)
    assert applied(actual, done) == desired
    assert flow_diff(desired, applied(actual, done)).size == 0


@given(maps, maps, st.sets(flows.map(lambda flow: flow.key)))
def test_keys_of_foreign_flows_are_never_sent(
    desired: dict[FlowKey, Flow], actual: dict[FlowKey, Flow], foreign: set[FlowKey]
) -> None:
    ours = {key: flow for key, flow in actual.items() if key not in foreign}
    done = flow_diff(desired, ours, foreign)
    assert not {flow.key for _, flow in done.ordered()} & foreign
    assert {flow.key for flow in done.conflicting_flows} == desired.keys() & foreign


@given(maps, maps)
def test_deletes_come_first(desired: dict[FlowKey, Flow], actual: dict[FlowKey, Flow]) -> None:
    done = flow_diff(desired, actual)
    kinds = [list(Change).index(change) for change, _ in done.ordered()]
    assert kinds == sorted(kinds)
    assert len(kinds) == done.size


@given(maps, st.randoms())
def test_the_order_of_the_input_does_not_matter(desired: dict[FlowKey, Flow], random: object) -> None:
    items = list(desired.items())
    random.shuffle(items)  # type: ignore[attr-defined]
    assert flow_diff(dict(items), {}) == flow_diff(desired, {})


def _merged(parts: Mapping[Hashable, tuple[Flow, ...]]) -> dict[FlowKey, Flow]:
    merged: dict[FlowKey, Flow] = {}
    for part in parts.values():
        for flow in part:
            merged.setdefault(flow.key, flow)
    return merged


@given(sections, sections, st.data())
def test_comparing_changed_sections_equals_comparing_all(
    before: dict[Hashable, tuple[Flow, ...]], fresh: dict[Hashable, tuple[Flow, ...]], data: st.DataObject
) -> None:
    kept = data.draw(st.sets(st.sampled_from(sorted(before, key=str))) if before else st.just(set()))
    after = {**{name: before[name] for name in kept}, **{k: v for k, v in fresh.items() if k not in kept}}
    whole = flow_diff(_merged(after), _merged(before))
    part = changed_sections(before, after)
    if part is not None:
        assert applied(_merged(before), flow_diff(*part)).keys() == _merged(after).keys()
        unique = sum(len(section) for section in before.values()) == len(_merged(before))
        if unique:
            assert flow_diff(*part) == whole


def test_a_replaced_section_is_compared_alone() -> None:
    same = (_flow("L3Forward", 1, 1, 1, 0),)
    old, new = (
        (_flow("ClientServer", 1, 1, 1, 0),),
        (_flow("ClientServer", 1, 1, 2, 0), _flow("ClientServer", 2, 2, 0, 0)),
    )
    part = changed_sections({"a": same, "b": old}, {"a": same, "b": new})
    assert part is not None
    assert len(part[0]) == 2
    done = flow_diff(*part)
    assert done.modify == (new[0],)
    assert done.add == (new[1],)


def test_a_key_shared_with_an_unchanged_section_needs_all() -> None:
    flow = _flow("L3Forward", 1, 1, 1, 0)
    kept = (flow,)
    assert changed_sections({"a": kept, "b": (flow,)}, {"a": kept}) is None


def test_an_equal_flow_with_another_cookie_is_replaced() -> None:
    old, new = _flow("L3Forward", 1, 1, 1, 0), _flow("L3Forward", 1, 1, 1, 1)
    assert flow_diff({new.key: new}, {old.key: old}).modify == (new,)


def test_origin_is_no_difference() -> None:
    old = Flow("L3Forward", 1, (), (Goto("ConntrackZone"),), OURS, Origin("Switch"))
    new = Flow("L3Forward", 1, (), (Goto("ConntrackZone"),), OURS, Origin("Policy"))
    assert flow_diff({new.key: new}, {old.key: old}).size == 0
