"""The forecast of a run: its intervals hold in simulated runs, and it says nothing it cannot know."""

from __future__ import annotations

import math

import pytest

from batch_llm._results import Moment, Sample, forecast

from .forecast_runs import PARTS, RUNS, Simulated, tally


@pytest.fixture(scope="module")
def tallies():
    return tally()


@pytest.mark.parametrize("part", PARTS)
def test_intervals_hold(tallies, part):
    found = tallies[part]
    assert found.missing == 0
    assert sum(found.cost) >= 0.88 * RUNS
    assert sum(found.end) >= 0.88 * RUNS


def test_intervals_are_narrow_at_a_tenth_of_the_run(tallies):
    found = tallies[0.1]
    assert max(found.cost_width) <= 0.15
    # Just after a limit has changed, there is little to go by.
    assert max(found.end_width_steady) <= 0.15
    assert sum(width <= 0.15 for width in found.end_width) >= 0.95 * RUNS


def steady(count, *, in_work=2, took=2.0, cost=0.01):
    """A run in which an item ends every second."""
    return [Sample(Moment(number, number, in_work, cost * number), took, cost) for number in range(1, count + 1)]


def test_a_steady_run():
    samples = steady(50)
    found = forecast(samples, samples[-1].at, 100)
    assert found.cost.low == pytest.approx(found.cost.expected) == pytest.approx(1.0)
    assert found.seconds_left.expected == pytest.approx(50, abs=2)
    assert found.seconds_left.high - found.seconds_left.low < 4
    later = found.after(20.0)
    assert later.seconds_left.expected == pytest.approx(found.seconds_left.expected - 20)
    assert later.cost == found.cost
    assert found.after(1000.0).seconds_left.low == 0.0


def test_nothing_is_said_too_early_or_at_the_end():
    samples = steady(50)
    assert forecast(samples, samples[-1].at, 10_000) is None  # less than 2 %
    assert forecast(samples, samples[-1].at._replace(in_work=40), 100) is None  # most of what was sent is not back
    assert forecast(samples[:3], samples[2].at, 100) is None
    assert forecast(samples, samples[-1].at, 50) is None
    assert forecast([], Moment(0.0, 0, 0), 10) is None


def test_without_a_price_there_is_no_cost():
    samples = [Sample(sample.at._replace(cost=None), sample.took) for sample in steady(50)]
    found = forecast(samples, samples[-1].at, 100)
    assert found.cost is None
    assert found.seconds_left is not None


def test_a_standstill_makes_the_end_later():
    samples = steady(50)
    before = forecast(samples, samples[-1].at, 100)
    after = forecast(samples, samples[-1].at._replace(seconds=100.0), 100)
    assert after.seconds_left.high > before.seconds_left.high


def test_only_what_came_after_a_change_counts():
    samples = steady(60)
    slow = [
        Sample(Moment(60 + 10.0 * number, 60 + number, 2, 0.01 * (60 + number)), 2.0, 0.01) for number in range(1, 20)
    ]
    found = forecast(samples + slow, slow[-1].at, 179)
    assert found.seconds_left.expected == pytest.approx(1000, rel=0.05)


@pytest.mark.parametrize("odd", [0.0, 1e-12, 1e9])
def test_odd_times_and_costs_do_no_harm(odd):
    samples = [Sample(Moment(odd, number, 0, odd), odd, odd) for number in range(1, 60)]
    found = forecast(samples, samples[-1].at, 100)
    for interval in (found.cost, found.seconds_left):
        assert interval is None or all(math.isfinite(bound) for bound in interval)


def test_a_longer_run_has_no_more_samples():
    run = Simulated(1).run()
    assert run.forecast(run.total) is None
    assert run.forecast(run.total // 2) is not None
