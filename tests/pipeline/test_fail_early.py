"""A run whose first answers all say that nothing of it can succeed ends at once; any other goes on."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import pytest
from click.testing import CliRunner

from batch_llm import (
    GuardrailConfig,
    LLMCallPool,
    LLMWorkItem,
    MetricsObserver,
    ParallelBatchProcessor,
    ProcessorConfig,
    process_prompts,
    run,
    stream,
)
from batch_llm._pipeline.fail_early import fatal_kind
from batch_llm.cli.main import main
from batch_llm.strategies.errors import ErrorInfo

from ..helpers import Echo, Scripted
from ..served import Gate, answer, serve

WRONG_KEY = (401, {"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}, {})
REFUSALS = {
    "a wrong key": (WRONG_KEY, "authentication", "HTTP 401"),
    "not allowed": ((403, {"error": {"message": "no access"}}, {}), "permission_denied", "may use the model 'm'"),
    "no such model": ((404, {"error": {"message": "no such model"}}, {}), "model_not_found", "the model's name 'm'"),
    "no such model, OpenRouter": (
        (400, {"error": {"message": "openai/gpt-5-minni is not a valid model ID", "code": 400}}, {}),
        "model_not_found",
        "the model's name 'm'",
    ),
    "no such model, Mistral": (
        (400, {"object": "error", "message": "Invalid model: huge", "type": "invalid_model", "code": "1500"}, {}),
        "model_not_found",
        "the model's name 'm'",
    ),
    "no money": ((402, {"error": {"message": "pay"}}, {}), "insufficient_balance", "add credit"),
    "no quota": (
        (429, {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}, {}),
        "insufficient_balance",
        "add credit",
    ),
}


NO_MODEL = (
    "The provided model identifier is invalid.",
    "Model Not Exist",
    "The model `qwen-9` does not exist or you do not have access to it.",
    "The requested model 'a/b:c' does not exist",
    "invalid params, unknown model 'abab9'",
    "Invalid model name passed in model=gpt-9.1. Call `/v1/models` to view available models",
    "Invalid model 'sonar-9'. Permitted models can be found in the documentation",
    'model "llama9" not found, try pulling it first',
    "* GenerateContentRequest.model: unexpected model name format",
    "Unsupported model: x",
)
ANOTHER_MATTER = (
    "This model's maximum context length is 8192 tokens",
    "This model does not support image input",
    "Unsupported parameter: 'temperature' is not supported with this model.",
    "The model gpt-5 refused: the field 'seed' is invalid",
    "Invalid model output format: x",
    "tool 'model' not found in the list",
    "unknown field 'modle'",
)


@pytest.mark.parametrize("status", [400, 422])
def test_which_words_name_a_wrong_model(status):
    info = ErrorInfo(False, False, False, "client_error")
    for text in NO_MODEL:
        assert fatal_kind(StatusError(status, text), info) == "model_not_found", text
        assert fatal_kind(ValueError(text), info) is None
    for text in ANOTHER_MATTER:
        assert fatal_kind(StatusError(status, text), info) is None, text


class StatusError(Exception):
    """As SDKs raise them."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status_code = status


@pytest.fixture
def server():
    with serve(lambda body, number: answer("chat")) as served:
        yield served


@pytest.mark.parametrize("refusal", REFUSALS)
def test_it_costs_what_is_in_flight_and_no_more(server, refusal):
    reply, kind, words = REFUSALS[refusal]
    gate = Gate(20)
    server.reply = lambda body, number: gate.passed(reply)
    batch = run(server.strategy(), (f"{n}" for n in range(3000)), concurrency=20)
    assert len(server.bodies) == 20
    assert batch.succeeded == 0
    assert (batch.termination.kind, batch.termination.error_category) == ("fail_fast", kind)
    assert words in batch.termination.reason
    assert batch.termination.triggering_item_id in batch.by_id()


def test_auto_begins_small(server):
    server.reply = lambda body, number: WRONG_KEY
    assert run(server.strategy(), ["x"] * 3000).termination.kind == "fail_fast"
    assert len(server.bodies) < 50


def test_one_after_the_other(server):
    server.reply = lambda body, number: WRONG_KEY
    assert run(server.strategy(), ["x"] * 100, concurrency=1).termination.kind == "fail_fast"
    assert len(server.bodies) == 5


def test_fewer_items_than_it_takes_fail_as_usual(server):
    server.reply = lambda body, number: WRONG_KEY
    batch = run(server.strategy(), ["x"] * 4)
    assert (batch.failed, batch.termination.kind) == (4, "completed")


def test_it_names_the_variable_of_the_key(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "wrong")
    monkeypatch.setenv("OPENAI_BASE_URL", server.root + "/v1")
    server.reply = lambda body, number: WRONG_KEY
    assert "check OPENAI_API_KEY" in run("openai:gpt-5-mini", ["x"] * 100).termination.reason


def test_one_success_before_and_all_are_asked(server):
    server.reply = lambda body, number: answer("chat") if number == 0 else WRONG_KEY
    batch = run(server.strategy(), ["x"] * 60, concurrency=1)
    assert (len(server.bodies), batch.succeeded, batch.termination.kind) == (60, 1, "completed")


def test_another_answer_before_and_all_are_asked(server):
    server.reply = lambda body, number: (400, {"error": {"message": "too long"}}, {}) if number == 0 else WRONG_KEY
    batch = run(server.strategy(), ["x"] * 60, concurrency=1)
    assert (len(server.bodies), batch.termination.kind) == (60, "completed")


@pytest.mark.parametrize("concurrency", [1, 40])
def test_a_dead_key_among_good_ones_ends_nothing(server, concurrency):
    """Failures come sooner than answers."""

    def reply(body, number):
        if server.headers[number]["authorization"] != "Bearer good":
            return WRONG_KEY
        time.sleep(0.2)
        return answer("chat")

    server.reply = reply
    keys = ["dead-1", "dead-2", "dead-3", "good"]
    batch = run(server.strategy(api_key=keys), ["x"] * 80, concurrency=concurrency)
    assert batch.termination.kind == "completed"
    assert batch.succeeded == 20


def test_dead_keys_alone_end_it(server):
    server.reply = lambda body, number: WRONG_KEY
    batch = run(server.strategy(api_key=["a", "b", "c", "d"]), ["x"] * 500, concurrency=1)
    assert (len(server.bodies), batch.termination.kind) == (8, "fail_fast")


def test_a_request_that_hangs_does_not_hold_it_up(server):
    gate = threading.Event()

    def reply(body, number):
        if number == 0:
            gate.wait(1000)
        return WRONG_KEY

    server.reply = reply
    batch = run(server.strategy(), ["x"] * 500, concurrency=20)
    gate.set()
    assert batch.termination.kind == "fail_fast"
    assert len(server.bodies) <= 21


def test_a_setting_turns_it_off(server):
    server.reply = lambda body, number: WRONG_KEY
    config = ProcessorConfig(guardrails=GuardrailConfig(fail_early=False))
    batch = run(server.strategy(), ["x"] * 60, config=config)
    assert (len(server.bodies), batch.failed, batch.termination.kind) == (60, 60, "completed")
    with pytest.raises(ValueError, match="fail_early must be True or False"):
        GuardrailConfig(fail_early="no").validate()  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"observers": [MetricsObserver()]}, {"store": True}, {"post_processor": print}])
async def test_whatever_else_sees_the_items(server, tmp_path, options):
    if "store" in options:
        options = {"store": tmp_path / "run.db"}
    server.reply = lambda body, number: WRONG_KEY
    batch = await process_prompts(server.strategy(), ["x"] * 300, concurrency=10, **options)
    assert (len(server.bodies), batch.termination.kind) == (10, "fail_fast")


CUSTOM = {
    "401": StatusError(401, "who are you?"),
    "an SDK's 404": StatusError(404, "The model `gpt-7` does not exist"),
    "Google's": StatusError(400, "400 INVALID_ARGUMENT. API key not valid. Please pass a valid API key."),
}


@pytest.mark.parametrize("error", CUSTOM.values(), ids=CUSTOM)
async def test_strategies_of_ones_own(error):
    strategy = Scripted(lambda prompt, attempt: error)
    processor = ParallelBatchProcessor(config=ProcessorConfig(max_workers=10))
    for number in range(200):
        await processor.add_work(LLMWorkItem(f"{number}", strategy, "x"))
    batch = await processor.process_all()
    assert (len(strategy.calls), batch.termination.kind) == (10, "fail_fast")
    assert batch.total_items == 200


async def test_a_strategy_per_item():
    strategies = [Scripted(lambda prompt, attempt: CUSTOM["401"]) for _ in range(200)]
    items = [LLMWorkItem(f"{number}", strategy, "x") for number, strategy in enumerate(strategies)]
    batch = await process_prompts(Echo(), items, concurrency=10)
    assert (sum(len(strategy.calls) for strategy in strategies), batch.termination.kind) == (10, "fail_fast")


async def test_what_a_function_does_not_find_is_its_own_business():
    strategy = Scripted(lambda prompt, attempt: StatusError(404, f"no page {prompt}"))
    batch = await process_prompts(strategy, ["x"] * 60, concurrency=10)
    assert (batch.failed, batch.termination.kind) == (60, "completed")


@pytest.mark.parametrize("first", ["dead", "good"])
async def test_a_run_with_another_strategy_goes_on(server, first):
    server.reply = lambda body, number: WRONG_KEY
    items = [LLMWorkItem(f"dead-{n}", server.strategy(), "x") for n in range(30)]
    good = Echo(0.01)
    others = [LLMWorkItem(f"good-{n}", good, "x") for n in range(30)]
    items = items + others if first == "dead" else others + items
    batch = await process_prompts(good, items, concurrency=10)
    assert (batch.succeeded, batch.failed, batch.termination.kind) == (30, 30, "completed")


async def test_a_pool_lives_on(server):
    server.reply = lambda body, number: WRONG_KEY if number < 20 else answer("chat")
    async with LLMCallPool(server.strategy()) as pool:
        failed = await pool.submit_many(["x"] * 20)
        assert {result.error_category for result in failed} == {"authentication"}
        assert await pool.submit("x") == "hello"


async def test_an_interrupt_does_not_wait_for_it(server):
    gate = threading.Event()

    def reply(body, number):
        if number >= 3:
            gate.wait(30)
        return WRONG_KEY

    server.reply = reply
    results = stream(server.strategy(api_key=["a", "b"]), ["x"] * 50, concurrency=5, config=ProcessorConfig(
        interrupt_grace_seconds=0.2))  # fmt: skip
    threading.Timer(1.0, results.interrupt).start()
    got = await asyncio.to_thread(list, results)
    gate.set()
    assert results.termination.kind == "interrupted"
    assert sum(result.error_category == "authentication" for result in got) == 3


async def test_an_endless_source_is_read_no_further(server):
    server.reply = lambda body, number: WRONG_KEY

    def prompts():
        while True:
            yield "x"

    batch = await process_prompts(server.strategy(), prompts(), concurrency=5)
    assert (len(server.bodies), batch.termination.kind) == (5, "fail_fast")


def test_the_command_line(server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "wrong")
    monkeypatch.setenv("OPENAI_BASE_URL", server.root + "/v1")
    server.reply = lambda body, number: WRONG_KEY
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"prompt": f"{n}"}) + "\n" for n in range(300)))
    arguments = ["run", str(source), "-m", "openai:m", "-o", str(tmp_path / "out.jsonl"), "-q", "-c", "10"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 4, done.output
    assert "check OPENAI_API_KEY (--keep-going disables this check)" in done.output
    assert "GuardrailConfig" not in done.output
    assert "--failed" in done.output
    assert 10 <= len(server.bodies) < 15  # what was sent before the file was read so far does not tell yet
    before = len(server.bodies)
    done = CliRunner().invoke(main, [*arguments, "--keep-going"])
    assert (done.exit_code, len(server.bodies) - before) == (3, 300)
