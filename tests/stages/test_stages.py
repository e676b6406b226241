"""What engines run on their workers, without an engine."""

from __future__ import annotations

import asyncio
import pickle

import pyarrow
import pytest
from pydantic import BaseModel

from batch_llm import (
    ArtifactError,
    GuardrailConfig,
    Job,
    LimitBoard,
    LimitServer,
    LLMCallStrategy,
    Price,
    ProcessorConfig,
    inspect,
)
from batch_llm._stages import Stage, worker
from batch_llm.testing import SimulatedProvider
from tests.helpers import Echo


class Rating(BaseModel):
    stars: int


def table(rows: int):
    return pyarrow.table({"id": range(rows), "text": [f"review {number}" for number in range(rows)]})


def stage(strategy="openai:m", template="Rate: {text}", *, output="output", response_model=None, **options) -> Stage:
    return Stage.of(strategy, template, output=output, response_model=response_model, options=options)


async def test_a_worker_answers_tables_at_the_same_time(provider, monkeypatch):
    monkeypatch.setattr(worker, "PIECE", 7)
    made = pickle.loads(pickle.dumps(stage(response_model=Rating)))
    working = made.worker()
    tables = await asyncio.gather(*(working.run(table(20).slice(start, 10)) for start in (0, 10)))
    answered = pyarrow.concat_tables(tables)
    assert answered.column("id").to_pylist() == list(range(20))
    assert answered.schema.equals(made.schema(table(1).schema))
    assert answered.column("output.stars").type == pyarrow.int64()
    assert answered.column("output_error").null_count == 20
    assert provider.stats.requests == 20


async def test_rows_in_work_are_bounded(monkeypatch):
    monkeypatch.setattr(worker, "PIECE", 10)
    monkeypatch.setattr(worker, "ROWS_AT_ONCE", 30)
    echo = Echo(0.001)
    working = stage(echo).worker()
    tables = await asyncio.gather(*(working.run(table(100)) for _ in range(3)))
    assert [len(one) for one in tables] == [100] * 3
    assert echo.peak <= 30
    # A table with more rows than that is in work by itself.
    monkeypatch.setattr(worker, "PIECE", 1000)
    assert len(await working.run(table(100))) == 100


@pytest.mark.parametrize("concurrency", [1, 3, 20])
@pytest.mark.parametrize("tables", [1, 3, 16])
async def test_the_runs_of_a_worker_have_its_concurrency_together(concurrency, tables):
    echo = Echo(0.001)
    working = stage(echo, concurrency=concurrency).worker(tables)
    await asyncio.gather(*(working.run(table(40)) for _ in range(tables)))
    assert concurrency * 0.75 <= echo.peak <= concurrency


async def test_columns_do_not_depend_on_the_answers():
    class Odd(LLMCallStrategy[object]):
        async def execute(self, prompt, attempt, timeout, state=None):
            return (1 if "1" in prompt else {"a": prompt}), {}

    working = stage(Odd()).worker()
    first, second = await working.run(table(1)), await working.run(table(3).slice(1))
    assert first.schema.equals(second.schema)
    assert second.column("output").to_pylist()[0] == "1"


async def test_a_template_that_raises_is_the_error_of_its_row():
    def template(row):
        return row["text"] if row["id"] != 1 else row["missing"]

    answered = await stage(Echo(), template).worker().run(table(3))
    assert answered.column("output").to_pylist() == ["review 0", None, "review 2"]
    assert answered.column("output_error")[1].as_py() == "invalid row: the template raised KeyError: 'missing'"


async def test_nothing_of_a_withheld_table_is_sent():
    echo = Echo()
    answered = await stage(echo).worker().run(table(2), withheld="it is poison")
    assert answered.column("output_error").to_pylist() == ["not sent: it is poison"] * 2
    assert not echo.calls


async def test_an_empty_table_has_the_columns():
    working = stage(Echo()).worker()
    assert (await working.run(table(0))).column_names == ["id", "text", "output", "output_error"]
    assert (await working.run(pyarrow.table({}))).num_columns == 0


def test_a_stream_of_batches_is_answered_in_order():
    made = stage(Echo())
    batches = table(50).to_batches(max_chunksize=8)
    answered = pyarrow.Table.from_batches(list(made.worker().stream(iter(batches))))
    assert answered.column("output").to_pylist() == [f"Rate: review {number}" for number in range(50)]
    assert answered.schema.equals(made.schema(table(1).schema))
    assert list(made.worker().stream(iter(()))) == []


async def test_a_stored_answer_is_not_paid_for_again(provider, tmp_path):
    made = pickle.loads(pickle.dumps(stage(store=tmp_path / "run")))
    first = await made.worker().run(table(20))
    assert (await made.worker().run(table(20))).equals(first)
    assert provider.stats.requests == 20


async def test_other_blocks_of_the_same_rows_find_their_answers(provider, tmp_path):
    made = stage(store=tmp_path / "run")
    first = await made.worker().run(table(20))
    working = made.worker()
    parts = await asyncio.gather(working.run(table(20).slice(0, 7)), working.run(table(20).slice(7)))
    streamed = made.worker().stream(table(20).to_batches(max_chunksize=8))
    assert pyarrow.concat_tables(parts).equals(first)
    assert pyarrow.Table.from_batches(list(streamed)).equals(first)
    assert provider.stats.requests == 20


async def test_tables_at_the_same_time_are_in_one_store(provider, tmp_path):
    working = stage(store=(tmp_path / "run").as_uri()).worker(8)
    await asyncio.gather(*(working.run(table(80).slice(start, 10)) for start in range(0, 80, 10)))
    assert inspect(tmp_path / "run").succeeded == provider.stats.requests == 80


async def test_a_rejected_key_is_an_error_of_the_job(monkeypatch):
    with SimulatedProvider(api_key="right") as provider:
        working = stage(base_url=provider.base_url, api_key=lambda: "wrong").worker()
        with pytest.raises(RuntimeError, match="the run ended: .*401"):
            await working.run(table(50))


def test_a_missing_key_is_named_where_it_is_missing(monkeypatch):
    made = stage()  # the workers may have it
    assert "OPENAI_API_KEY" in (made.missing_key() or "")
    assert made.schema(table(0).schema).names[-1] == "output_error"
    with pytest.raises(ValueError, match=r"worker on .* cannot start: no API key for openai.*runtime_env"):
        made.worker()
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    assert made.missing_key() is None
    named = stage(api_key_env="TEAM_KEY")
    assert "TEAM_KEY" in (named.missing_key() or "")
    monkeypatch.setenv("TEAM_KEY", "any")
    assert named.missing_key() is None


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"api_key": "sk-secret"}, ValueError, "a fixed api_key would be copied"),
        ({"api_key": ["sk-secret"]}, ValueError, "a fixed api_key would be copied"),
        ({"api_key_env": "sk-secret"}, ValueError, "not a key"),
        ({"store": "runs/a.db"}, ValueError, r"several workers write.*store='runs/a/'"),
        ({"store": 5}, TypeError, "store must be a URL such as 's3://bucket/run', or a folder"),
        ({"store": "http://host/run"}, ArtifactError, "use s3://"),
        ({"max_requests_per_minute": -1}, ValueError, "max_requests_per_minute must be > 0"),
        ({"max_request_per_minute": 1}, TypeError, "did you mean 'max_requests_per_minute'"),
        ({"progress": True}, TypeError, "unknown option 'progress'"),
        ({"strategy": "openia:m"}, ValueError, "openai"),
        ({"max_tokens": 0}, ValueError, "max_tokens must be >= 1"),
    ],
)
def test_a_bad_option_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        stage(**arguments)


def test_a_wrong_template_is_named():
    for template, message in (("Rate: {txt}", "no column 'txt'; did you mean 'text'"), ("Rate", "names no column")):
        with pytest.raises(ValueError, match=message):
            stage(Echo(), template).schema(table(0).schema)


def test_the_callers_configuration_is_left_alone(tmp_path):
    config = ProcessorConfig()
    made = Stage.of(Echo(), "{text}", config=config, options={"max_requests_per_minute": 60, "concurrency": 3})
    assert (made.config.max_requests_per_minute, made.config.concurrency) == (60, 3)
    assert config == ProcessorConfig()


def test_a_rejected_key_ends_a_stream():
    with SimulatedProvider(api_key="right") as provider:
        working = stage(base_url=provider.base_url, api_key=lambda: "wrong").worker()
        with pytest.raises(RuntimeError, match="the run ended: .*401"):
            list(working.stream(table(50).to_batches(max_chunksize=8)))


# Jobs


async def test_the_cap_of_a_job_is_that_of_all_tables_and_workers(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    with LimitServer() as server, SimulatedProvider(replies=["one two three four five"]) as provider:
        jobs, made = [], []
        for _ in range(2):
            jobs.append(Job("rating", shared_limits=server.url, max_total_cost=300.0))
            options = {"job": jobs[-1], "base_url": provider.base_url, "max_tokens": 10}
            config = ProcessorConfig(guardrails=GuardrailConfig(prices={"m": Price(input=0.0, output=1e6)}))
            made.append(pickle.loads(pickle.dumps(Stage.of("openai:m", "{text}", config=config, options=options))))
        workers = [stage.worker(3) for stage in made]
        tables = await asyncio.gather(*(worker.run(table(40)) for worker in workers for _ in range(3)))
        stats = jobs[0].stats  # as long as the board is there: the other worker may have reported last
    errors = [error for one in tables for error in one.column("output_error").to_pylist()]
    sent = errors.count(None)
    assert sent < 240
    assert (stats.total, stats.succeeded, stats.not_sent) == (240, sent, 240 - sent)
    assert 280 < stats.budget_cost_used <= 300
    unsent = next(error for error in errors if error)
    assert unsent == "not sent: no further attempt fits within the job's max_total_cost=300.0"


async def test_an_error_that_ends_a_job_ends_no_engine():
    with SimulatedProvider(api_key="right") as provider:
        job = Job(abort_on_error_categories={"authentication"})
        options = {"base_url": provider.base_url, "api_key": lambda: "wrong", "concurrency": 1, "job": job}
        working = stage(**options).worker()
        first, second = await working.run(table(50)), await working.run(table(50))
        rows = list(working.stream(table(10).to_batches()))
    assert provider.stats.requests == 1
    assert job.stats.error_counts == {"authentication": 1}
    assert "401" in first.column("output_error")[0].as_py()
    assert first.column("output_error")[1].as_py().startswith("not sent: item 'row_0' failed with 'authentication'")
    for unsent in (second.column("output_error")[0], rows[0].column("output_error")[0]):
        assert unsent.as_py().startswith("not sent: an item in another run of the job failed with 'authentication'")


async def test_a_job_that_is_stopped_ends_a_worker_gently():
    echo, job = Echo(0.05), Job()
    working = stage(echo, job=job, concurrency=4).worker()
    running = asyncio.create_task(working.run(table(1000)))
    while not echo.calls:
        await asyncio.sleep(0.001)
    job.stop()
    answered = await running
    assert answered.column("output").null_count == 1000 - len(echo.calls)
    assert answered.column("output_error")[999].as_py() == "not sent: the job was stopped"


def test_a_job_in_the_memory_of_the_driver_does_not_travel():
    with pytest.raises(
        ValueError, match="this job's shared_limits is a LimitBoard, which other processes cannot reach"
    ):
        stage(Echo(), job=Job(shared_limits=LimitBoard())).check_travels(pickle.dumps)
