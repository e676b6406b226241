"""A program that raises what ends runs, wherever the user has a say: ``python -m tests.ending SURFACE [KIND,...]``.

Prints a line per case before and after it, so that whoever runs it knows which one hangs.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pydantic

from batch_llm import (
    BaseMiddleware,
    BaseObserver,
    CallableStrategy,
    LLMCallPool,
    LLMCallStrategy,
    LLMWorkItem,
    ParallelBatchProcessor,
    ProcessingEvent,
    ProcessorConfig,
    RetryConfig,
    call,
    llm,
    process_prompts,
    process_stream,
    run,
    run_frame,
    stream,
)
from batch_llm.base import BatchProcessor
from batch_llm.core.guardrails import GuardrailConfig
from batch_llm.strategies import ErrorClassifier, RateLimitStrategy
from batch_llm.strategies.errors import ErrorInfo
from batch_llm.testing import Fault, SimulatedProvider

USAGE = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
PROMPTS = ["0", "1", "2", "3"]
"""The second one is the one with which something is raised."""


class Custom(BaseException):
    """Of the user's own."""


ENDING = {
    "SystemExit": lambda: SystemExit("no licence"),
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "Custom": lambda: Custom("odd"),
}
FAILING = {
    "StopIteration": StopIteration,
    "StopAsyncIteration": StopAsyncIteration,
    "CancelledError": lambda: asyncio.CancelledError("of the user's own"),
}
KINDS: dict[str, Callable[[], BaseException]] = {**ENDING, **FAILING}


class Case:
    """What a place puts into a run."""

    def __init__(self, strategy: Any, **options: Any) -> None:
        self.strategy = strategy
        self.source = options.pop("source", None)
        self.options = options

    def prompts(self) -> Any:
        """The prompts, new ones for each run."""
        return list(PROMPTS) if self.source is None else self.source()


class Async(LLMCallStrategy[str]):
    """Does what it is told to in one of its hooks; counts whether it was cleaned up as often as it was prepared."""

    def __init__(self, where: str, kind: Callable[[], BaseException], *, late: bool = True) -> None:
        self.where, self.kind, self.late = where, kind, late
        self.cleaned = 0

    async def _hook(self, where: str) -> None:
        if self.late:
            await asyncio.sleep(0.01)
        if where == self.where:
            raise self.kind()

    async def prepare(self) -> None:
        await self._hook("prepare")

    async def execute(self, prompt: str, attempt: int, timeout: float, state: Any = None) -> Any:
        if prompt == "1":
            await self._hook("execute")
        if prompt == "1" and self.where == "on_error":
            raise ValueError("to be heard of")
        return prompt, dict(USAGE)

    async def on_error(self, exception: Exception, attempt: int, state: Any = None) -> None:
        await self._hook("on_error")

    async def cleanup(self) -> None:
        self.cleaned += 1
        await self._hook("cleanup")

    async def dry_run(self, prompt: str) -> Any:
        if prompt == "1":
            await self._hook("dry_run")
        return prompt, {}


async def echo(prompt: str) -> str:
    await asyncio.sleep(0.001)
    return prompt


async def failing(prompt: str) -> str:
    if prompt == "1":
        raise ValueError("a failure")
    return prompt


async def limited(prompt: str) -> str:
    if prompt == "1":
        raise RuntimeError("rate limit exceeded")
    return prompt


def places(kind: Callable[[], BaseException], url: str, limited_url: str) -> dict[str, Callable[[], Case]]:
    """By name, where the user has a say."""

    def at(prompt: Any) -> None:
        if prompt == "1":
            raise kind()

    def plain(prompt: str) -> str:
        at(prompt)
        return prompt

    async def nested(prompt: str) -> str:
        async def inner() -> None:
            await asyncio.sleep(0)
            at(prompt)

        await inner()
        return prompt

    async def in_task(prompt: str) -> str:
        async def inner() -> None:
            await asyncio.sleep(0)
            at(prompt)

        await asyncio.gather(inner())
        return prompt

    async def in_thread(prompt: str) -> str:
        await asyncio.to_thread(at, prompt)
        return prompt

    def parser(text: str) -> str:
        raise kind()

    class Model(pydantic.BaseModel):
        value: str

        @pydantic.field_validator("value")
        @classmethod
        def _look(cls, value: str) -> str:
            raise kind()

    class Hooks(BaseMiddleware[Any, Any, Any]):
        def __init__(self, where: str) -> None:
            self.where = where

        async def before_process(self, item: Any) -> Any:
            if self.where == "before" and item.prompt == "1":
                raise kind()
            return item

        async def after_process(self, result: Any) -> Any:
            if self.where == "after":
                raise kind()
            return result

        async def on_error(self, item: Any, error: Exception) -> Any:
            if self.where == "error":
                raise kind()
            return None

    class Watching(BaseObserver):
        async def on_event(self, event: ProcessingEvent, data: dict[str, Any]) -> None:
            if event is ProcessingEvent.ITEM_COMPLETED:
                raise kind()

    class Classifying(ErrorClassifier):
        def classify(self, exception: Exception) -> ErrorInfo:
            raise kind()

    class Pausing(RateLimitStrategy):
        async def on_rate_limit(self, worker_id: int, consecutive_limits: int) -> float:
            raise kind()

        def should_apply_slow_start(self, items_since_resume: int) -> tuple[bool, float]:
            return False, 0.0

    class Slowing(Pausing):
        async def on_rate_limit(self, worker_id: int, consecutive_limits: int) -> float:
            return 0.01

        def should_apply_slow_start(self, items_since_resume: int) -> tuple[bool, float]:
            raise kind()

    def raise_it(*arguments: Any, **named: Any) -> Any:
        raise kind()

    async def raise_it_async(*arguments: Any, **named: Any) -> Any:
        await asyncio.sleep(0)
        raise kind()

    def source() -> Iterator[str]:
        yield "0"
        yield "2"
        raise kind()

    async def async_source() -> Any:
        yield "0"
        await asyncio.sleep(0)
        raise kind()

    class Odd:
        """An iterator that is no generator."""

        left = 2

        def __iter__(self) -> Any:
            return self

        def __next__(self) -> str:
            self.left -= 1
            if self.left < 0:
                raise kind()
            return "0"

    def native(**options: Any) -> Any:
        return llm("openai:gpt-5-mini", base_url=options.pop("url", url), **{"api_key": "any", **options})

    costs = GuardrailConfig(max_total_cost=1.0, cost_function=raise_it)
    return {
        "async": lambda: Case(Async("execute", kind)),
        "async, at once": lambda: Case(Async("execute", kind, late=False)),
        "async function": lambda: Case(nested),
        "async function, one at a time": lambda: Case(CallableStrategy(nested, max_concurrency=1)),
        "plain function": lambda: Case(plain),
        "plain function, one at a time": lambda: Case(CallableStrategy(plain, threads=True, max_concurrency=1)),
        "task": lambda: Case(in_task),
        "thread": lambda: Case(in_thread),
        "prepare": lambda: Case(Async("prepare", kind)),
        "cleanup": lambda: Case(Async("cleanup", kind)),
        "on_error": lambda: Case(Async("on_error", kind)),
        "dry_run": lambda: Case(Async("dry_run", kind), config={"dry_run": True}),
        "before": lambda: Case(echo, middlewares=[Hooks("before")]),
        "after": lambda: Case(echo, middlewares=[Hooks("after")]),
        "middleware's error": lambda: Case(failing, middlewares=[Hooks("error")]),
        "observer": lambda: Case(echo, observers=[Watching()]),
        "classifier": lambda: Case(failing, error_classifier=Classifying()),
        "pause": lambda: Case(limited, rate_limit_strategy=Pausing()),
        "slow start": lambda: Case(limited, rate_limit_strategy=Slowing()),
        "post-processor": lambda: Case(echo, post_processor=raise_it),
        "async post-processor": lambda: Case(echo, post_processor=raise_it_async),
        "progress": lambda: Case(echo, progress_callback=raise_it, config={"progress_interval": 1}),
        "async progress": lambda: Case(echo, progress_callback=raise_it_async, config={"progress_interval": 1}),
        "estimator": lambda: Case(echo, config={"token_estimator": raise_it, "max_tokens_per_minute": 1e9}),
        "async estimator": lambda: Case(echo, config={"token_estimator": raise_it_async, "max_tokens_per_minute": 1e9}),
        "cost": lambda: Case(Async("", kind), config={"guardrails": costs}),
        "native key": lambda: Case(native(api_key=raise_it)),
        "native parser": lambda: Case(native(response_parser=parser)),
        "native model": lambda: Case(native(response_model=Model)),
        "native post-processor": lambda: Case(native(), post_processor=raise_it),
        "native observer": lambda: Case(native(), observers=[Watching()]),
        "native classifier": lambda: Case(native(url=limited_url), error_classifier=Classifying()),
        "source": lambda: Case(echo, source=source),
        "async source": lambda: Case(echo, source=async_source),
        "odd source": lambda: Case(echo, source=Odd),
    }


# What a surface has no place for.
ONLY_PROMPTS = {"source", "async source", "odd source"}
HOOKS = {"middlewares", "observers", "rate_limit_strategy", "post_processor", "progress_callback"}


def configured(case: Case) -> ProcessorConfig:
    fields = {"concurrency": 3, "timeout_per_item": 20.0, **case.options.get("config", {})}
    return ProcessorConfig(retry=RetryConfig(initial_wait=0.01, max_wait=0.02), **fields)


def options(case: Case) -> dict[str, Any]:
    return {name: value for name, value in case.options.items() if name != "config"}


async def _process_all(case: Case, **more: Any) -> Any:
    processor: Any = ParallelBatchProcessor(config=configured(case), **options(case), **more)
    for number, prompt in enumerate(PROMPTS):
        await processor.add_work(LLMWorkItem(f"item-{number}", case.strategy, prompt))
    return await processor.process_all()


async def _started(case: Case) -> Any:
    processor: Any = ParallelBatchProcessor(config=configured(case), **options(case))
    for number, prompt in enumerate(PROMPTS):
        await processor.add_work(LLMWorkItem(f"item-{number}", case.strategy, prompt))
    await processor.start()
    await processor.finish()
    return [result async for result in processor.results()]


async def _process_stream(case: Case, ordered: bool = False) -> Any:
    results = process_stream(case.strategy, case.prompts(), config=configured(case), ordered=ordered, **options(case))
    return [result async for result in results]


class _Single(BatchProcessor[Any, Any, Any]):
    """A processor of the user's own."""

    strategy: Any

    async def _worker(self, worker_id: int) -> None: ...

    async def _process_item(self, work_item: Any) -> Any:
        from batch_llm import WorkItemResult

        output, usage = await work_item.strategy.execute(work_item.prompt, 1, 10.0)
        return WorkItemResult(work_item.item_id, True, output)


async def _single(case: Case) -> Any:
    processor: Any = _Single(max_workers=3, post_processor=case.options.get("post_processor"))
    for number, prompt in enumerate(PROMPTS):
        await processor.add_work(LLMWorkItem(f"item-{number}", case.strategy, prompt))
    return await processor.process_all()


async def _pool(case: Case, many: bool = False) -> Any:
    given = {name: value for name, value in options(case).items() if name in ("observers", "error_classifier")}
    async with LLMCallPool(case.strategy, config=configured(case), **given) as pool:
        if many:
            return await pool.submit_many(PROMPTS)
        calls = [asyncio.create_task(pool._submit_contained(prompt, None)) for prompt in PROMPTS]
        answers = await asyncio.gather(*calls)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers[1].output


async def _call(case: Case) -> Any:
    given = {name: value for name, value in options(case).items() if name == "error_classifier"}
    return await call(case.strategy, "1", config=configured(case), **given)


def _frame(case: Case) -> Any:
    import pandas

    return run_frame(
        pandas.DataFrame({"text": PROMPTS}), "{text}", case.strategy, config=configured(case), **options(case)
    )


def _with_store(case: Case) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_process_all(case, store=f"{folder}/s.db"))


def _run_with_store(case: Case) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return run(case.strategy, case.prompts(), config=configured(case), store=f"{folder}/s.jsonl", **options(case))


SURFACES: dict[str, Callable[[Case], Any]] = {
    "process_all": lambda case: asyncio.run(_process_all(case)),
    "process_all, stored": _with_store,
    "start": lambda case: asyncio.run(_started(case)),
    "own processor": lambda case: asyncio.run(_single(case)),
    "process_prompts": lambda case: asyncio.run(
        process_prompts(case.strategy, case.prompts(), config=configured(case), **options(case))
    ),
    "process_stream": lambda case: asyncio.run(_process_stream(case)),
    "process_stream, ordered": lambda case: asyncio.run(_process_stream(case, ordered=True)),
    "run": lambda case: run(case.strategy, case.prompts(), config=configured(case), **options(case)),
    "run, stored": _run_with_store,
    "stream": lambda case: list(stream(case.strategy, case.prompts(), config=configured(case), **options(case))),
    "call": lambda case: asyncio.run(_call(case)),
    "pool": lambda case: asyncio.run(_pool(case)),
    "pool, many": lambda case: asyncio.run(_pool(case, many=True)),
    "run_frame": _frame,
}


def suits(surface: str, name: str, place: str, case: Case) -> bool:
    """Whether a surface has such a place."""
    if place == "thread" and name == "StopIteration":
        return False  # asyncio's own threads know no end of it before Python 3.12
    if place in ONLY_PROMPTS:
        return surface.split(",")[0] in ("process_prompts", "process_stream", "run", "stream")
    if surface == "own processor":
        return place in ("async", "async, at once", "async function", "plain function", "post-processor")
    if surface in ("call", "pool", "pool, many"):
        unknown = HOOKS - ({"observers"} if surface != "call" else set())
        return not unknown & case.options.keys()
    return True


def _say(told: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def main(surface: str, kinds: str = ",".join(KINDS), only: str = "") -> None:
    """Run all cases of a surface."""
    noises: list[str] = []

    def hear(unraisable: Any) -> None:
        noises.append(str(unraisable.exc_value or unraisable.err_msg))

    sys.unraisablehook = hear
    gc.collect()
    gc.freeze()  # each case collects what it has made, and need not look through all modules
    with SimulatedProvider() as provider, SimulatedProvider(faults=[Fault(429, every=1)]) as limiting:
        for name in kinds.split(","):
            for place, make in places(KINDS[name], provider.base_url, limiting.base_url).items():
                if only not in ("", place):
                    continue
                case = make()
                if not suits(surface, name, place, case):
                    continue
                _say({"begins": [name, place]})
                told: dict[str, Any] = {"case": [name, place]}
                try:
                    answer = SURFACES[surface](case)
                except BaseException as error:
                    told["raised"] = type(error).__name__
                    told["text"] = str(error)
                    told["partial"] = type(getattr(error, "partial_result", None)).__name__
                else:
                    told["errors"] = sorted({str(result.error) for result in _results(answer)})
                if isinstance(case.strategy, Async):
                    told["cleaned"] = case.strategy.cleaned
                gc.collect()
                told["noise"], noises[:] = list(noises), []
                told["after"] = run(echo, ["x", "y"]).succeeded
                _say(told)
    _say({"ends": True})


def _results(answer: Any) -> list[Any]:
    results = getattr(answer, "results", answer)
    return [result for result in results if hasattr(result, "error")] if isinstance(results, list) else []


if __name__ == "__main__":
    main(*sys.argv[1:])
