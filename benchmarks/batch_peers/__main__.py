"""Batches, beside the packages that have them too: ``python -m benchmarks.batch_peers [--kills 50] [--only NAME,...]``.

300 prompts in six batches, at a simulated provider in a process of its own, over HTTP. Each package is in an
environment of its own, at its best setting (``programs.py``). Prints two tables: what a run costs and takes, and what
it has cost and lost when it is killed once, at a random instant, and started again until it is through. Needs
Python 3.12.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measuring import environment
from typing_extensions import Self

HERE = Path(__file__).parent
ITEMS, SIZE = 300, 50
BATCHES = ITEMS // SIZE
DELAY = 1800.0
"""How long a batch takes, seconds of the provider's clock."""
STARTS = 5
"""How often a program is started that ends in an error."""
PROMPTS = [f"Describe the number {number} in one sentence." for number in range(ITEMS)]
CURATOR = "bespokelabs-curator==0.1.31"
PYDANTIC_AI = "pydantic-ai-slim[openai]==2.68.0"
PEERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "batch_llm": ('batch-llm, `lane="batch"`', ()),
    "pydantic_ai": ("Pydantic AI 2.68.0, `model_request_batch`", (PYDANTIC_AI,)),
    "pydantic_ai_handles": ("Pydantic AI 2.68.0, `batch_create`, handles in a file", (PYDANTIC_AI,)),
    "batchlane": ("batchlane 0.2.0, `checkpoint=`", ("batchlane==0.2.0",)),
    "batchor": ("Batchor 0.0.7, SQLite", ("batchor==0.0.7",)),
    "curator": ("Curator 0.1.31, `batch=True`", (CURATOR,)),
    "inspect_ai": ("Inspect 0.3.285, `batch=`, `eval_set`", ("inspect-ai==0.3.285", "openai==3.57.0")),
}


@dataclass(frozen=True)
class Setting:
    """How a provider is, and how far away."""

    scale: float
    """How many seconds of its clock pass in a second."""
    distance: float
    """How long a byte is under way, seconds."""
    faults: Sequence[dict[str, Any]] = field(default=())


CALM = Setting(scale=30.0, distance=0.0)
FAR = Setting(scale=1200.0, distance=0.1)
LOST_REPLY = Setting(scale=1200.0, distance=0.0, faults=({"kind": "create_lost", "on": [2]},))


@dataclass
class Outcome:
    """What came of a job."""

    seconds: float
    lost: int
    starts: int
    seen: dict[str, Any] = field(default_factory=dict)
    log: str = ""


class Program:
    """A process with a package, which forks for each job."""

    def __init__(self, name: str) -> None:
        requirements = PEERS[name][1] if name in PEERS else ()
        python = environment(*requirements) if requirements else sys.executable
        command = [python, str(HERE / "programs.py"), name]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._said() == "ready\n", f"{name} does not start"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def start(self, url: str, folder: str, setting: Setting, kill_after: float | None) -> tuple[int, float]:
        """Start the program once: its exit status, and how long it has run."""
        job = {
            "url": url,
            "folder": folder,
            "prompts": PROMPTS,
            "size": SIZE,
            "second": 1 / setting.scale,
            "kill_after": kill_after,
        }
        print(json.dumps(job), file=self._process.stdin, flush=True)
        status, seconds = json.loads(self._said())
        return status, seconds

    def _said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@contextlib.contextmanager
def provider(setting: Setting, seen: dict[str, Any]) -> Iterator[str]:
    """Yield the URL; fill in what it has seen at the end."""
    asked = {"delay": DELAY, "scale": setting.scale, "distance": setting.distance, "faults": list(setting.faults)}
    command = [sys.executable, str(HERE / "provider.py"), json.dumps(asked)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield f"{process.stdout.readline().strip()}/v1"
        process.stdin.close()
        seen.update(json.loads(process.stdout.read()))


def until_done(program: Program, setting: Setting, kill_after: float | None = None) -> Outcome:
    """Run a job; kill it once, and start it again until it is through."""
    seen: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        with provider(setting, seen) as url:
            total, starts, status = 0.0, 0, 1
            while status != 0 and starts < STARTS + (kill_after is not None):
                status, seconds = program.start(url, folder, setting, kill_after if starts == 0 else None)
                total, starts = total + seconds, starts + 1
        file, log = Path(folder, "answers.json"), Path(folder, "log.txt")
        answers = json.loads(file.read_text()) if status == 0 else [None] * ITEMS
        pairs = zip(PROMPTS, answers, strict=True)
        lost = sum(not isinstance(answer, str) or prompt not in answer for prompt, answer in pairs)
        return Outcome(total, lost, starts, seen, log.read_text()[-2000:])


def undisturbed(name: str) -> tuple[Outcome, Outcome, Outcome]:
    """Run a job that nobody kills: as it is, with one reply lost, and far from the provider."""
    with Program(name) as program:
        return until_done(program, CALM), until_done(program, LOST_REPLY), until_done(program, FAR)


def killed(name: str, kills: int, longest: float, at_once: int) -> list[Outcome]:
    """Kill a job once at an instant of its run, for each seed."""

    def some(first: int) -> list[Outcome]:
        with Program(name) as program:
            instants = [random.Random(f"{seed}").uniform(0.0, longest) for seed in range(first, kills, at_once)]
            return [until_done(program, FAR, instant) for instant in instants]

    with ThreadPoolExecutor(at_once) as pool:
        return [outcome for outcomes in pool.map(some, range(at_once)) for outcome in outcomes]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--at-once", type=int, default=3, help="programs that run at a time")
    parser.add_argument("--only", default=",".join(PEERS))
    parser.add_argument("--log", action="store_true", help="print the end of what programs without answers have said")
    options = parser.parse_args()
    names = options.only.split(",")
    with Program("live") as program:
        price = until_done(program, CALM).seen["cost"]
    print(f"{ITEMS} prompts in {BATCHES} batches; live, they cost {price:.6f} dollars\n")
    print("| package | cost / live | minutes | requests | lost reply: paid twice | starts | items lost |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    longest = {}
    with ThreadPoolExecutor(options.at_once) as pool:
        for name, (calm, bad, far) in zip(names, pool.map(undisturbed, names), strict=True):
            longest[name] = far.seconds
            cost, minutes = f"{calm.seen['cost'] / price:.3f}", f"{calm.seen['minutes']:.1f}"
            first = [cost, minutes, sum(calm.seen["calls"].values()), bad.seen["paid_twice"], bad.starts]
            row(PEERS[name][0], *first, calm.lost + bad.lost + far.lost)
            show(options.log, (calm, bad, far))
    if not options.kills:
        return
    heads = ("items lost", "sent twice", "paid twice", "batches per job", "cost / live", "jobs not through")
    print(f"\n| {options.kills} kills | {' | '.join(heads)} |\n| --- |{' ---: |' * len(heads)}")
    for name in names:
        outcomes = killed(name, options.kills, longest[name], options.at_once)
        lost, stuck = sum(one.lost for one in outcomes), sum(one.lost == ITEMS for one in outcomes)
        paid = sum(one.seen["paid_twice"] for one in outcomes)
        sent = sum(sum(one.seen["lines"]) - ITEMS for one in outcomes)
        batches = statistics.mean(len(one.seen["lines"]) for one in outcomes)
        cost = statistics.mean(one.seen["cost"] for one in outcomes) / price
        row(PEERS[name][0], lost, sent, paid, f"{batches:.1f}", f"{cost:.3f}", stuck)
        show(options.log, outcomes)


def row(name: str, *cells: object) -> None:
    """Print a row of a table."""
    print(f"| {name} | {' | '.join(map(str, cells))} |", flush=True)


def show(asked: bool, outcomes: Iterable[Outcome]) -> None:
    """Say what programs have said that lost something, on stderr."""
    for outcome in outcomes:
        if asked and outcome.lost:
            print(outcome.starts, outcome.seen, outcome.log, file=sys.stderr)


if __name__ == "__main__":
    main()
