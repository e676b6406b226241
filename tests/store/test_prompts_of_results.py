"""``result.prompt``: what was asked, on every surface, by reference; and ``keep_prompts=False``, that lets go."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import sys
import weakref

import pytest
from click.testing import CliRunner

import batch_llm
from batch_llm import (
    BatchResult,
    CallableStrategy,
    GuardrailConfig,
    Image,
    LLMCallPool,
    LLMWorkItem,
    Middleware,
    ParallelBatchProcessor,
    ProcessorConfig,
    RetryConfig,
    SqliteArtifactStore,
    llm,
    process_prompts,
    run,
    stream,
)
from batch_llm.cli.main import main
from batch_llm.testing import SimulatedProvider

ONCE = ProcessorConfig(retry=RetryConfig(max_attempts=1))


class Text(str):
    """A text of which it can be seen whether anybody holds it."""


async def echo(prompt):
    if prompt == "bad":
        raise ValueError("no")
    return prompt.upper()


def observed(result):
    """A post-processor, which makes items take the way of those that somebody looks at."""


@pytest.mark.parametrize("options", [{}, {"post_processor": observed}], ids=["plain", "observed"])
def test_every_result_has_the_very_prompt(options):
    prompts = [Text(f"p{number}") for number in range(50)] + [Text("bad")]
    batch = run(echo, prompts, config=ONCE, **options)
    assert all(result.prompt is prompts[result.submission_index] for result in batch)
    assert not batch.by_id()["item_50"].success
    kept_not = run(echo, prompts, config=ONCE, keep_prompts=False, **options)
    assert [result.prompt for result in kept_not] == [None] * 51


@pytest.mark.parametrize("options", [{}, {"post_processor": observed}], ids=["direct", "observed"])
def test_native_strategies_too(options):
    with SimulatedProvider() as provider:
        strategy = llm("openai:any", base_url=provider.base_url, api_key="any")
        prompts = [f"p{number}" for number in range(200)]
        batch = run(strategy, prompts, **options)
        assert all(result.prompt is prompts[result.submission_index] for result in batch)
        messages = [{"role": "user", "content": "x"}]
        assert run(strategy, [messages], **options).results[0].prompt is messages
        assert {result.prompt for result in run(strategy, prompts, keep_prompts=False, **options)} == {None}


def test_items_that_were_never_sent_have_theirs():
    config = ProcessorConfig(guardrails=GuardrailConfig(max_total_tokens=10), max_workers=1)

    async def ask(prompt):
        return prompt, {"input_tokens": 8, "output_tokens": 8}

    batch = run(ask, [f"p{number}" for number in range(9)], config=config)
    assert batch.not_sent == 9
    assert {result.prompt for result in batch} == {f"p{number}" for number in range(9)}


def test_reused_results_have_theirs(tmp_path):
    prompts = ["a", "a", "b"]
    for keep in (True, False):
        for _ in range(2):
            batch = run(echo, prompts, store=tmp_path / "s.db", cache=tmp_path / "c.db", dedupe=True, keep_prompts=keep)
            expected = prompts if keep else [None] * 3
            assert [result.prompt for result in batch.in_input_order()] == expected
    assert all(result.reused for result in batch)


def test_the_configuration_says_it_too():
    config = ProcessorConfig(keep_prompts=False)
    assert run(echo, ["a"], config=config).results[0].prompt is None
    assert run(echo, ["a"], config=config, keep_prompts=True).results[0].prompt == "a"
    assert next(stream(echo, ["a"])).prompt == "a"


async def test_middlewares_processors_and_pools():
    class Politely(Middleware):
        async def before_process(self, work_item):
            work_item.prompt = f"please {work_item.prompt}"
            return work_item

        async def after_process(self, result):
            return result

        async def on_error(self, work_item, error):
            return None

    batch = await process_prompts(echo, ["a"], middlewares=[Politely()])
    assert batch.results[0].prompt == "please a"
    async with ParallelBatchProcessor() as processor:
        await processor.add_work(LLMWorkItem("1", echo, "x"))
        assert (await processor.process_all()).results[0].prompt == "x"
    async with LLMCallPool(echo) as pool:
        assert (await pool.submit_result("x")).prompt == "x"


@pytest.mark.parametrize("keep", [True, False])
def test_prompts_that_were_made_on_the_fly_are_let_go_of(keep):
    alive: list = []

    def prompts():
        for number in range(300):
            prompt = Text(f"p{number}")
            alive.append(weakref.ref(prompt))
            yield prompt

    async def ask(prompt):
        return "answer"

    batch = run(ask, prompts(), keep_prompts=keep)
    gc.collect()
    assert batch.succeeded == 300
    assert sum(one() is not None for one in alive) == (300 if keep else 0)


def test_they_are_not_copied():
    prompt = "x " * 1000  # no name, which would be immortal
    before = sys.getrefcount(prompt)
    batch = run(echo, [prompt] * 10)
    assert sys.getrefcount(prompt) >= before + 10
    assert all(result.prompt is prompt for result in batch)


def test_they_are_in_tables():
    batch = run(echo, ["a", "bad"], config=ONCE)
    assert list(batch.to_pandas()["prompt"]) == ["a", "bad"]
    assert batch.to_polars()["prompt"].to_list() == ["a", "bad"]
    assert batch.to_arrow()["prompt"].to_pylist() == ["a", "bad"]
    assert [row["prompt"] for row in batch.to_records()] == ["a", "bad"]
    assert "prompt" not in run(echo, ["a"], keep_prompts=False).to_pandas()


PICTURE = ["What is it?", Image(b"\x89PNG\r\n\x1a\n")]


def answer(prompt):
    return "a cat"


def test_prompts_of_any_kind_are_in_tables_json_and_pickles(tmp_path):
    batch = run(answer, [PICTURE, [{"role": "user", "content": "hi"}], "text"]).in_input_order()
    assert batch.to_pandas()["prompt"][0] is PICTURE
    assert batch.to_polars()["prompt"].to_list()[1:] == ['[{"role": "user", "content": "hi"}]', "text"]
    assert "Image(image/png" in batch.to_arrow()["prompt"].to_pylist()[0]
    batch.to_jsonl(tmp_path / "x.jsonl")
    again = BatchResult.from_jsonl(tmp_path / "x.jsonl")
    assert again == batch
    assert [result.prompt for result in again][1:] == [[{"role": "user", "content": "hi"}], "text"]
    assert again.results[0].prompt[0] == "What is it?"
    assert "Image(image/png" in again.results[0].prompt[1]
    assert [repr(result.prompt) for result in pickle.loads(pickle.dumps(batch))] == [repr(r.prompt) for r in batch]
    assert copy.deepcopy(batch).results[2].prompt == "text"
    without = run(answer, ["text"], keep_prompts=False)
    assert "prompt" not in without.to_dict()["results"][0]


def test_they_are_in_reports_shortened(tmp_path):
    batch = run(answer, ["<b>short</b>", "long " * 10_000, PICTURE])
    batch.report(tmp_path / "x.html")
    page = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert r"\u003cb\u003eshort\u003c/b\u003e" in page
    assert "<b>short" not in page
    assert "long " * 4_000 in page
    assert "long " * 4_001 not in page
    assert "Image(image/png" in page
    cell = batch._repr_html_()
    assert "&lt;b&gt;short&lt;/b&gt;" in cell
    assert len(cell) < len(page)
    run(answer, ["x"], keep_prompts=False).report(tmp_path / "y.html")


def test_they_are_in_what_inspect_returns_if_the_store_holds_them(tmp_path):
    run(echo, ["a", "b"], store=SqliteArtifactStore(tmp_path / "s.db", include_prompt=True))
    view = batch_llm.inspect(tmp_path / "s.db")
    assert sorted(result.prompt for result in view.results()) == ["a", "b"]
    assert sorted(view.to_pandas()["prompt"]) == ["a", "b"]
    run(echo, ["a"], store=tmp_path / "t.db")  # it succeeds
    assert [result.prompt for result in batch_llm.inspect(tmp_path / "t.db").results()] == [None]


def test_the_command_line_shows_that_of_a_failure(tmp_path):
    store = SqliteArtifactStore(tmp_path / "s.db", include_prompt=True)
    run(echo, ["bad", "good"], store=store, config=ONCE)
    said = CliRunner().invoke(main, ["inspect", "--failed", str(tmp_path / "s.db")])
    assert [json.loads(line)["prompt"] for line in said.output.splitlines()] == ["bad"]


def test_a_store_may_hold_those_of_failures_alone(tmp_path):
    run(echo, ["bad", "good"], store=SqliteArtifactStore(tmp_path / "s.db", include_prompt="failures"), config=ONCE)
    prompts = {result.success: result.prompt for result in batch_llm.inspect(tmp_path / "s.db").results()}
    assert prompts == {True: None, False: "bad"}


@pytest.mark.parametrize("name", ["s.db", "s.jsonl"])
def test_stores_hold_those_of_failures_by_default(tmp_path, name):
    long = "bad\x1b[2J\nprompt " + "word " * 1000
    run(picky, [("one", "bad"), "good", ("two", long)], store=tmp_path / name, config=ONCE)
    view = batch_llm.inspect(tmp_path / name)
    prompts = {result.item_id: result.prompt for result in view.results()}
    assert prompts == {"one": "bad", "item_1": None, "two": long}
    assert b"good" not in (tmp_path / name).read_bytes()
    said = CliRunner().invoke(main, ["inspect", str(tmp_path / name)]).output
    assert said == view.summary() + "\n"
    lines = said.splitlines()
    place = lines.index("    prompt: bad")
    assert lines[place - 1].startswith("one: ValueError")
    (shown,) = [line for line in lines if line.startswith("    prompt: bad\\x1b[2J prompt word word")]
    assert shown.endswith("...")
    assert len(shown) < 200


def test_stores_may_hold_fingerprints_only(tmp_path):
    run(echo, ["bad"], store=SqliteArtifactStore(tmp_path / "s.db", include_prompt=False), config=ONCE)
    assert [result.prompt for result in batch_llm.inspect(tmp_path / "s.db").results()] == [None]
    assert "prompt:" not in batch_llm.inspect(tmp_path / "s.db").summary()


def test_a_summary_of_a_store_shows_some_failures(tmp_path):
    run(echo, ["bad"] * 12 + ["good"] * 3, store=tmp_path / "s.db", config=ONCE)
    lines = batch_llm.inspect(tmp_path / "s.db").summary().splitlines()
    assert lines.count("    prompt: bad") == 5
    assert lines[-1] == "... and 7 more that failed"


def test_a_prompt_that_cannot_be_stored_does_not_hide_why_its_item_failed(tmp_path):
    def encoder(value):
        raise TypeError("none of mine")

    def spoil(prompt):
        prompt.append(object())
        raise ValueError("refused")

    store = SqliteArtifactStore(tmp_path / "s.db", encoder=encoder)
    batch = run(CallableStrategy(spoil, threads=True), [("one", ["text"])], store=store, config=ONCE)
    assert "refused" in batch[0].error
    (stored,) = batch_llm.inspect(tmp_path / "s.db").results()
    assert (stored.error, stored.prompt) == (batch[0].error, None)


async def picky(prompt):
    if prompt.startswith("bad"):
        raise ValueError("no")
    return prompt.upper()
