"""Who may change a context cache: one task at a time, in whatever event loop, so that none is left behind and paid."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import random
import threading
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest

from batch_llm import GeminiCachedStrategy

pytest.importorskip("google.genai")


class Service:
    """Stands for google's service: remembers which caches exist, and lets a test hold up what it does."""

    def __init__(self, lives: float = 3600.0, before=None) -> None:
        self.lives, self._before = lives, before
        self.created: list[str] = []
        self.deleted: list[str] = []
        self.asked_of: list[str] = []
        self.aio = SimpleNamespace(
            models=SimpleNamespace(generate_content=self._generate),
            caches=SimpleNamespace(list=self._list, create=self._create, delete=self._delete),
        )

    async def _held_up(self, what: str) -> None:
        await asyncio.sleep(0)
        if self._before is not None:
            await self._before(what)

    async def _list(self):
        await self._held_up("list")
        return []

    async def _create(self, **_):
        await self._held_up("create")
        name = f"cache-{len(self.created) + 1}"
        self.created.append(name)
        return SimpleNamespace(name=name, expire_time=datetime.now(timezone.utc) + timedelta(seconds=self.lives))

    async def _delete(self, *, name: str):
        await self._held_up("delete")
        self.deleted.append(name)

    async def _generate(self, *, config, **_):
        await asyncio.sleep(0)
        self.asked_of.append(config.cached_content)
        return SimpleNamespace(text="hello", usage_metadata=None)

    @property
    def left(self) -> set[str]:
        return set(self.created) - set(self.deleted)


def over(service: Service) -> GeminiCachedStrategy[str]:
    return GeminiCachedStrategy("gemini-x", service, lambda response: response.text, ["a long document"])  # type: ignore[arg-type]


async def ask(strategy: GeminiCachedStrategy[str], times: int = 1) -> None:
    await asyncio.gather(*(strategy.execute("p", 1, 10.0) for _ in range(times)))


class Gate:
    """Holds up one kind of call until it is opened."""

    def __init__(self, what: str) -> None:
        self.what, self.reached, self.opened = what, asyncio.Event(), asyncio.Event()

    async def __call__(self, what: str) -> None:
        if what == self.what:
            self.reached.set()
            await self.opened.wait()


async def test_a_deletion_waits_for_a_renewal_and_deletes_the_new_cache():
    gate = Gate("create")
    service = Service(before=gate)
    strategy = over(service)
    asking = asyncio.ensure_future(ask(strategy))
    await gate.reached.wait()
    deleting = asyncio.ensure_future(strategy.delete_cache())
    await asyncio.sleep(0.01)
    gate.opened.set()
    await asyncio.gather(asking, deleting)
    assert (service.created, service.left) == (["cache-1"], set())


async def test_a_renewal_during_a_deletion_is_not_forgotten():
    gate = Gate("delete")
    service = Service(lives=1.0, before=gate)  # within the buffer: the next call renews
    strategy = over(service)
    await strategy.prepare()
    deleting = asyncio.ensure_future(strategy.delete_cache())
    await gate.reached.wait()
    service.lives = 3600.0
    asking = asyncio.ensure_future(ask(strategy, 10))
    await asyncio.sleep(0.01)
    gate.opened.set()
    await asyncio.gather(asking, deleting)
    assert (service.created, service.deleted) == (["cache-1", "cache-2"], ["cache-1"])
    assert set(service.asked_of) == {"cache-2"}
    await strategy.delete_cache()
    assert service.left == set()


async def test_a_cancelled_deletion_keeps_the_cache_in_mind_and_lets_go_of_the_lock():
    gate = Gate("delete")
    service = Service(before=gate)
    strategy = over(service)
    await strategy.prepare()
    deleting = asyncio.ensure_future(strategy.delete_cache())
    await gate.reached.wait()
    deleting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await deleting
    gate.opened.set()
    await strategy.delete_cache()
    assert service.left == set()


async def test_a_failed_renewal_leaves_the_old_cache_to_be_deleted():
    async def fails(what):
        if what == "create" and service.created:
            raise ConnectionError("no new cache")

    service = Service(lives=1.0, before=fails)
    strategy = over(service)
    await strategy.prepare()
    with pytest.raises(ConnectionError):
        await ask(strategy)
    await strategy.delete_cache()
    assert service.left == set()


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_races_no_cache_is_left(seed):
    chance = random.Random(seed)

    async def sometimes(what):
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)

    service = Service(before=sometimes)
    strategy = over(service)

    async def one(number):
        await asyncio.sleep(chance.random() / 50)
        await (strategy.delete_cache() if number % 3 == 0 else ask(strategy))

    await asyncio.gather(*(one(number) for number in range(200)))
    await strategy.delete_cache()
    assert service.left == set()
    assert len(service.deleted) == len(set(service.deleted))


def test_one_strategy_serves_one_event_loop_after_another():
    service = Service(lives=1.0)  # within the buffer: in each loop ten workers wait for a renewal
    strategy = over(service)
    for _ in range(3):
        asyncio.run(ask(strategy, 10))
    asyncio.run(strategy.delete_cache())
    assert service.deleted[-1:] == service.created[-1:]
    assert len(strategy._change._of_loops) <= 1, "loops that are closed are forgotten"


def test_event_loops_of_several_threads_renew_once():
    async def slowly(what):
        await asyncio.sleep(0.05)

    service = Service(before=slowly)
    strategy = over(service)
    start, errors = threading.Barrier(4), []

    def work():
        start.wait()
        try:
            asyncio.run(ask(strategy, 10))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (errors, service.created, len(service.asked_of)) == ([], ["cache-1"], 40)


def test_a_renewal_in_one_thread_and_a_deletion_in_another_leave_nothing():
    creating = threading.Event()

    async def slowly(what):
        if what == "create":
            creating.set()
            await asyncio.sleep(0.1)

    service = Service(before=slowly)
    strategy = over(service)
    thread = threading.Thread(target=lambda: asyncio.run(ask(strategy)))
    thread.start()
    assert creating.wait(10)
    asyncio.run(strategy.delete_cache())
    thread.join()
    assert (service.created, service.left) == (["cache-1"], set())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_that_was_forked_during_a_renewal_does_not_wait_for_it():
    creating, go_on = threading.Event(), threading.Event()
    parent = os.getpid()

    async def held_up(what):
        if what == "create" and os.getpid() == parent:
            creating.set()
            while not go_on.is_set():
                await asyncio.sleep(0.01)

    strategy = over(Service(before=held_up))
    thread = threading.Thread(target=lambda: asyncio.run(ask(strategy)))
    thread.start()
    assert creating.wait(10)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            asyncio.run(asyncio.wait_for(ask(strategy, 5), 60))
            code = 0
        finally:
            os._exit(code)
    go_on.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


async def test_a_copy_of_a_strategy_has_a_lock_of_its_own():
    strategy = over(Service())
    async with strategy._change.locked():
        other = copy.deepcopy(strategy)
        await asyncio.wait_for(ask(other), 60)
    assert pickle.loads(pickle.dumps(strategy._change)) is not strategy._change
