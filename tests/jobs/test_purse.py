"""How processes share the cap of a job: the board's table, their purses, and runs that behave as the engine does."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from batch_llm._boards import JobReport
from batch_llm._core import LimitTable
from batch_llm._jobs.purse import Claims, Purse


@dataclass
class Fake:
    """A run as the engine does it: its requests need what they cost at most, one after the other."""

    most: list[float]
    parts: list[float]
    allowed: float = 0.0
    spent: float = 0.0
    in_flight: list[tuple[float, float]] = field(default_factory=list)
    wanted: float = 0.0
    is_over: bool = False

    def allow(self, cost, is_final):
        self.allowed, self.wanted = cost, 0.0
        while self.most and not self.is_over:
            both = self.claims().both
            if both + self.most[0] > self.allowed * (1 + 1e-9):
                self.wanted = self.most[0]
                self.is_over = is_final and not self.in_flight
                break
            most = self.most.pop(0)
            self.in_flight.append((most, most * self.parts.pop(0)))

    def claims(self):
        return Claims(self.spent, sum(most for most, _ in self.in_flight), self.wanted)

    def answer(self):
        if self.in_flight:
            self.spent += self.in_flight.pop(0)[1]

    @property
    def is_done(self):
        return self.is_over or not (self.most or self.in_flight)


REQUESTS = st.lists(st.tuples(st.floats(0.01, 3), st.floats(0, 1)), max_size=12)


@settings(max_examples=300, deadline=None)
@given(processes=st.lists(st.lists(REQUESTS, min_size=1, max_size=3), min_size=1, max_size=4), cap=st.floats(0.1, 30))
def test_the_cap_holds_and_nobody_waits_for_ever(processes, cap):
    table = LimitTable()
    fleet = []
    for process in processes:
        runs = [Fake([most for most, _ in run], [part for _, part in run]) for run in process]
        fleet.append((Purse(cap), runs))
    everyone = [run for _, runs in fleet for run in runs]
    for now in range(0, 500_000, 250):
        for number, (purse, runs) in enumerate(fleet):
            for run in [run for run in runs if run.is_done]:
                runs.remove(run)
                purse.ended += run.spent
            wish = purse.wish(runs)
            report = JobReport(**vars(wish), max_cost=cap)
            assert sum(run.claims().both for run in everyone) <= cap * (1 + 1e-6)
            verdict = table.report("job", str(number), report, now)
            for run in runs:
                run.answer()  # while the report was on its way
            purse.take(runs, verdict.allowance, verdict.is_final)
            assert sum(run.claims().both for run in everyone) <= cap * (1 + 1e-6)
        if all(run.is_done for run in everyone):
            break
    assert all(run.is_done for run in everyone)
    # Whoever got nothing could not have had it.
    left = cap - sum(run.spent for run in everyone)
    assert all(left < run.most[0] or len(everyone) > 1 for run in everyone if run.is_over)
