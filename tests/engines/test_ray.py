"""``batch_llm.ray.map_prompts()`` on a cluster of two nodes, against a simulated provider."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from typing import Literal

import pytest

ray = pytest.importorskip("ray.data") and pytest.importorskip("ray")
import pyarrow  # noqa: E402
from pydantic import BaseModel  # noqa: E402

import batch_llm.ray  # noqa: E402
from batch_llm import GuardrailConfig, Job, Price, ProcessorConfig  # noqa: E402
from batch_llm.testing import Fault, SimulatedProvider  # noqa: E402

from .deaths import LOST, interrupted_midway, midway, often, paid_twice  # noqa: E402

# What Ray warns of is Ray's.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("cluster")]
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Rating(BaseModel):
    stars: int
    topic: Literal["price", "quality"]


def reviews_table(rows: int):
    return pyarrow.table({"id": range(rows), "text": [f"review {number}" for number in range(rows)]})


def reviews(rows: int, blocks: int = 8):
    return ray.data.from_arrow(reviews_table(rows)).repartition(blocks).materialize()


def asked(ds, provider, template="Rate: {text}", **options):
    return batch_llm.ray.map_prompts(ds, template, "openai:gpt-5-mini", base_url=provider.base_url, **options)


def rows_of(ds):
    """The rows, by id; each once."""
    rows = {row["id"]: row for row in ds.take_all()}
    return [rows[number] for number in sorted(rows)]


def test_every_row_has_typed_answers(provider):
    made = asked(reviews(2000), provider, response_model=Rating)
    assert made.schema().names == ["id", "text", "output.stars", "output.topic", "output_error"]
    rows = rows_of(made)
    assert [row["id"] for row in rows] == list(range(2000))
    assert all(type(row["output.stars"]) is int and row["output_error"] is None for row in rows)
    assert provider.stats.requests == 2000
    assert made.materialize().schema().base_schema.equals(made.schema().base_schema, check_metadata=False)


def test_workers_are_on_both_nodes():
    with SimulatedProvider(latency=0.3, replies=["{excerpt}"]) as provider:

        def where(row):
            return f"{ray.get_runtime_context().get_node_id()} {row['id']}"

        rows = rows_of(asked(reviews(200, 40), provider, where, blocks_at_once=2))
    assert len({row["output"].split()[0] for row in rows}) == 2


def test_bad_rows_are_errors_in_their_column():
    def template(row):
        if row["id"] % 10 == 3:
            raise KeyError("no such review")
        return row["text"]

    texts = [None if number % 10 == 5 else "" if number % 10 == 7 else f"review {number}" for number in range(200)]
    ds = ray.data.from_arrow(pyarrow.table({"id": range(200), "text": pyarrow.array(texts)}))
    with SimulatedProvider(faults=[Fault(400, every=10)]) as provider:
        rows = rows_of(asked(ds, provider, template))
    assert len(rows) == 200
    assert rows[3]["output_error"] == "invalid row: the template raised KeyError: 'no such review'"
    assert rows[5]["output_error"] == "invalid row: the template returned no prompt"
    assert rows[7]["output_error"] == "invalid row: the prompt is empty"
    assert sum("400" in (row["output_error"] or "") for row in rows) == provider.stats.statuses[400] > 10
    assert all((row["output"] is None) != (row["output_error"] is None) for row in rows)


def test_looking_asks_no_more_than_it_needs(provider):
    made = asked(ray.data.range(500), provider, "Rate: {id}")
    assert made.count() == 500
    assert made.columns() == ["id", "output", "output_error"]
    assert provider.stats.requests == 0
    assert len(made.take(5)) == 5
    assert provider.stats.requests == 5
    # Ray finds out from one row what it does not know before it executes something.
    unknown = asked(ray.data.range(50).map_batches(lambda batch: batch), provider, "Rate: {id}")
    assert unknown.count() == 50
    assert unknown.schema().names == ["id", "output", "output_error"]
    assert provider.stats.requests == 6


def under_a_quota(provider, ds, model: str, url: str):
    return batch_llm.ray.map_prompts(
        ds, "Rate: {text}", model, base_url=url, workers=4, max_requests_per_minute=12_000, blocks_at_once=2
    )


def test_four_workers_share_a_quota():
    with SimulatedProvider(requests_per_minute=12_000, burst_seconds=2) as provider:
        rows = rows_of(under_a_quota(provider, reviews(1600, 32), "openai:gpt-5-mini", provider.base_url))
    assert len(rows) == 1600
    assert all(row["output_error"] is None for row in rows)
    assert provider.stats.statuses.get(429, 0) <= 8


def test_four_workers_share_a_quota_without_headers_and_with_uneven_blocks():
    with SimulatedProvider(requests_per_minute=12_000, burst_seconds=2) as provider:
        ds = ray.data.from_arrow(
            [reviews_table(800), *(reviews_table(1600).slice(at, 40) for at in range(800, 1600, 40))]
        )
        rows = rows_of(under_a_quota(provider, ds, "gemini:gemini-2.5-flash", provider.gemini_url))
    assert len(rows) == 1600
    assert all(row["output_error"] is None for row in rows)
    assert provider.stats.statuses.get(429, 0) <= 8


def test_a_dead_board_neither_ends_the_job_nor_exceeds_the_quota():
    with SimulatedProvider(requests_per_minute=12_000, burst_seconds=2) as provider:
        made = under_a_quota(provider, reviews(1600, 32), "gemini:gemini-2.5-flash", provider.gemini_url)
        board = batch_llm.ray._actor_of_job()
        rows = killed_midway(made, provider, 600, lambda: ray.kill(board, no_restart=False))
    assert len(rows) == 1600
    assert all(row["output_error"] is None for row in rows)
    assert provider.stats.statuses.get(429, 0) <= 8


def killed_midway(made, provider, at: int, kill) -> list:
    """The rows, if something dies once so many requests have come."""
    thread = midway(provider, at, kill)
    rows = rows_of(made)
    thread.join()
    return rows


@often
def test_a_dead_worker_costs_no_paid_answer(tmp_path, again):
    with SimulatedProvider(latency=0.2, count_questions=True, replies=["{excerpt}"]) as provider:
        died = str(tmp_path / "died")

        def template(row):
            if row["id"] == 777 and not os.path.exists(died):
                open(died, "w").close()
                os._exit(1)
            return row["text"]

        made = asked(
            reviews(1000, 10), provider, template, workers=2, concurrency=20, store=tmp_path / "store", blocks_at_once=2
        )
        rows = rows_of(made)
    assert os.path.exists(died)
    assert [row["output"] for row in rows] == [f"review {number}" for number in range(1000)]
    assert paid_twice(provider) <= LOST


@often
def test_a_dead_node_costs_no_paid_answer(cluster, tmp_path, again):
    node = cluster.add_node(num_cpus=4, object_store_memory=150 << 20)
    # Answers of a block take 200 KB, so finished blocks die with the node as well.
    with SimulatedProvider(latency=0.2, count_questions=True, replies=["{excerpt}" + "x" * 2000]) as provider:
        made = asked(reviews(900, 9), provider, workers=3, concurrency=20, store=tmp_path / "store", blocks_at_once=2)
        rows = killed_midway(made, provider, 400, lambda: cluster.remove_node(node, allow_graceful=False))
    assert [row["id"] for row in rows] == list(range(900))
    assert all(row["output_error"] is None for row in rows)
    assert paid_twice(provider) <= LOST


DRIVER = """
import json, pyarrow, ray, sys, batch_llm.ray
url, store, rows = sys.argv[1:]
ray.init(log_to_driver=False, logging_level="error")
table = pyarrow.table({"id": range(1000), "text": [f"review {number}" for number in range(1000)]})
ds = ray.data.from_arrow(table).repartition(10).materialize()
made = batch_llm.ray.map_prompts(
    ds, "Rate: {text}", "openai:gpt-5-mini", base_url=url, store=store, workers=2, concurrency=20, blocks_at_once=2
)
taken = made.take_all()
with open(rows, "w") as file:
    json.dump([[row["id"], row["output_error"]] for row in taken], file)
"""


@often
def test_a_dead_driver_costs_no_paid_answer(cluster, tmp_path, again):
    search = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "RAY_ADDRESS": cluster.address, "PYTHONPATH": search, "OPENAI_API_KEY": "any"}
    with SimulatedProvider(latency=0.2, count_questions=True) as provider:
        command = [sys.executable, "-c", DRIVER, provider.base_url, str(tmp_path / "store"), str(tmp_path / "rows")]
        with subprocess.Popen(command, env=environment) as first:
            midway(provider, 400, first.kill).join()
        assert first.returncode == -signal.SIGKILL
        subprocess.run(command, env=environment, check=True, timeout=100)
        rows = json.loads((tmp_path / "rows").read_text())
        assert sorted(rows) == [[number, None] for number in range(1000)]
        assert paid_twice(provider) <= 2 * LOST


def test_a_block_that_kills_its_worker_becomes_errors(provider):
    def template(row):
        if row["id"] == 55:
            os._exit(1)
        return row["text"]

    rows = rows_of(asked(reviews(200, 10), provider, template, workers=2))
    assert len(rows) == 200
    failed = [row["id"] for row in rows if row["output_error"]]
    assert failed == list(range(40, 60))
    assert "5 worker processes died while they processed the row's block" in rows[55]["output_error"]


def test_a_wrong_template_fails_before_anything_is_executed(provider):
    with pytest.raises(ValueError, match="no column 'txt'; did you mean 'text'"):
        asked(reviews(10), provider, "Rate: {txt}")
    with pytest.raises(ValueError, match="already a column 'text'"):
        asked(reviews(10), provider, output="text")
    with pytest.raises(TypeError, match="unknown option 'max_request_per_minute'; did you mean 'max_requests_per_"):
        asked(reviews(10), provider, max_request_per_minute=5)
    with pytest.raises(TypeError, match="must be an integer|max_tokens"):
        asked(reviews(10), provider, max_tokens="many")
    with pytest.raises(ValueError, match="a fixed api_key would be copied"):
        asked(reviews(10), provider, api_key="sk-secret")
    with pytest.raises(ValueError, match="store='runs/a/'"):
        asked(reviews(10), provider, store="runs/a.db")
    with pytest.raises(ValueError, match="workers must be a positive integer"):
        asked(reviews(10), provider, workers=0)
    with pytest.raises(TypeError, match=r"takes a ray\.data\.Dataset"):
        batch_llm.ray.map_prompts([{"text": "x"}], "{text}", "openai:gpt-5-mini")
    # Ray does not know the columns yet: the first worker looks, before it asks.
    unknown = asked(ray.data.range(10).map_batches(lambda batch: batch), provider, "Rate: {txt}")
    with pytest.raises(Exception, match="no column 'txt'"):
        unknown.take_all()
    assert provider.stats.requests == 0


def test_a_missing_key_fails_first_of_all(monkeypatch):
    with pytest.raises(ValueError, match=r"the worker on .* cannot start: no API key for openai"):
        batch_llm.ray.map_prompts(reviews(10), "Rate: {text}", "openai:gpt-5-mini")
    # The driver has one, and the workers do not.
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-driver")
    made = batch_llm.ray.map_prompts(reviews(10), "Rate: {text}", "openai:gpt-5-mini")
    with pytest.raises(Exception, match=r"cannot start: no API key for openai"):
        made.take_all()


def test_a_rejected_key_ends_the_job():
    with SimulatedProvider(api_key="right") as provider:
        made = asked(reviews(1000, 4), provider, api_key=lambda: "wrong")
        with pytest.raises(Exception, match="the run ended: .*401"):
            made.take_all()
        assert provider.stats.requests < 1000


def test_what_cannot_travel_is_refused():
    lock = threading.Lock()
    with pytest.raises(TypeError, match="cannot be sent to workers.*Give the model by name"):
        batch_llm.ray.map_prompts(reviews(10), "Rate: {text}", lambda prompt: str(lock))


def test_an_old_ray_is_named(monkeypatch):
    monkeypatch.setattr(ray, "__version__", "2.58.1")
    with pytest.raises(ImportError, match=r"needs Ray 2\.59 or newer, not 2\.58\.1"):
        batch_llm.ray.map_prompts(None, "{text}", "openai:gpt-5-mini")


def test_a_stage_waits_for_a_days_quota(provider):
    made = asked(reviews(10), provider)
    assert made.context.execution_no_progress_timeout_s == -1
    ds = reviews(10)
    ds.context.execution_no_progress_timeout_s = 60
    assert asked(ds, provider).context.execution_no_progress_timeout_s == 60


def test_a_job_has_one_cap_and_one_summary_for_all_workers():
    with SimulatedProvider(replies=["one two three four five"]) as provider, Job(max_total_cost=2000.0) as job:
        config = ProcessorConfig(guardrails=GuardrailConfig(prices={"gpt-5-mini": Price(input=0.0, output=1e6)}))
        made = asked(reviews(800, 16), provider, workers=4, config=config, max_tokens=10, job=job)
        rows = rows_of(made)
    sent = [row for row in rows if row["output_error"] is None]
    assert len(rows) == 800
    assert len(sent) == provider.stats.requests < 800
    stats = job.stats
    assert (stats.total, stats.succeeded, stats.not_sent) == (800, len(sent), 800 - len(sent))
    assert 1900 < stats.budget_cost_used == stats.total_output_tokens <= 2000
    assert job.termination.kind == "budget_exceeded"
    assert f"{len(sent):,} succeeded" in job.summary()
    unsent = next(row for row in rows if row["output_error"])
    assert unsent["output_error"] == "not sent: no further attempt fits within the job's max_total_cost=2000.0"


def test_an_interrupt_of_the_driver_ends_workers_gently(tmp_path):
    ds, store = reviews(800, 8), tmp_path / "store"
    with SimulatedProvider(latency=0.3, count_questions=True) as provider:

        def work(job):
            with job:
                rows_of(asked(ds, provider, workers=2, concurrency=20, store=store, job=job))

        job = Job()
        interrupted_midway(lambda: work(job), provider, 100)
        stats = job.stats
        assert (job.termination.kind, stats.failed) == ("interrupted", 0)
        assert stats.succeeded == provider.stats.requests < 800
        # All that was paid for is stored.
        work(Job())
        assert paid_twice(provider) == 0


def test_workers_export_the_counters_of_a_job(monkeypatch):
    counted: dict[str, float] = {}

    class Metric:
        def __init__(self, name, description, tag_keys):
            self.name = name

        def inc(self, value, tags):
            assert tags == {"job": "rating"}
            counted[self.name] = counted.get(self.name, 0) + value

        def set(self, value, tags):
            counted[self.name] = value

    monkeypatch.setattr(ray.util.metrics, "Counter", Metric)
    monkeypatch.setattr(ray.util.metrics, "Gauge", Metric)
    metrics = batch_llm.ray._Metrics("rating")
    for succeeded, in_flight in ((3, 5), (3, 5), (7, 0)):
        metrics.set({"succeeded": succeeded, "cost": succeeded / 2, "in_flight": in_flight, "items": 9})
    assert counted == {"batch_llm_succeeded": 7, "batch_llm_cost": 3.5, "batch_llm_in_flight": 0}
