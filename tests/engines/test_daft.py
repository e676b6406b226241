"""``batch_llm.daft`` on Daft's native runner, against a simulated provider."""

from __future__ import annotations

import subprocess
import sys
from typing import Literal

import pytest

daft = pytest.importorskip("daft")
from daft import col  # noqa: E402
from daft.functions import prompt  # noqa: E402
from pydantic import BaseModel  # noqa: E402

import batch_llm.daft  # noqa: E402
from batch_llm import Job, ProcessorConfig  # noqa: E402
from batch_llm.testing import Fault, SimulatedProvider  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
MODEL = "openai:gpt-5-mini"


class Stars(BaseModel):
    stars: int


class Rating(BaseModel):
    stars: int
    topic: Literal["price", "quality"]


def reviews(rows: int, **columns):
    return daft.from_pydict(
        {"id": list(range(rows)), "text": [f"review {number}" for number in range(rows)], **columns}
    )


def asked(frame, provider, template="Rate: {text}", **options):
    return frame.select("*", batch_llm.daft.ask(template, MODEL, base_url=provider.base_url, **options))


def prompted(frame, provider, *, return_format=None, **options):
    ours = batch_llm.daft.Provider(base_url=provider.base_url, **options)
    return frame.with_column("answer", prompt(col("text"), provider=ours, model=MODEL, return_format=return_format))


def test_ask_makes_typed_columns(provider):
    made = asked(reviews(300), provider, response_model=Rating)
    assert provider.stats.requests == 0
    columns = {field.name: field.dtype for field in made.schema()}
    assert list(columns) == ["id", "text", "output.stars", "output.topic", "output_error"]
    assert columns["output.stars"] == daft.DataType.int64()
    assert columns["output.topic"] == columns["output_error"] == daft.DataType.string()
    rows = made.collect().to_pylist()
    assert [row["id"] for row in rows] == list(range(300))
    assert all(type(row["output.stars"]) is int and row["output_error"] is None for row in rows)
    assert provider.stats.requests == 300


def test_answers_belong_to_their_rows():
    with SimulatedProvider(replies=["{excerpt}"]) as provider:
        rows = asked(reviews(5000), provider, "{text}").collect().to_pylist()
        assert all(row["output"] == row["text"] for row in rows)
        rows = prompted(reviews(500), provider).collect().to_pylist()
        assert all(row["answer"] == row["text"] for row in rows)


def test_bad_rows_are_errors_in_their_column():
    texts = [None if number % 10 == 5 else "" if number % 10 == 7 else f"review {number}" for number in range(200)]
    with SimulatedProvider(faults=[Fault(400, every=10)]) as provider:
        rows = asked(reviews(200, text=texts), provider, "{text}").collect().to_pylist()
    assert rows[5]["output_error"] == "invalid row: 'text' is null"
    assert rows[7]["output_error"] == "invalid row: 'text' is empty"
    assert sum("400" in (row["output_error"] or "") for row in rows) == provider.stats.statuses[400] == 16
    assert all((row["output"] is None) != (row["output_error"] is None) for row in rows)


def test_a_function_of_a_row_is_a_template():
    def template(row):
        if row["id"] == 3:
            raise KeyError("no such review")
        return f"{row['id']}: {row['text']}"

    with SimulatedProvider(replies=["{excerpt}"]) as provider:
        rows = asked(reviews(10), provider, template, columns=["id", "text"]).collect().to_pylist()
    assert rows[2]["output"] == "2: review 2"
    assert rows[3]["output_error"] == "invalid row: the template raised KeyError: 'no such review'"


def test_exactly_the_failing_rows_of_prompt_are_null():
    texts = [None if number == 5 else f"review {number}" for number in range(1000)]
    with SimulatedProvider(faults=[Fault(400, every=100), Fault(500, on=[7]), Fault("reset", on=[8])]) as provider:
        rows = prompted(reviews(1000, text=texts), provider).collect().to_pylist()
    assert len(rows) == 1000
    assert rows[5]["answer"] is None
    assert sum(row["answer"] is None for row in rows) == 1 + provider.stats.statuses[400] == 11


@pytest.mark.parametrize(("model", "kind"), [(Stars, dict), (Rating, str)])
def test_prompt_returns_what_daft_takes(provider, model, kind):
    # Daft has no type for a Literal, and takes the answers as texts.
    rows = prompted(reviews(20), provider, return_format=model).collect().to_pylist()
    assert all(type(row["answer"]) is kind and "stars" in row["answer"] for row in rows)


def test_prompt_takes_a_system_message_and_media(provider):
    picture = bytes.fromhex("89504e470d0a1a0a") + bytes(50)
    frame = daft.from_pydict({"text": ["What is this?"] * 3, "picture": [picture, b"%PDF-1.4 ...", b""]})
    expression = prompt(
        [col("text"), col("picture")],
        provider=batch_llm.daft.Provider(base_url=provider.base_url),
        model=MODEL,
        system_message="Be brief.",
        temperature=0.5,
    )
    answers = [row["answer"] for row in frame.with_column("answer", expression).collect().to_pylist()]
    assert [answer is None for answer in answers] == [False, False, True]
    assert provider.stats.requests == 2


@pytest.mark.parametrize("by_prompt", [True, False])
def test_a_quota_holds(by_prompt):
    with SimulatedProvider(requests_per_minute=12_000, burst_seconds=2) as provider:
        config = ProcessorConfig(concurrency="auto", max_requests_per_minute=12_000, quota_burst_seconds=1)
        options = {"base_url": provider.gemini_url, "config": config}
        if by_prompt:
            ours = batch_llm.daft.Provider(**options)
            made = prompt(col("text"), provider=ours, model="gemini:gemini-2.5-flash").alias("output")
        else:
            made = batch_llm.daft.ask("{text}", "gemini:gemini-2.5-flash", **options)
        rows = reviews(700).select(made).collect().to_pylist()
    assert all(row["output"] is not None for row in rows)
    assert provider.stats.requests == 700


@pytest.mark.parametrize("ask", [asked, prompted])
@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_a_stored_answer_is_not_paid_for_again(provider, tmp_path, request, ask, place):
    store = tmp_path / "run" if place == "folder" else f"{request.getfixturevalue('bucket')}/run"
    first = ask(reviews(50), provider, store=store).to_pydict()
    assert ask(reviews(50), provider, store=store).to_pydict() == first
    assert provider.stats.requests == 50


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"template": "Rate: {text"}, ValueError, "unmatched brace"),
        ({"template": "Rate"}, ValueError, "names no column"),
        ({"template": str.format}, TypeError, "needs columns="),
        ({"columns": ["text"]}, TypeError, "columns= is only for a template that is a function"),
        ({"max_request_per_minute": 1}, TypeError, "did you mean 'max_requests_per_minute'"),
        ({"api_key": "sk-secret"}, ValueError, "a fixed api_key would be copied"),
        ({"output": "text"}, ValueError, "already a column 'text'"),
    ],
)
def test_a_bad_argument_fails_before_anything_is_sent(provider, arguments, error, message):
    with pytest.raises(error, match=message):
        asked(reviews(3), provider, **arguments)
    if "max_request_per_minute" in arguments or "api_key" in arguments:
        with pytest.raises(error, match=message):
            prompted(reviews(3), provider, **arguments)
    assert provider.stats.requests == 0


def test_a_missing_column_fails_before_anything_is_sent(provider):
    with pytest.raises(Exception, match='Column "txt" not found'):
        asked(reviews(3), provider, "Rate: {txt}")


def test_a_missing_key_or_model_fails_before_anything_is_sent():
    with pytest.raises(ValueError, match="no API key for openai"):
        batch_llm.daft.ask("Rate: {text}", MODEL)
    with pytest.raises(ValueError, match="no API key for openai"):
        prompt(col("text"), provider=batch_llm.daft.Provider(), model=MODEL)
    with pytest.raises(ValueError, match="needs the model's name"):
        prompt(col("text"), provider=batch_llm.daft.Provider())


@pytest.mark.parametrize("made", [asked, prompted])
def test_a_rejected_key_ends_the_job(made):
    with SimulatedProvider(api_key="right") as provider:
        with pytest.raises(Exception, match="the run ended: .*401"):
            made(reviews(5000), provider, api_key=lambda: "wrong").collect()
        assert provider.stats.requests < 5000


def test_nothing_of_daft_is_imported_before(provider):
    code = "import sys, batch_llm, batch_llm.frames; sys.exit('daft' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys; sys.modules['daft'] = None; import batch_llm.daft"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ImportError: batch_llm.daft needs Daft: pip install 'batch-llm[daft]'" in done.stderr


@pytest.mark.parametrize("by_provider", [False, True])
def test_a_job_that_is_over_ends_no_query(by_provider):
    job = Job(abort_on_error_categories={"authentication"})
    with SimulatedProvider(api_key="right") as provider:
        ask = prompted if by_provider else asked
        rows = ask(reviews(60), provider, api_key=lambda: "wrong", concurrency=1, job=job).collect().to_pylist()
        assert provider.stats.requests == 1
    assert all(row["answer" if by_provider else "output"] is None for row in rows)
    assert job.termination.error_category == "authentication"
    assert job.stats.error_counts == {"authentication": 1}
