"""Programs that die, disks that are full: nothing that was finished is lost, asked again, or harmed."""

from __future__ import annotations

import asyncio
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from batch_llm import ArtifactError, ArtifactIOError, inspect, process_prompts, run
from batch_llm.testing import FakeStrategy, SimulatedProvider

from ..helpers import Echo, until

ROOT = Path(__file__).parents[2]
ITEMS, WORKERS = 2_000, 50


class Round:
    """A program that is killed again and again until it gets to its end; checks what must hold after each time."""

    def __init__(self, provider: SimulatedProvider, store: Path, unwritten: int = 0) -> None:
        self.provider, self.store, self.delivered = provider, store, store.parent / "delivered"
        self.most_lost = WORKERS + unwritten
        self.kills = 0
        self.before = Counter(provider.stats.questions)

    def asked(self) -> Counter[str]:
        """How often each question was let in since the beginning of the round."""
        return Counter(self.provider.stats.questions) - self.before

    def stored(self) -> set[str]:
        """What is in the store."""
        try:
            view = inspect(self.store)
        except FileNotFoundError:
            return set()
        assert view.damaged_records == 0
        return {result.item_id for result in view.results(successes_only=True)}

    def begin(self) -> subprocess.Popen[bytes]:
        """Start the program; return when it is about to begin."""
        arguments = [self.provider.base_url, str(self.store), str(self.delivered), str(ITEMS), str(WORKERS)]
        program = [sys.executable, "-m", "tests.resuming", *arguments]
        process = subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process

    def kill_after(self, requests: float, delay: float = 0) -> bool:
        """Run the program and kill it so many seconds after so many requests, or see it end; whether it has."""
        known = self.stored()
        asked_before = self.asked()
        requests += self.provider.stats.requests
        process = self.begin()
        while process.poll() is None and self.provider.stats.requests < requests:
            time.sleep(0.0005)
        time.sleep(delay)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            self.kills += 1
        output = process.communicate()[0]
        assert process.returncode in (0, -signal.SIGKILL)
        # What died on the wire is answered all the same.
        wait_for_quiet(self.provider)
        again = {f"id-{question.split()[-1]}" for question in self.asked() - asked_before}
        assert not again & known, "a stored item was asked again"
        stored = self.stored()
        assert stored >= known
        assert set(self.lines()) <= stored, "a result was delivered before it was stored"
        unstored = {f"id-{question.split()[-1]}" for question in self.asked()} - stored
        assert len(unstored) <= self.most_lost
        return output.endswith(b"done\n")

    def lines(self) -> list[str]:
        """The ids that were delivered."""
        return self.delivered.read_text().split() if self.delivered.exists() else []

    def finish(self) -> None:
        """Check what must hold at the end."""
        everything = {f"id-{number}" for number in range(ITEMS)}
        assert set(self.lines()) == everything == self.stored()
        asked = self.asked()
        assert len(asked) == ITEMS
        repeated = asked.total() - ITEMS
        assert repeated <= self.kills * self.most_lost
        shutil.rmtree(self.store.parent)


def wait_for_quiet(provider: SimulatedProvider) -> None:
    before = -1
    while before != (before := provider.stats.requests):
        time.sleep(0.02)


def when(rng: random.Random) -> tuple[float, float]:
    return rng.randrange(ITEMS), rng.uniform(0, 0.01)


def kill_many_times(folder: Path, suffix: str, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    done = rounds = 0
    with SimulatedProvider(latency=0.004, latency_spread=0.008, count_questions=True) as provider:
        while done < kills or rounds < 2:
            home = folder / f"round-{rounds}"
            home.mkdir()
            one = Round(provider, home / f"store{suffix}")
            # By requests, so that a slow machine is killed at the same places; by time, so that it dies between two.
            while not one.kill_after(*when(rng) if done + one.kills < kills else (math.inf,)):
                pass
            done += one.kills
            rounds += 1
            one.finish()
            # The next round asks the same anew.


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("suffix", [".db", ".jsonl"])
def test_a_killed_program_goes_on_where_it_was(tmp_path, suffix):
    kill_many_times(tmp_path, suffix, 6, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("suffix", [".db", ".jsonl"])
def test_two_hundred_kills(tmp_path, suffix):
    kill_many_times(tmp_path, suffix, 200, seed=2)


@pytest.fixture
def small_disk():
    """A folder on a disk of one MB; needs the right to mount one."""
    if shutil.which("mount") is None:
        pytest.skip("cannot mount a small disk here")
    folder = Path(f"/tmp/batch-llm-small-{os.getpid()}")
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        folder.rmdir()
        pytest.skip("cannot mount a small disk here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
    folder.rmdir()


@pytest.mark.parametrize("suffix", [".db", ".jsonl"])
async def test_a_full_disk_ends_the_run_and_harms_nothing(small_disk, tmp_path, suffix):
    store = small_disk / f"store{suffix}"
    answers = "x" * 2000
    strategy = FakeStrategy(answers, latency=0.001)
    prompts = [f"question {number}" for number in range(2000)]
    with pytest.raises(ArtifactIOError, match="free some space") as caught:
        await process_prompts(strategy, prompts, concurrency=WORKERS, store=store)
    batch = caught.value.partial_result
    assert batch.termination.kind == "artifact_error"
    asked = batch.succeeded
    assert len(batch.results) == len(prompts)
    assert batch.not_sent >= len(prompts) - asked - WORKERS
    assert 100 < asked < 1000
    assert {result.error_category for result in batch.failures} <= {"artifact_error"}
    # Everything that was handed out but for what was on at that moment is stored, and intact.
    view = inspect(store)
    assert view.damaged_records == view.torn_bytes == 0
    stored = {result.item_id for result in view.results()}
    assert stored <= {result.item_id for result in batch.successes}
    assert asked - len(stored) <= WORKERS
    # With room, it goes on from there: here, elsewhere.
    roomy = tmp_path / store.name
    for file in small_disk.iterdir():
        shutil.copy(file, tmp_path)
    batch = await process_prompts(strategy, prompts, concurrency=WORKERS, store=roomy)
    assert batch.succeeded == len(prompts)
    assert batch.stats.replayed == len(stored)


def test_a_disk_that_is_full_from_the_beginning(small_disk):
    (small_disk / "ballast").write_bytes(b"x" * (1 << 20))
    for name in ("store.db", "store.jsonl"):
        with pytest.raises(ArtifactIOError, match="free some space"):
            run(FakeStrategy("a"), ["b"], store=small_disk / name)


def test_a_read_only_disk(small_disk):
    for name in ("store.db", "store.jsonl"):
        run(FakeStrategy("a"), ["b"], store=small_disk / name)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for name in ("store.db", "store.jsonl"):
        with pytest.raises(ArtifactIOError, match="writable"):
            run(FakeStrategy("a"), ["b"], store=small_disk / name)
        assert inspect(small_disk / name).succeeded == 1


async def test_a_broken_off_run_keeps_what_it_has(tmp_path):
    store = tmp_path / "a.db"
    strategy = Echo(0.01)
    running = asyncio.ensure_future(process_prompts(strategy, map(str, range(10_000)), concurrency=20, store=store))
    await until(lambda: len(strategy.calls) >= 200)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    stored = inspect(store).succeeded
    assert stored >= 20
    batch = await process_prompts(strategy, map(str, range(stored)), concurrency=20, store=store)
    assert batch.stats.replayed >= stored - 20


def test_where_nothing_can_be_written(tmp_path):
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(ArtifactIOError, match="folder"):
        run(FakeStrategy("a"), ["b"], store=blocked / "folder" / "store.db")
    store = tmp_path / "store.jsonl"
    store.mkdir()
    with pytest.raises(ArtifactError, match="folder"):
        run(FakeStrategy("a"), ["b"], store=store)
