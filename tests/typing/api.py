"""Never run: type checkers read it, and so it keeps the types of the interface honest."""

from __future__ import annotations

from typing import Any, TypedDict

from typing_extensions import assert_type

from batch_llm import (
    AnthropicStrategy,
    BatchResult,
    BlockingResultStream,
    CallableStrategy,
    EmbeddingStrategy,
    GoogleStrategy,
    LLMCallPool,
    LLMCallStrategy,
    LLMWorkItem,
    NativeStrategy,
    OpenAIStrategy,
    ParallelBatchProcessor,
    PoolStats,
    ProcessorConfig,
    ProviderError,
    ResultStream,
    RetryState,
    SqliteArtifactStore,
    TokenUsage,
    WorkItemResult,
    WorkItemTiming,
    __version__,
    attach,
    call,
    call_result,
    llm,
    process_prompts,
    process_stream,
    read_in_thread,
    run,
    stream,
)
from batch_llm.results import Result
from batch_llm.testing import FakeStrategy, Fault, SimulatedProvider


class Point(TypedDict):
    x: int


class Length(LLMCallStrategy[int]):
    async def execute(
        self, prompt: str, attempt: int, timeout: float, state: RetryState | None = None
    ) -> tuple[int, TokenUsage]:
        return len(prompt), {"input_tokens": 1}


def on_progress(completed: int, total: int, item_id: str) -> None: ...


async def on_result(result: WorkItemResult[int, dict[str, str]]) -> None:
    assert_type(result.output, int | None)
    assert_type(result.context, dict[str, str] | None)


async def main() -> None:
    assert_type(__version__, str)
    async with ParallelBatchProcessor[str, int, dict[str, str]](
        config=ProcessorConfig(max_workers=3), post_processor=on_result, progress_callback=on_progress
    ) as processor:
        await processor.add_work(LLMWorkItem("a", Length(), "prompt", {"k": "v"}))
        batch = await processor.process_all()
        assert_type(batch, BatchResult[int, dict[str, str]])
        assert_type(await processor.get_stats(), dict[str, Any])
    with SimulatedProvider(faults=[Fault(429, every=10)]) as provider:
        strategy = OpenAIStrategy("model", base_url=provider.base_url)
        assert_type(strategy, OpenAIStrategy[str])
        output, usage, metadata = await strategy.execute("prompt", 1, 10.0)
        assert_type(output, str)
        assert_type(usage, TokenUsage)
        assert_type(metadata, dict[str, Any])
    assert_type(AnthropicStrategy("model", response_model=Point), AnthropicStrategy[Point])
    assert_type(GoogleStrategy("model", response_parser=len), GoogleStrategy[int])
    assert_type(OpenAIStrategy[int]("model", response_model={"type": "integer"}), OpenAIStrategy[int])
    assert_type(llm("openai:model", response_model={"type": "integer"}), NativeStrategy[Any])
    assert_type(llm("openai:model", temperature=0), NativeStrategy[str])
    assert_type(llm("groq:model", response_model=Point), NativeStrategy[Point])


async def shout(prompt: str) -> str:
    return prompt.upper()


async def surfaces() -> None:
    assert_type(run(Length(), ["a"]), BatchResult[int, Any])
    assert_type(run("openai:model", ["a"]), BatchResult[str, Any])
    assert_type(run("openai:model", ["a"], temperature=0, store="a.db"), BatchResult[str, Any])
    assert_type(run("openai:model", ["a"], response_model=Point, max_tokens=5), BatchResult[Point, Any])
    assert_type(run("openai:model", ["a"], response_parser=len), BatchResult[int, Any])
    assert_type(run("openai:model", ["a"], response_model={"type": "integer"}), BatchResult[Any, Any])
    assert_type(await process_prompts("openai:model", ["a"], system_prompt="Be brief."), BatchResult[str, Any])
    assert_type(await process_prompts("openai:model", ["a"], response_model=Point), BatchResult[Point, Any])
    assert_type(stream("openai:model", ["a"], response_model=Point, ordered=True), BlockingResultStream[Point])
    assert_type(process_stream("openai:model", ["a"], on_interrupt="return"), ResultStream[str])
    assert_type(process_stream("openai:model", read_in_thread(["a"])), ResultStream[str])
    assert_type(await call("openai:model", "a", temperature=0), str)
    assert_type(await call("openai:model", "a", response_model=Point), Point)
    assert_type(await call_result("openai:model", "a"), Result[str, Any])
    assert_type(run(shout, [("id", "a")], progress="rich", timeout_per_item=3.0), BatchResult[Any, Any])
    assert_type(await process_prompts(Length(), ["a"], config=ProcessorConfig()), BatchResult[int, Any])
    async for result in process_stream(Length(), (str(n) for n in range(3)), ordered=True):
        assert_type(result.output, int | None)
        assert_type(result.timing, WorkItemTiming)
    for result in stream(Length(), ["a"]):
        assert_type(result, Result[int, Any])
    assert_type(await call(Length(), "a"), int)
    assert_type(await call_result(Length(), "a"), Result[int, Any])
    async with LLMCallPool(Length(), max_pending=3, store="a.db", dedupe=True) as pool:
        assert_type(await pool.submit("a"), int)
        assert_type(await pool.submit_many(["a"]), list[Result[int, Any]])
        assert_type(pool.stats(), PoolStats)
    batch = run(Length(), ["a"])
    for result in batch.results:
        one: WorkItemResult[int, Any] = result
        assert_type(one.output, int | None)
        if result.success is True:  # what pyright reads too
            assert_type(result.output, int)
        else:
            assert_type(result.output, None)
            assert_type(result.error, str)
    assert_type(batch[0].item_id, str)
    assert_type([result.item_id for result in batch[1:]], list[str])
    assert_type([result.output for result in batch.successes], list[int])
    assert_type([result.error for result in batch.failures], list[str])
    BatchResult([WorkItemResult("a", True, 1)])
    assert_type(batch.outputs(), list[int])
    assert_type(batch.outputs(with_ids=True), list[tuple[str, int]])
    assert_type(batch.summary(), str)
    assert_type(FakeStrategy("x"), FakeStrategy[str])


def options_have_types() -> None:
    # mypy says so where one of these is no error any more.
    ProviderError("no", status_code=429, token_usage={"input_tokens": 3}, was_sent=False)
    ProviderError("no", status_code="429")  # type: ignore[arg-type]
    CallableStrategy(shout, threads=True, quota_scope="ours")
    CallableStrategy(shout, scopes="ours")  # type: ignore[call-arg]
    EmbeddingStrategy("openai:model", dimensions=3, extra_headers={"a": "b"})
    EmbeddingStrategy("openai:model", extra_headers=["a"])  # type: ignore[arg-type]
    SqliteArtifactStore("a.db", include_prompt=True, durability="full")
    SqliteArtifactStore("a.db", include_prompt="all")  # type: ignore[arg-type]
    LLMCallPool(Length(), store="a.db", observers=[])
    LLMCallPool(Length(), dedupe="yes")  # type: ignore[arg-type]
    ParallelBatchProcessor[str, int, None](3, store="a.db", progress_bar="rich")
    ParallelBatchProcessor[str, int, None](3, keep_prompts="yes")  # type: ignore[arg-type]
    SimulatedProvider(0.1, seed=3, requests_per_minute=60)
    SimulatedProvider(0.1, seed="3")  # type: ignore[arg-type]


async def control() -> None:
    handle = attach("nightly")
    status = await handle.status()
    assert_type(status["progress"]["succeeded"], int)
    assert_type(status["cost"], float | None)
    assert_type((await handle.set(concurrency=3, deadline="1h"))["dry_run"], bool)
    assert_type(handle.sync.explain()["text"], str)
    assert_type((await handle.wait())["exit_code"], int | None)
