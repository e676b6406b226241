"""Simulated runs in virtual time, for the forecast: lognormal reply lengths, and a limit that changes in mid-run.

``python benchmarks/forecast.py`` prints how often the intervals hold.
"""

from __future__ import annotations

import copy
import heapq
import math
import random
from dataclasses import dataclass, field

from batch_llm._results import Forecast, Moment, Sample, forecast

RUNS = 200
MOST = 256
"""As many samples as the engine keeps."""
PARTS = (0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9)
INPUT, OUTPUT = 0.25e-6, 2e-6
"""What tokens cost."""


@dataclass
class Simulated:
    """One run: requests start one after the other as the limit lets them, while a worker is free."""

    seed: int
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        draw = self.random = random.Random(self.seed)
        self.total = round(math.exp(draw.uniform(math.log(10_000), math.log(14_000))))
        self.workers = draw.choice([10, 25, 50])
        sigma, tokens, first = draw.uniform(0.4, 0.8), draw.uniform(100, 400), draw.uniform(0.2, 1.0)
        mu = math.log(tokens) - sigma**2 / 2
        self.prompts = [draw.lognormvariate(math.log(300), 0.3) for _ in range(self.total)]
        self.replies = [draw.lognormvariate(mu, sigma) for _ in range(self.total)]
        self.first = first
        self.limit = draw.choice(["workers", "requests", "tokens"])
        self.capacity = self.workers / (first + 0.01 * tokens)
        """Requests per second without a limit."""
        self.rate = self.capacity * (10 if self.limit == "workers" else draw.uniform(0.4, 0.8))
        self.average = 300 * math.exp(0.045) + tokens
        self.changes_at = round(self.total * draw.uniform(0.03, 0.6))
        self.factor = draw.choice([draw.uniform(0.4, 0.8), draw.uniform(1.25, 2.5)])
        self.clock = self.next_start = self.cost = 0.0
        self.begun = 0
        self.in_work: list[tuple[float, int, float]] = []
        self.ended: list[Sample] = []
        self.unchanged: Simulated | None = None
        """The same run without the change."""

    def run(self) -> Simulated:
        """Simulate it to its end."""
        while len(self.ended) < self.total:
            if len(self.ended) == self.changes_at and self.unchanged is None and self.factor != 1.0:
                self.unchanged = copy.copy(self)
                self.unchanged.in_work, self.unchanged.ended = list(self.in_work), list(self.ended)
                self.unchanged.factor = 1.0
                self.unchanged.run()
                if self.limit == "workers":
                    self.workers = max(round(self.workers * self.factor), 1)
                self.rate *= self.factor
            self._step()
        return self

    def _step(self) -> None:
        while self.begun < self.total and len(self.in_work) < self.workers and self.next_start <= self.clock:
            number = self.begun
            took = self.first + 0.01 * self.replies[number]
            heapq.heappush(self.in_work, (self.clock + took, number, took))
            weight = (self.prompts[number] + self.replies[number]) / self.average if self.limit == "tokens" else 1.0
            self.next_start = max(self.next_start, self.clock - 1 / self.rate) + weight / self.rate
            self.begun += 1
        may_start = self.begun < self.total and len(self.in_work) < self.workers
        if may_start and (not self.in_work or self.next_start < self.in_work[0][0]):
            self.clock = self.next_start
            return
        self.clock, number, took = heapq.heappop(self.in_work)
        cost = INPUT * self.prompts[number] + OUTPUT * self.replies[number]
        self.cost += cost
        moment = Moment(self.clock, len(self.ended) + 1, len(self.in_work), self.cost)
        self.ended.append(Sample(moment, took, cost))

    def forecast(self, done: int) -> Forecast | None:
        """The forecast when so many are done."""
        every = 1
        while done // every > MOST:
            every *= 2
        return forecast(self.ended[every - 1 : done : every], self.ended[done - 1].at, self.total)


@dataclass
class Tally:
    """Forecasts at one part of the runs."""

    missing: int = 0
    cost: list[bool] = field(default_factory=list)
    cost_width: list[float] = field(default_factory=list)
    end: list[bool] = field(default_factory=list)
    end_width: list[float] = field(default_factory=list)
    end_width_steady: list[float] = field(default_factory=list)
    """Of the runs whose limit has been the same for the last half."""
    unforeseen: list[bool] = field(default_factory=list)
    """Whether the end held although the limit changed afterwards."""


def tally(runs: int = RUNS) -> dict[float, Tally]:
    """Simulate, and compare."""
    tallies = {part: Tally() for part in PARTS}
    for seed in range(runs):
        run = Simulated(seed).run()
        assert run.unchanged is not None
        for part, found in tallies.items():
            done = math.ceil(part * run.total)
            said = run.forecast(done)
            if said is None or said.seconds_left is None or said.cost is None:
                found.missing += 1
                continue
            clock = run.ended[done - 1].at.seconds
            found.cost.append(said.cost.low <= run.cost <= said.cost.high)
            found.cost_width.append((said.cost.high - said.cost.low) / said.cost.expected)
            # Nobody knows of a limit that is going to change: until then, the end is that of the run without it.
            changes = done <= run.changes_at
            end = run.unchanged.clock if changes else run.clock
            found.end.append(said.seconds_left.low <= end - clock <= said.seconds_left.high)
            width = (said.seconds_left.high - said.seconds_left.low) / (clock + said.seconds_left.expected)
            found.end_width.append(width)
            if changes or run.changes_at < done / 2:
                found.end_width_steady.append(width)
            if changes:
                found.unforeseen.append(said.seconds_left.low <= run.clock - clock <= said.seconds_left.high)
    return tallies
