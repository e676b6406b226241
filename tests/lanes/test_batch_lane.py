"""Requests in batches: the same results as live ones, found again by later runs, never paid for twice."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from datetime import timedelta

import pytest

from batch_llm import (
    BatchSettings,
    EmbeddingStrategy,
    GuardrailConfig,
    LLMWorkItem,
    ParallelBatchProcessor,
    ProcessorConfig,
    inspect,
    llm,
    process_prompts,
    process_stream,
    run,
    run_frame,
)
from batch_llm._lanes import tickets
from batch_llm._shown import amount
from batch_llm.artifacts import store_at
from batch_llm.cli.collecting import collect
from batch_llm.testing import BatchFault, FakeStrategy

from .common import FAST, MODELS, of, simulated

PROMPTS = [f"prompt {number}" for number in range(40)]


@dataclasses.dataclass
class Rating:
    score: int
    reason: str


def plain(result):
    """What is the same in every lane."""
    own = ("lane", "batch_id", "request_id", "processing_ms", "first_token_seconds", "service_tier", "limits")
    metadata = {name: value for name, value in (result.metadata or {}).items() if name not in own}
    return result.output, result.token_usage, metadata, result.error_category


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("options", [{}, {"response_model": Rating}, {"system_prompt": "Be brief.", "max_tokens": 9}])
def test_results_are_those_of_live_requests(tmp_path, name, options):
    with simulated() as provider:
        strategy, batched = of(provider, name, tmp_path / "run.db", **options)
        batch = run(strategy, PROMPTS, preserve_order=True, **batched)
        live = {key: batched[key] for key in ("api_key", "base_url", *options)}
        expected = run(strategy, PROMPTS, preserve_order=True, stream=False, **live)
        ledger = provider.batches
    assert batch.succeeded + batch.failed == len(PROMPTS)
    assert [plain(result) for result in batch.results] == [plain(result) for result in expected.results]
    assert {result.metadata["lane"] for result in batch.results if result.success} <= {"batch"}
    assert ledger.violations == []
    assert ledger.batch.answers == len(PROMPTS)
    assert all(made <= 1 for made in ledger.per_nonce.values())


def test_answers_cost_half(tmp_path):
    with simulated() as provider:
        strategy, batched = of(provider, "openai", tmp_path / "run.db")
        batch = run(strategy, PROMPTS, **batched)
        ledger = provider.batches
    assert inspect(tmp_path / "run.db").cost == pytest.approx(ledger.batch.cost)
    assert f"${amount(ledger.batch.cost)} by list prices" in str(batch.summary())
    [ticket] = tickets(tmp_path / "run.db")
    assert ticket.cost == pytest.approx(ledger.batch.cost)


def test_wait_false_leaves_all_in_batches_for_the_next_run(tmp_path):
    store = tmp_path / "run.db"
    with simulated(delay=5.0) as provider:
        strategy, batched = of(provider, "openai", store)
        left = run(strategy, PROMPTS, **batched, wait=False)
        assert (left.succeeded, left.failed, len(left.pending)) == (0, 0, len(PROMPTS))
        assert left.termination.kind == "in_batch"
        assert (left.stats.failed, left.stats.not_sent, left.stats.failure) == (0, len(PROMPTS), "")
        assert "failed" not in left.stats.explain()
        assert {result.error_category for result in left.results} == {"in_batch"}
        assert sum(ticket.requests for ticket in tickets(store) if ticket.is_open) == len(PROMPTS)
        provider.advance(hours=1)
        batch = run(strategy, PROMPTS, **batched)
        again = run(strategy, PROMPTS, **batched)
        ledger = provider.batches
    assert (batch.succeeded, again.succeeded, len(again.pending)) == (len(PROMPTS), len(PROMPTS), 0)
    assert {result.reused for result in again.results} == {"store"}
    assert (ledger.calls["create"], ledger.batch.answers, ledger.live.answers) == (1, len(PROMPTS), 0)


def test_batch_timeout_leaves_batches_for_the_next_run(tmp_path):
    config = ProcessorConfig(guardrails=GuardrailConfig(batch_timeout=1.0))
    with simulated(delay=3600.0) as provider:
        strategy, batched = of(provider, "openai", tmp_path / "run.db")
        left = run(strategy, PROMPTS, **batched, config=config)
        assert (left.succeeded, left.termination.kind) == (0, "batch_timeout")
        assert {result.error_category for result in left.results} == {"batch_deadline_exceeded"}
        provider.advance(hours=2)
        batch = run(strategy, PROMPTS, **batched)
        ledger = provider.batches
    assert batch.succeeded == len(PROMPTS)
    assert (ledger.calls["create"], ledger.batch.answers, ledger.live.answers) == (1, len(PROMPTS), 0)


def test_the_next_run_may_ask_for_more_or_less(tmp_path):
    store = tmp_path / "run.db"
    with simulated() as provider:
        strategy, batched = of(provider, "anthropic", store)
        run(strategy, PROMPTS, **batched, wait=False)
        first = run(strategy, PROMPTS[:10], **batched)
        rest = run(strategy, [*PROMPTS, "one more"], **batched)
        ledger = provider.batches
    assert (first.succeeded, rest.succeeded) == (10, len(PROMPTS) + 1)
    assert (ledger.calls["create"], ledger.batch.answers) == (2, len(PROMPTS) + 1)


def test_equal_prompts_have_a_line_each(tmp_path):
    with simulated() as provider:
        strategy, batched = of(provider, "openai", tmp_path / "run.db")
        run(strategy, ["same"] * 5, **batched, wait=False)
        batch = run(strategy, ["same"] * 5, **batched)
        assert (batch.succeeded, provider.batches.batch.answers) == (5, 5)


FAULTS = {
    "create_lost": 1, "create_lost label_dropped": 1, "create_500_not_made": 2, "expire_after:0.6": 2,
    "cancel_after:0.5": 2, "drop_lines": 2, "repeat_lines": 1, "shuffle": 1, "foreign_lines": 1, "no_output_file": 2,
}  # fmt: skip
"""What goes wrong in each provider's own way, and how many batches are made then."""

COMMON_FAULTS = {
    "create_500_made": 1, "queue_full:late": 2, "cut_download": 1, "u2028": 1, "no_content_type": 1, "404_for:0.3": 1,
    "upload_cut": 1, "empty_error_file": 1,
}  # fmt: skip
"""The same where one way is enough."""

INLINE = ("anthropic", "openrouter")
"""Requests come with the creation, and nothing can be marked."""

CASES = [
    *((name, kind) for name in MODELS if name not in ("responses", "azure", "groq") for kind in FAULTS),
    *((name, "create_lost label_dropped") for name in ("azure", "groq")),
    *((name, kind) for name in ("openai", "gemini", "anthropic") for kind in COMMON_FAULTS),
]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_whatever_goes_wrong_all_is_answered_and_nothing_is_paid_twice(tmp_path, name, kind):
    if name in INLINE and ("label" in kind or kind == "upload_cut"):
        pytest.skip("it has no such thing")
    if name != "openai" and kind.startswith("queue"):
        pytest.skip("it refuses at once")
    # A batch expires after a day, or two.
    clock = {"delay": 3600.0, "time_scale": 500_000.0} if kind.startswith("expire") else {}
    faults = [BatchFault(fault, on=[1]) for fault in kind.split()]
    with simulated(**clock, faults=faults) as provider:
        strategy, batched = of(provider, name, tmp_path / "run.db")
        batch = run(strategy, PROMPTS, **batched)
        ledger = provider.batches
    assert batch.succeeded == len(PROMPTS), batch.results[0].error
    assert ledger.live.answers == 0
    assert ledger.calls["create"] == {**FAULTS, **COMMON_FAULTS}[kind]
    assert (ledger.batch.answers, ledger.paid_twice) == (len(PROMPTS), 0)
    assert [violation for violation in ledger.violations if violation.rule != "poll"] == []


@pytest.mark.parametrize(("fault", "failures"), [("line_status:400", 20), ("all_failed", 40)])
@pytest.mark.parametrize("name", [name for name in MODELS if name != "responses"])
def test_each_line_has_its_own_error(tmp_path, name, fault, failures):
    with simulated(faults=[BatchFault(fault, on=[1], lines=2)]) as provider:
        strategy, batched = of(provider, name, tmp_path / "run.db")
        batch = run(strategy, PROMPTS, **batched)
        assert provider.batches.calls["create"] == 1
    failed = [result for result in batch.results if not result.success]
    assert (batch.succeeded, len(failed)) == (len(PROMPTS) - failures, failures)
    assert {result.error_category for result in failed} == {"client_error"}


def test_what_a_provider_takes_live_alone_fails_alone(tmp_path):
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}
    prompts = ["a", [{"role": "user", "content": [{"type": "text", "text": "b"}, image]}]]
    with simulated() as provider:
        strategy, batched = of(provider, "openrouter", tmp_path / "run.db")
        batch = run(strategy, prompts, preserve_order=True, **batched)
    assert [result.success for result in batch.results] == [True, False]
    assert "in batches only by URL; use lane='live'" in str(batch.results[1].error)


def test_failed_lines_are_tried_again_as_attempts(tmp_path):
    with simulated(faults=[BatchFault("line_status:500", on=[1], lines=4)]) as provider:
        strategy, batched = of(provider, "openai", tmp_path / "run.db")
        batch = run(strategy, PROMPTS, **batched)
    assert batch.succeeded == len(PROMPTS)
    assert {result.attempts for result in batch.results} == {1, 2}


def test_bad_lines_fail_with_their_error_and_the_others_do_not(tmp_path):
    with simulated(faults=[BatchFault("line_status:400", on=[1], lines=8)]) as provider:
        strategy, batched = of(provider, "openai", tmp_path / "run.db")
        batch = run(strategy, PROMPTS, **batched)
    assert (batch.succeeded, batch.failed) == (35, 5)
    assert {result.error_category for result in batch.results if not result.success} == {"client_error"}


def test_a_wrong_key_is_told_at_once(tmp_path):
    with simulated(delay=3600.0) as provider:  # it is still open when the second run begins
        strategy, batched = of(provider, "openai", tmp_path / "run.db")
        run(strategy, PROMPTS, **batched, wait=False)
        with pytest.raises(ValueError, match="another API key"):
            run(strategy, PROMPTS, **{**batched, "api_key": "another"})
        provider.advance(hours=1)
        assert run(strategy, PROMPTS, **batched).succeeded == len(PROMPTS)
        assert provider.batches.calls["create"] == 1


def test_one_process_at_a_time_has_batches_in_a_store(tmp_path):
    async def both(provider):
        strategy, batched = of(provider, "openai", tmp_path / "run.db")
        first = asyncio.create_task(process_prompts(strategy, PROMPTS, **batched))
        await asyncio.sleep(0.05)
        with pytest.raises(Exception, match="one process at a time"):
            await process_prompts(strategy, PROMPTS, **batched)
        return await first

    with simulated() as provider:
        assert asyncio.run(both(provider)).succeeded == len(PROMPTS)


def test_a_stream_yields_results_as_batches_end(tmp_path):
    async def taken(provider):
        strategy, batched = of(provider, "openai", tmp_path / "run.db", batches=dataclasses.replace(FAST, size=10))
        return [result.output async for result in process_stream(strategy, PROMPTS, **batched)]

    with simulated() as provider:
        assert len(asyncio.run(taken(provider))) == len(PROMPTS)
        assert provider.batches.calls["create"] >= 4


def test_a_budget_holds_at_the_price_of_batches(tmp_path):
    config = ProcessorConfig(guardrails=GuardrailConfig(max_total_cost=0.0005))
    with simulated() as provider:
        strategy, batched = of(provider, "openai", tmp_path / "run.db", max_tokens=20)
        batch = run(strategy, [f"prompt {number}" for number in range(400)], config=config, **batched)
        ledger = provider.batches
    assert batch.termination.kind == "budget_exceeded"
    assert 0 < ledger.batch.cost <= 0.0005


def test_a_deadline_ends_the_run_and_leaves_batches(tmp_path):
    with simulated(delay=60.0) as provider:
        strategy, batched = of(provider, "openai", tmp_path / "run.db")
        batch = run(strategy, PROMPTS, **batched, deadline=timedelta(seconds=0.5))
        assert (batch.termination.kind, len(batch.pending)) == ("in_batch", len(PROMPTS))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"store": None}, "needs a store"),
        ({"store": "runs.segments/"}, "store in one file"),
        ({"lane": "batches"}, "lane must be one of"),
        ({"deadline": -1}, "deadline must be > 0"),
        ({"lane": "live", "deadline": 5}, "batch_timeout"),
        ({"lane": "live", "wait": False}, "wait needs"),
    ],
)
def test_what_cannot_work_is_rejected_at_once(tmp_path, monkeypatch, options, says):
    monkeypatch.chdir(tmp_path)
    with simulated() as provider:
        strategy, batched = of(provider, "openai", tmp_path / "run.db")
        given = {name: value for name, value in {**batched, **options}.items() if value is not None}
        if given["lane"] == "live":
            given.pop("batches")
        with pytest.raises(ValueError, match=says):
            run(strategy, PROMPTS, **given)


def test_other_strategies_are_rejected(tmp_path):
    with pytest.raises(TypeError, match="needs a native strategy"):
        run(FakeStrategy("x"), ["a"], lane="batch", store=tmp_path / "run.db")
    with pytest.raises(ValueError, match="ollama has no batches"):
        run(llm("ollama:llama3"), ["a"], lane="batch", store=tmp_path / "run.db")
    with pytest.raises(ValueError, match="fixed api_key"):
        run(llm("openai:gpt-5-mini", api_key=lambda: "k"), ["a"], lane="batch", store=tmp_path / "run.db")


def test_settings_are_checked():
    for wrong in ({"size": 0}, {"linger": -1}, {"first_poll": 0}, {"longest_poll": 0.5}, {"list_delays": ()}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            BatchSettings(**wrong)


def test_what_is_left_behind_is_said(tmp_path, caplog):
    caplog.set_level(logging.INFO, "batch_llm")
    with simulated(delay=60.0) as provider:
        strategy, batched = of(provider, "openai", tmp_path / "run.db")
        run(strategy, PROMPTS, **batched, wait=False)
    assert f"batch-llm collect {tmp_path / 'run.db'}" in caplog.text


EMBEDDERS = {
    "openai": "text-embedding-3-small",
    "mistral": "mistral-embed",
    "gemini": "gemini-embedding-001",
}


@pytest.mark.parametrize("name", EMBEDDERS)
@pytest.mark.parametrize("dimensions", [None, 64])
def test_vectors_are_those_of_live_requests(tmp_path, name, dimensions):
    with simulated() as provider:

        def strategy():
            model, url = f"{name}:{EMBEDDERS[name]}", provider.batch_url(name)
            return EmbeddingStrategy(model, base_url=url, dimensions=dimensions)

        store = tmp_path / "run.db"
        left = run(strategy(), PROMPTS, lane="batch", store=store, batches=FAST, wait=False)
        assert len(left.pending) == len(PROMPTS)
        if dimensions is None:
            [ticket] = asyncio.run(collect(store_at(store), settings=FAST))
            assert (ticket.stage, ticket.waiting) == ("collected", len(PROMPTS))
        batch = run(strategy(), PROMPTS, lane="batch", store=store, batches=FAST, preserve_order=True)
        expected = run(strategy(), PROMPTS, preserve_order=True)
        ledger = provider.batches
    assert batch.succeeded == len(PROMPTS)
    assert [result.output for result in batch.results] == [result.output for result in expected.results]
    tokens = [sum(result.token_usage["input_tokens"] for result in some.results) for some in (batch, expected)]
    assert tokens[0] == tokens[1]
    assert (ledger.calls["create"], ledger.violations, ledger.batch.answers) == (1, [], len(PROMPTS))


def test_providers_without_batches_for_embeddings_say_so(tmp_path):
    for name in ("azure:text-embedding-3-small", "together:bge-base"):
        strategy = EmbeddingStrategy(name, api_key="key", base_url="http://localhost:1/v1")
        with pytest.raises(ValueError, match="no batches for embeddings; use lane='live'"):
            run(strategy, ["a"], lane="batch", store=tmp_path / "run.db")


def test_rounds_of_conversations_wait_in_batches_each(tmp_path):
    def order_status(order: str = "A1") -> str:
        """Look up the status of an order."""
        return "shipped"

    with simulated() as provider:
        strategy, batched = of(provider, "openai", tmp_path / "run.db")
        batch = run(strategy, ["call order_status", "hello"], tools=[order_status], rounds=3, **batched)
        ledger = provider.batches
    assert batch.succeeded == 2
    assert sorted(result.rounds for result in batch.results) == [1, 2]
    assert (ledger.batch.answers, ledger.live.answers, ledger.paid_twice) == (3, 0, 0)


def test_frames_and_processors_take_lanes(tmp_path):
    pandas = pytest.importorskip("pandas")
    with simulated() as provider:
        strategy, batched = of(provider, "openai", tmp_path / "frame.db")
        where = {name: batched.pop(name) for name in ("api_key", "base_url")}
        frame = pandas.DataFrame({"prompt": PROMPTS[:5]})
        answered = run_frame(frame, "{prompt}", llm(strategy, **where), **batched)
        assert answered["output"].str.startswith("Simulated reply").all()

        async def processed():
            async with ParallelBatchProcessor(**{**batched, "store": tmp_path / "processor.db"}) as processor:
                own = llm(strategy, **where)
                for number, prompt in enumerate(PROMPTS[:5]):
                    await processor.add_work(LLMWorkItem(str(number), own, prompt))
                return await processor.process_all()

        assert asyncio.run(processed()).succeeded == 5
        assert provider.batches.live.answers == 0


@pytest.mark.soak
def test_results_that_are_gone_after_a_month_are_asked_for_once_more(tmp_path, caplog):
    # The program does not believe it at once: half a minute.
    with simulated() as provider:
        strategy, batched = of(provider, "openai", tmp_path / "run.db")
        run(strategy, PROMPTS, **batched, wait=False)
        provider.advance(hours=31 * 24)
        batch = run(strategy, PROMPTS, **batched)
        again = run(strategy, PROMPTS, **batched)
        ledger = provider.batches
    assert (batch.succeeded, again.succeeded) == (len(PROMPTS), len(PROMPTS))
    assert caplog.text.count("are gone at the provider; its requests are sent again") == 1
    assert ledger.calls["create"] == 2


@pytest.mark.parametrize("name", ["openai", "anthropic", "gemini"])
def test_the_same_run_without_waiting_collects_what_has_ended(tmp_path, name):
    """As a scheduled job does: it never waits, and finds the answers the next time."""
    with simulated() as provider:
        strategy, batched = of(provider, name, tmp_path / "run.db")
        left = run(strategy, PROMPTS, **batched, wait=False)
        assert len(left.pending) == len(PROMPTS)
        again = run(strategy, [*PROMPTS, "one more"], **batched, wait=False)
        assert len(again.pending) + again.succeeded == len(PROMPTS) + 1
        assert len(again.pending) >= 1, "the new one"
        provider.advance(hours=1)
        last = run(strategy, [*PROMPTS, "one more"], **batched, wait=False)
        assert (last.succeeded, last.pending) == (len(PROMPTS) + 1, [])
        assert provider.batches.paid_twice == 0


def test_batches_are_as_large_as_they_may_be_where_labels_tell_them_apart(tmp_path):
    with simulated() as provider:
        strategy, batched = of(provider, "openai", tmp_path / "run.db")
        batched["batches"] = dataclasses.replace(batched["batches"], size=10)
        batch = run(strategy, [f"prompt {number}" for number in range(60)], **batched)
        assert (batch.succeeded, provider.batches.calls["create"]) == (60, 6)
