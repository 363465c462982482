"""Plans of meters: what they send makes actual desired, once, in an order that no flow minds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from romana_ovs.pipeline.meters import METERS, Meter
from romana_ovs.policy.view import Origin
from romana_ovs.sync.diff import FlowDiff
from romana_ovs.sync.meters import MeterChange, meter_diff

ORIGIN = Origin("Test")
meters = st.dictionaries(st.integers(0, 6), st.integers(0, 2), max_size=6).map(
    lambda found: {METERS[port]: Meter(METERS[port], rate, 10 * rate, ORIGIN) for port, rate in found.items()}
)


@given(meters, meters)
def test_a_plan_makes_actual_desired_and_the_second_is_empty(
    desired: dict[int, Meter], actual: dict[int, Meter]
) -> None:
    found = meter_diff(desired, actual)
    state = dict(actual)
    for change, meter in (*found.before, *found.after):
        # As a switch would have it: what is there cannot be added, what is not there not be modified.
        assert (meter.number in state) is (change is not MeterChange.ADD)
        if change is MeterChange.DELETE:
            del state[meter.number]
        else:
            assert state.get(meter.number) != meter
            state[meter.number] = meter
    assert state == desired
    assert meter_diff(desired, state).size == 0


@given(meters, meters)
def test_meters_come_before_flows_and_go_after_them(desired: dict[int, Meter], actual: dict[int, Meter]) -> None:
    found = meter_diff(desired, actual)
    assert {change for change, _ in found.after} <= {MeterChange.DELETE}
    assert MeterChange.DELETE not in {change for change, _ in found.before}
    assert FlowDiff(meters=found).size == found.size == len(found.before) + len(found.after)


def test_whose_meter_it_is_makes_no_difference() -> None:
    """A port's next pod takes the meter over as it is."""
    one, other = (Meter(METERS[1], 5, 50, Origin("Pod", "a", name)) for name in "xy")
    assert meter_diff({METERS[1]: one}, {METERS[1]: other}).size == 0
