"""The bridge to asyncio: every kind of loop, and every way to stop in the middle."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
import time

import pytest

from batch_llm import LLMCallStrategy, LLMWorkItem, MetricsObserver, ParallelBatchProcessor, RetryConfig

from ..helpers import Deaf, Echo, Scripted, quick, run, script, until


class NoReaderLoop(asyncio.SelectorEventLoop):
    """Cannot watch descriptors for others, like Windows' proactor."""

    def add_reader(self, *arguments):
        raise NotImplementedError


LOOPS = {"asyncio": asyncio.new_event_loop, "no-reader": NoReaderLoop}
if sys.platform != "win32":
    LOOPS["uvloop"] = pytest.importorskip("uvloop").new_event_loop


def run_on(factory, coroutine):
    loop = factory()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("thread", [False, True])
def test_every_loop_in_every_thread(name, thread):
    outcome = []

    def work():
        strategy = Scripted(lambda prompt, attempt: RuntimeError("x") if attempt == 1 and prompt < "3" else prompt)
        batch, _ = run_on(LOOPS[name], run(strategy, "0123456789" * 20, quick(timeout_per_item=20)))
        outcome.append(batch.succeeded)

    if thread:
        worker = threading.Thread(target=work)
        worker.start()
        worker.join(30)
    else:
        work()
    assert outcome == [200]


def test_one_asyncio_run_after_another_leaves_nothing_open(open_descriptors):
    asyncio.run(run(Echo(), ["x"] * 5))
    gc.collect()
    before, threads = open_descriptors(), threading.active_count()
    for _ in range(20):
        batch, _ = asyncio.run(run(Echo(), ["x"] * 20))
        assert batch.succeeded == 20
    gc.collect()
    assert open_descriptors() <= before
    assert threading.active_count() <= threads + 1


async def test_several_processors_on_one_loop():
    batches = await asyncio.gather(*(run(Echo(0.001), ["x"] * 100, quick(max_workers=20)) for _ in range(10)))
    assert [batch.succeeded for batch, _ in batches] == [100] * 10


def test_processors_on_several_loops_in_several_threads():
    outcome = []

    def work(factory):
        for _ in range(3):
            batch, _ = run_on(factory, run(Echo(0.001), ["x"] * 200, quick(max_workers=50)))
            outcome.append(batch.succeeded)

    factories = [factory for factory in LOOPS.values() if factory] * 3
    threads = [threading.Thread(target=work, args=(factory,)) for factory in factories]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert outcome == [200] * 3 * len(factories)


async def test_context_variables_of_the_caller_are_seen_and_items_do_not_leak_theirs():
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("callers")

    class Reads(LLMCallStrategy[str]):
        async def execute(self, prompt, attempt, timeout, state=None):
            seen = variable.get()
            variable.set(prompt)
            await asyncio.sleep(0)
            assert variable.get() == prompt
            return seen, {}

    batch, _ = await run(Reads(), [f"p{n}" for n in range(100)], quick(max_workers=3))
    assert {result.output for result in batch.results} == {"callers"}


async def test_attempts_are_real_tasks():
    class Uses(LLMCallStrategy[str]):
        async def execute(self, prompt, attempt, timeout, state=None):
            task = asyncio.current_task()
            assert isinstance(task, asyncio.Task)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.sleep(10), 0.001)
            assert asyncio.current_task() is task
            return prompt, {}

    batch, _ = await run(Uses(), ["x"] * 10)
    assert batch.succeeded == 10


async def test_the_users_own_tasks_keep_running_beside_a_busy_run():
    ticks = 0

    class Instant(LLMCallStrategy[str]):
        async def execute(self, prompt, attempt, timeout, state=None):
            return prompt, {}

    async def ticker():
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(ticker())
    await run(Instant(), ["x"] * 20_000, quick(max_workers=100))
    task.cancel()
    assert ticks > 10


def tasks_left():
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def test_cancelling_the_run_cancels_what_is_in_work_and_keeps_what_is_finished():
    ended, observer = [], MetricsObserver()

    class Mixed(Echo):
        slow = 0

        async def execute(self, prompt, attempt, timeout, state=None):
            try:
                if prompt != "quick":
                    self.slow += 1
                    await asyncio.sleep(100)
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise
            return prompt, {}

        async def cleanup(self):
            await asyncio.sleep(0)
            ended.append("cleaned")

    processor = ParallelBatchProcessor(config=quick(max_workers=4), observers=[observer])
    strategy = Mixed()
    for number, prompt in enumerate(["quick"] * 5 + ["slow"] * 20):
        await processor.add_work(LLMWorkItem(str(number), strategy, prompt))
    running = asyncio.create_task(processor.process_all())
    await until(lambda: strategy.slow == 4 and processor.partial_result().succeeded == 5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert tasks_left() == []
    assert ended.count("cancelled") == 4
    assert ended.count("cleaned") == 9
    partial = processor.partial_result()
    assert partial.total_items == 25
    assert partial.succeeded == 5
    failed = [result for result in partial.results if not result.success]
    assert all(result.error.startswith("CancelledError: ") for result in failed)
    assert sorted(result.attempts for result in failed) == [0] * 16 + [1] * 4
    stats = await processor.get_stats()
    assert (stats["succeeded"], stats["failed"], stats["not_sent"]) == (5, 4, 16)
    assert observer.metrics["items_processed"] == 25
    # Nothing stale is left for the next run.
    await processor.add_work(LLMWorkItem("new", strategy, "quick"))
    assert [result.item_id for result in (await processor.process_all()).results] == ["new"]


async def test_cancellation_that_the_strategy_swallows_ends_all_the_same(monkeypatch):
    monkeypatch.setattr("batch_llm.base.WORKER_CANCELLATION_TIMEOUT", 0.05)
    strategy = Deaf()
    processor = ParallelBatchProcessor(config=quick(max_workers=2))
    for number in range(4):
        await processor.add_work(LLMWorkItem(str(number), strategy, "x"))
    running = asyncio.create_task(processor.process_all())
    await until(lambda: strategy.active == 2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    total = processor.partial_result().total_items
    strategy.released.set()
    await until(lambda: tasks_left() == [])
    assert total == 4
    assert processor.partial_result().total_items == 4


async def test_a_result_that_comes_during_the_cancellation_is_kept():
    begun = asyncio.Event()

    class Finishes(LLMCallStrategy[str]):
        async def execute(self, prompt, attempt, timeout, state=None):
            begun.set()
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                pass
            return "finished anyway", {}

    processor = ParallelBatchProcessor(config=quick())
    await processor.add_work(LLMWorkItem("a", Finishes(), "x"))
    running = asyncio.create_task(processor.process_all())
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert processor.partial_result().results[0].output == "finished anyway"


@pytest.mark.parametrize("moment", range(0, 12, 2))
async def test_cancelling_at_any_moment_leaks_nothing(moment, open_descriptors):
    await run(Echo())  # what is kept for the process is there
    before = open_descriptors()
    strategy = Scripted(lambda p, a: RuntimeError("429") if a == 1 and p == "7" else RuntimeError("x") if a < 2 else p)
    processor = ParallelBatchProcessor(config=quick(max_workers=3), observers=[MetricsObserver()])
    for number in range(50):
        await processor.add_work(LLMWorkItem(str(number), strategy, str(number)))
    running = asyncio.create_task(processor.process_all())
    await asyncio.sleep(moment / 1000)
    running.cancel()
    try:
        await running
    except asyncio.CancelledError:
        assert processor.partial_result().total_items == 50
    del running
    assert tasks_left() == []
    gc.collect()
    assert open_descriptors() <= before


async def test_cleanup_ends_a_run_and_empties_the_queue():
    processor = ParallelBatchProcessor(config=quick(max_workers=2))
    await processor.cleanup()
    strategy = Echo(100)
    for number in range(5):
        await processor.add_work(LLMWorkItem(str(number), strategy, "x"))
    running = asyncio.create_task(processor.process_all())
    await until(lambda: strategy.active == 2)
    await processor.cleanup()
    batch = await running
    assert (batch.total_items, batch.succeeded) == (5, 0)
    await processor.add_work(LLMWorkItem("never", Echo(), "x"))
    await processor.cleanup()
    await processor.cleanup()
    assert (await processor.process_all()).total_items == 0


async def test_a_closed_processor_says_so():
    async with ParallelBatchProcessor(config=quick()) as processor:
        await processor.add_work(LLMWorkItem("a", Echo(), "x"))
        await processor.process_all()
    with pytest.raises(RuntimeError, match="closed"):
        await processor.add_work(LLMWorkItem("b", Echo(), "x"))
    with pytest.raises(RuntimeError, match="closed"):
        await processor.process_all()
    assert (await processor.get_stats())["succeeded"] == 1
    other = ParallelBatchProcessor(config=quick())
    await other.shutdown()
    await other.shutdown()
    with pytest.raises(RuntimeError, match="closed"):
        await other.process_all()


async def test_leaving_the_context_by_an_exception_suppresses_nothing():
    with pytest.raises(KeyError):
        async with ParallelBatchProcessor(config=quick()):
            raise KeyError("mine")


def test_a_processor_belongs_to_the_loop_of_its_first_run():
    processor = ParallelBatchProcessor(config=quick())

    async def fill():
        await processor.add_work(LLMWorkItem("a", Echo(), "x"))

    asyncio.run(fill())  # queueing on another loop before the first run is fine
    assert asyncio.run(processor.process_all()).succeeded == 1
    with pytest.raises(RuntimeError, match="event loop"):
        asyncio.run(processor.process_all())
    with pytest.raises(RuntimeError, match="event loop"):
        asyncio.run(fill())


def test_a_loop_that_is_closed_in_the_middle_hangs_nothing(open_descriptors):
    asyncio.run(run(Echo()))  # what is kept for the process is there
    before = open_descriptors()
    for _ in range(5):
        loop = asyncio.new_event_loop()
        processor = ParallelBatchProcessor(config=quick())
        loop.run_until_complete(processor.add_work(LLMWorkItem("a", Echo(0.05), "x")))
        task = loop.create_task(processor.process_all())
        loop.run_until_complete(asyncio.sleep(0.01))
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        for left in asyncio.all_tasks(loop):
            left._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()
        del task, left, processor, loop
        gc.collect()
    time.sleep(0.1)  # the engine's timer would fire now, for a loop that is no more
    gc.collect()
    assert open_descriptors() <= before


async def test_a_panic_in_the_engine_is_an_exception_and_the_process_lives():
    processor = ParallelBatchProcessor(config=quick(max_workers=2))
    strategy = Echo(0.01)
    for number in range(6):
        await processor.add_work(LLMWorkItem(str(number), strategy, "x"))
    running = asyncio.create_task(processor.process_all())
    while processor.partial_result().total_items < 2:
        await asyncio.sleep(0.001)
    panic = getattr(processor._run.handle, "_panic", None)
    if panic is None:
        pytest.skip("a release build has no way to panic on purpose")
    with pytest.raises(BaseException, match="made on purpose"):
        panic()
    with pytest.raises(RuntimeError, match="batch-llm"):
        await running
    assert processor.partial_result().succeeded >= 2
    assert processor.partial_result().total_items == 6
    assert tasks_left() == []
    assert (await run(Echo()))[0].succeeded == 1


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_ctrl_c_ends_the_program_with_the_finished_results_at_hand():
    done = script(
        """
        class Some(Echo):
            async def execute(self, prompt, attempt, timeout, state=None):
                if prompt == "first":
                    print("ready", flush=True)
                await asyncio.sleep(0 if prompt == "first" else 100)
                return prompt, {}

        processor = ParallelBatchProcessor(config=quick(max_workers=2))

        async def main():
            for number, prompt in enumerate(["first", "slow", "slow"]):
                await processor.add_work(LLMWorkItem(str(number), Some(), prompt))
            await processor.process_all()

        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            partial = processor.partial_result()
            print("interrupted", partial.succeeded, partial.total_items)
        """,
        interrupt=0.2,
    )
    assert done.stdout.splitlines()[-1:] == ["interrupted 1 3"], done.stderr
    assert "never retrieved" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_keyboard_interrupt_inside_a_strategy_stops_the_batch():
    done = script(
        """
        async def main():
            await run(Scripted(lambda p, a: KeyboardInterrupt() if p == "5" else p), "0123456789")

        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            print("stopped")
        """
    )
    assert done.stdout.split() == ["stopped"], done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_fork_in_mid_run_hangs_neither_parent_nor_child():
    done = script(
        """
        async def main():
            processor = ParallelBatchProcessor(config=quick())
            await processor.add_work(LLMWorkItem("a", Echo(0.3), "x"))
            running = asyncio.create_task(processor.process_all())
            await asyncio.sleep(0.05)
            child = os.fork()
            if child == 0:
                try:
                    processor._run.handle.stats()
                except RuntimeError as error:
                    print("child refused:", "fork" in str(error), flush=True)
                asyncio._set_running_loop(None)
                batch, _ = asyncio.new_event_loop().run_until_complete(run(Echo(0.01), ["x"] * 5))
                print("child ran", batch.succeeded, flush=True)
                del processor
                os._exit(0)
            os.waitpid(child, 0)
            print("parent ran", (await running).succeeded)

        asyncio.run(main())
        """
    )
    assert done.stdout.splitlines() == ["child refused: True", "child ran 5", "parent ran 1"], done.stderr


async def test_hooks_that_fail_all_at_once_lose_nothing():
    from batch_llm import BaseMiddleware, BaseObserver

    class Bad(BaseMiddleware):
        async def after_process(self, result):
            raise RuntimeError("after")

        async def on_error(self, work_item, error):
            raise RuntimeError("on_error")

    class BadObserver(BaseObserver):
        async def on_event(self, event, data):
            raise RuntimeError("observer")

    class BadStrategy(Scripted):
        async def on_error(self, exception, attempt, state=None):
            raise RuntimeError("strategy")

        async def cleanup(self):
            raise RuntimeError("cleanup")

    def post(result):
        raise RuntimeError("post")

    strategy = BadStrategy(lambda p, a: RuntimeError("x") if int(p) % 3 == 0 else p)
    batch, _ = await run(
        strategy,
        [str(n) for n in range(60)],
        quick(max_workers=7, retry=RetryConfig(2, 0.001)),
        middlewares=[Bad()],
        observers=[BadObserver()],
        post_processor=post,
    )
    assert (batch.succeeded, batch.failed) == (40, 20)
    assert len({result.item_id for result in batch.results}) == 60


class FakeHandle:
    """Messages by the time that they come: at once, and after the first rest; and how many results there are."""

    def __init__(self, at_once=(), late=(), results=()):
        self.at_once, self.late, self.results = list(at_once), list(late), list(results)
        self.rests = self.hushes = 0

    def fileno(self):
        return None

    def wait(self, seconds):
        return False

    def take(self, count):
        if self.at_once:
            return self.at_once.pop(0)
        return self.late.pop(0) if self.rests and self.late else []

    def take_results(self, most):
        return self.results.pop(0) if self.results else 0

    def rest(self):
        self.rests += 1

    def hush(self):
        self.hushes += 1

    def ring(self):
        pass


def mailbox_of(monkeypatch, handle, dispatch, *, watches):
    from batch_llm._run import mailbox as _mailbox

    monkeypatch.setattr(_mailbox, "RunHandle", lambda settings, descriptor: handle)
    mailbox = _mailbox.Mailbox(asyncio.get_running_loop(), None, handle.take_results, dispatch, pytest.fail)
    mailbox._watches = mailbox._is_called = watches
    return mailbox


@pytest.mark.parametrize("has_news_at_once", [True, False])
async def test_what_came_just_before_a_rest_is_not_left_when_the_turn_is_over(monkeypatch, has_news_at_once):
    """Nobody rings for it: the loop has to come back by itself."""
    from batch_llm._run import mailbox as _mailbox

    monkeypatch.setattr(_mailbox, "TURN_SECONDS", -1.0)  # every turn is over after one portion
    taken = []

    def dispatch(messages, end):
        taken.extend(messages)

    handle = FakeHandle([["first"]] if has_news_at_once else [], [["second"], ["third"]])
    mailbox = mailbox_of(monkeypatch, handle, dispatch, watches=True)
    mailbox.look()
    if has_news_at_once:
        assert taken == ["first"]
        mailbox.look()  # the descriptor is still readable: nothing has been read from it
    for _ in range(5):
        await asyncio.sleep(0)
    assert taken[-2:] == ["second", "third"]
    mailbox.unwatch()


@pytest.mark.parametrize("turn", [10.0, -1.0])
@pytest.mark.parametrize("others", [1, 10])
async def test_where_results_come_fast_the_loop_looks_by_itself(monkeypatch, turn, others):
    """And where hardly anything else comes."""
    from batch_llm._run import mailbox as _mailbox

    monkeypatch.setattr(_mailbox, "TURN_SECONDS", turn)
    monkeypatch.setattr(_mailbox, "POLL_SECONDS", 0.0)
    portions = []

    def dispatch(messages, end):
        portions.append(len(messages))

    handle = FakeHandle([["another"] * others] * 3, results=[20] * 3)
    mailbox = mailbox_of(monkeypatch, handle, dispatch, watches=False)
    mailbox.look()
    if turn > 0:
        fast = others == 1
        assert (handle.hushes, handle.rests, portions) == (fast, not fast, [others] * 3)
        if fast:
            handle.results = [20, 5]
    for _ in range(20):
        await asyncio.sleep(0)
    # It rests in the end: after a turn with few results, or none.
    assert handle.rests == 1
    assert not handle.results
    mailbox.unwatch()
