"""``batch_llm.spark.map_prompts()`` on this machine, against a simulated provider."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest

pytest.importorskip("pyspark")
from pydantic import BaseModel
from pyspark import cloudpickle
from pyspark.sql import SparkSession

import batch_llm.spark
from batch_llm import GuardrailConfig, Job, Price, ProcessorConfig
from batch_llm.testing import Fault, SimulatedProvider

from .deaths import LOST, interrupted_midway, often, paid_twice

# What Spark warns of is Spark's. A Java process takes its time to start.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(240)]
cloudpickle.register_pickle_by_value(sys.modules[__name__])
MODEL = "openai:gpt-5-mini"


class Rating(BaseModel):
    stars: int
    topic: Literal["price", "quality"]


@contextmanager
def session_on(master: str):
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    settings = {
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        # Compile little: the processes live for seconds.
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1",
        "spark.executor.extraJavaOptions": "-XX:TieredStopAtLevel=1",
    }
    builder = SparkSession.builder.master(master).appName("tests")
    for name, value in settings.items():
        builder = builder.config(name, value)
    made = builder.getOrCreate()
    made.sparkContext.setLogLevel("OFF")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def spark():
    with session_on("local[2]") as made:
        yield made


def reviews(spark, rows: int, partitions: int = 4):
    numbers = spark.range(0, rows, 1, partitions)
    return numbers.selectExpr("id", "concat('review ', id) as text")


def asked(df, provider, template="Rate: {text}", **options):
    return batch_llm.spark.map_prompts(df, template, MODEL, base_url=provider.base_url, **options)


def rows_of(df):
    """The rows, by id; each once."""
    rows = [row.asDict() for row in df.collect()]
    assert len({row["id"] for row in rows}) == len(rows)
    return sorted(rows, key=lambda row: row["id"])


def test_every_row_has_typed_answers(spark, provider):
    made = asked(reviews(spark, 400), provider, response_model=Rating)
    types = {field.name: field.dataType.simpleString() for field in made.schema}
    assert types == {
        "id": "bigint",
        "text": "string",
        "output.stars": "bigint",
        "output.topic": "string",
        "output_error": "string",
    }
    assert provider.stats.requests == 0
    rows = rows_of(made)
    assert [row["id"] for row in rows] == list(range(400))
    assert all(type(row["output.stars"]) is int and row["output_error"] is None for row in rows)
    assert provider.stats.requests == 400


def test_bad_rows_are_errors_in_their_column(spark):
    def template(row):
        if row["id"] % 10 == 3:
            raise KeyError("no such review")
        return row["text"]

    df = reviews(spark, 200).selectExpr("id", "nullif(text, 'review 5') as text", "interval 1 day as other")
    with SimulatedProvider(faults=[Fault(400, every=10)], replies=["{excerpt}"]) as provider:
        rows = rows_of(asked(df, provider, template))
    assert len(rows) == 200
    assert rows[3]["output_error"] == "invalid row: the template raised KeyError: 'no such review'"
    assert rows[5]["output_error"] == "invalid row: the template returned no prompt"
    assert sum("400" in (row["output_error"] or "") for row in rows) == provider.stats.statuses[400] > 10
    assert all(row["output"] in (None, row["text"]) for row in rows)
    assert all((row["output"] is None) != (row["output_error"] is None) for row in rows)


def test_partitions_share_a_quota(spark):
    with SimulatedProvider(requests_per_minute=12_000, burst_seconds=3) as provider:
        made = batch_llm.spark.map_prompts(
            reviews(spark, 1600, 2),
            "{text}",
            "gemini:gemini-2.5-flash",
            base_url=provider.gemini_url,
            max_requests_per_minute=12_000,
        )
        rows = rows_of(made)
    assert len(rows) == 1600
    assert all(row["output_error"] is None for row in rows)
    assert provider.stats.statuses.get(429, 0) <= 8


def test_actions_with_a_store_pay_once(spark, provider, tmp_path):
    made = asked(reviews(spark, 300), provider, store=tmp_path / "run")
    first = rows_of(made)
    assert rows_of(made) == first
    # In other partitions the rows are the same.
    assert rows_of(asked(reviews(spark, 300, 7), provider, store=tmp_path / "run")) == first
    assert provider.stats.requests == 300


def test_an_empty_frame_and_an_earlier_answer(spark, provider):
    assert asked(reviews(spark, 0), provider).collect() == []
    once = asked(reviews(spark, 10), provider)
    again = asked(once, provider, "Once more: {text}", response_model=Rating)
    assert again.columns == ["id", "text", "output.stars", "output.topic", "output_error"]
    assert len(rows_of(again)) == 10


def test_a_wrong_template_fails_before_anything_is_executed(spark, provider):
    df = reviews(spark, 10)
    with pytest.raises(ValueError, match="no column 'txt'; did you mean 'text'"):
        asked(df, provider, "Rate: {txt}")
    with pytest.raises(ValueError, match="already a column 'text'"):
        asked(df, provider, output="text")
    with pytest.raises(TypeError, match="unknown option 'max_request_per_minute'; did you mean 'max_requests_per_"):
        asked(df, provider, max_request_per_minute=5)
    with pytest.raises(ValueError, match="a fixed api_key would be copied"):
        asked(df, provider, api_key="sk-secret")
    with pytest.raises(TypeError, match=r"takes a pyspark\.sql\.DataFrame, not builtins\.list"):
        asked([{"text": "x"}], provider)
    lock = threading.Lock()
    with pytest.raises(TypeError, match="cannot be sent to executors"):
        batch_llm.spark.map_prompts(df, "Rate: {text}", lambda prompt: str(lock))
    with pytest.raises(ValueError, match="no API key for openai"):
        batch_llm.spark.map_prompts(df, "Rate: {text}", MODEL)
    assert provider.stats.requests == 0


def test_a_rejected_key_ends_the_job(spark):
    with SimulatedProvider(api_key="right") as provider:
        made = asked(reviews(spark, 5000), provider, api_key=lambda: "wrong")
        with pytest.raises(Exception, match="the run ended: .*401"):
            made.collect()
        assert provider.stats.requests < 5000


def test_a_job_has_one_cap_and_one_summary_for_all_partitions(spark):
    with SimulatedProvider(replies=["one two three four five"]) as provider, Job(max_total_cost=1000.0) as job:
        config = ProcessorConfig(guardrails=GuardrailConfig(prices={"gpt-5-mini": Price(input=0.0, output=1e6)}))
        rows = rows_of(asked(reviews(spark, 400), provider, config=config, max_tokens=10, job=job))
    sent = sum(row["output_error"] is None for row in rows)
    stats = job.stats
    # Rows of a stream are not read any more once it is over.
    assert (stats.succeeded, stats.failed) == (sent, 0)
    assert 0 < stats.not_sent <= 400 - sent
    assert 900 < stats.budget_cost_used == stats.total_output_tokens <= 1000
    assert job.termination.kind == "budget_exceeded"


def test_an_interrupt_of_the_driver_ends_partitions_gently(spark):
    with SimulatedProvider(latency=0.3) as provider:
        job = Job()

        def work():
            with job:
                asked(reviews(spark, 4000), provider, concurrency=10, job=job).collect()

        interrupted_midway(work, provider, 30)
        stats = job.stats
        assert (job.termination.kind, stats.failed) == ("interrupted", 0)
        assert stats.succeeded == provider.stats.requests < 4000


def test_nothing_of_spark_is_imported_before():
    code = "import sys, batch_llm, batch_llm.frames; sys.exit('pyspark' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys; sys.modules['pyspark'] = None; import batch_llm.spark"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ImportError: batch_llm.spark needs PySpark: pip install 'batch-llm[spark]'" in done.stderr


@pytest.fixture(scope="module")
def cluster():
    """Executors in processes of their own; after all other tests, because a process has one session."""
    if SparkSession.getActiveSession() is not None:
        SparkSession.getActiveSession().stop()
    with session_on("local-cluster[2,1,1024]") as made:
        yield made


def executor() -> int:
    """The Java process of this executor: Spark forks Python processes from one that it has started."""
    daemon = int(Path(f"/proc/{os.getppid()}/stat").read_text().rsplit(")", 1)[1].split()[1])
    assert b"CoarseGrainedExecutorBackend" in Path(f"/proc/{daemon}/cmdline").read_bytes()
    return daemon


@often
@pytest.mark.parametrize("is_stored", [False, True])
def test_a_dead_executor_costs_no_row(cluster, tmp_path, is_stored, again):
    died = str(tmp_path / "died")

    def template(row):
        if row["id"] == 777 and not os.path.exists(died):
            open(died, "w").close()
            os.kill(executor(), signal.SIGKILL)
        return row["text"]

    store = {"store": tmp_path / "store"} if is_stored else {}
    with SimulatedProvider(latency=0.2, count_questions=True, replies=["{excerpt}"]) as provider:
        rows = rows_of(asked(reviews(cluster, 1000), provider, template, concurrency=20, **store))
    assert os.path.exists(died)
    assert [row["output"] for row in rows] == [f"review {number}" for number in range(1000)]
    assert paid_twice(provider) <= (LOST if is_stored else 1000)


def test_a_key_that_no_executor_has_is_missing_at_once(cluster):
    with pytest.raises(ValueError, match=r"the worker on .* cannot start: no API key for openai"):
        batch_llm.spark.map_prompts(reviews(cluster, 10), "Rate: {text}", MODEL)
