"""Batch APIs of the simulated provider, as the vendors' own SDKs see them: OpenAI and Anthropic; and the ledger."""

from __future__ import annotations

import email.utils
import time
import urllib.request

import pytest

from batch_llm.prices import Price
from batch_llm.testing import BatchFault, SimulatedBatches, SimulatedProvider

from .batch_clients import SOON, chat_lines, claude, ended, jsonl, params, read, request, sdk, submit, wait


@pytest.fixture
def provider():
    with SimulatedProvider(batches=SOON, count_questions=True) as simulated:
        yield simulated


@pytest.mark.parametrize("name", ["openai", "azure"])
def test_openai(provider, opened, name):
    client = sdk(opened, provider, name)
    lines = list(chat_lines(20))
    batch = submit(client, lines, metadata={"nonce": "x1"})
    assert (batch.metadata, batch.endpoint) == ({"nonce": "x1"}, "/v1/chat/completions")
    batch = ended(client, batch)
    assert (batch.status, batch.request_counts.total, batch.request_counts.completed) == ("completed", 20, 20)
    results = read(client, batch.output_file_id)
    assert [line["custom_id"] for line in results] != [line["custom_id"] for line in lines], "in any order"
    bodies = {line["custom_id"]: line["body"] for line in lines}
    for line in results:
        live = request(f"{provider.base_url}/chat/completions", bodies.pop(line["custom_id"]))
        assert live == (line["response"]["status_code"], line["response"]["body"])
        assert line["error"] is None
    assert not bodies
    assert batch.usage.total_tokens == sum(line["response"]["body"]["usage"]["total_tokens"] for line in results)
    if name == "azure":
        assert client.files.content(batch.error_file_id).content == b""
        assert batch.expires_at is None
    else:
        assert batch.error_file_id is None
        assert batch.expires_at == batch.created_at + 86_400
    named = [file.filename for file in client.files.list(purpose="batch")]
    assert named == ["input.jsonl"]
    client.files.delete(batch.input_file_id)
    assert list(client.files.list(purpose="batch")) == []


def test_openai_responses_and_embeddings(provider, opened):
    client = sdk(opened, provider)
    for endpoint, body in (
        ("/v1/responses", {"model": "m", "input": "say hello"}),
        ("/v1/embeddings", {"model": "e", "input": ["a", "b"], "dimensions": 8}),
    ):
        line = {"custom_id": "a", "method": "POST", "url": endpoint, "body": body}
        batch = ended(client, submit(client, [line], endpoint))
        (result,) = read(client, batch.output_file_id)
        assert result["response"]["body"] == request(provider.url + endpoint, body)[1]


def test_openai_uploads_in_parts(provider, opened):
    client, stranger = sdk(opened, provider), sdk(opened, provider, key="other")
    openai = pytest.importorskip("openai")
    lines = jsonl(chat_lines(10))
    upload = client.uploads.create(filename="a.jsonl", purpose="batch", bytes=len(lines), mime_type="application/jsonl")
    second, first = (client.uploads.parts.create(upload.id, data=half).id for half in (lines[99:], lines[:99]))
    with pytest.raises(openai.NotFoundError):
        stranger.uploads.complete(upload.id, part_ids=[first, second])
    with pytest.raises(openai.BadRequestError, match="were announced"):
        client.uploads.complete(upload.id, part_ids=[first])
    done = client.uploads.complete(upload.id, part_ids=[first, second])
    assert (done.status, done.file.filename) == ("completed", "a.jsonl")
    assert client.files.content(done.file.id).content == lines


def test_openai_lists_in_pages(provider, opened):
    client, stranger = sdk(opened, provider), sdk(opened, provider, key="other")
    made = [submit(client, chat_lines(1)).id for _ in range(250)]
    assert [batch.id for batch in client.batches.list(limit=20)] == made[::-1]
    page = client.batches.list(limit=10)
    assert (page.has_more, page.next_page_info().params) == (True, {"after": made[-10]})
    assert list(stranger.batches.list()) == []
    openai = pytest.importorskip("openai")
    for call in (stranger.batches.retrieve, stranger.batches.cancel):
        with pytest.raises(openai.NotFoundError):
            call(made[0])


def test_openai_rejects_late_what_is_wrong_with_lines(provider, opened):
    client = sdk(opened, provider)
    good = list(chat_lines(3))
    for change, code in (
        ({"url": "/v1/responses"}, "mismatched_endpoint"),
        ({"custom_id": "n-0"}, "duplicate_custom_id"),
        ({"body": {"model": "other"}}, "mismatched_model"),
    ):
        batch = ended(client, submit(client, [good[0], good[1] | change, good[2]]))
        assert batch.status == "failed"
        assert [(error.code, error.line) for error in batch.errors.data] == [(code, 2)]
    assert [error.code for error in ended(client, submit(client, [])).errors.data] == ["empty_file"]
    assert provider.batches.batch.answers == 0
    with SimulatedProvider(batches=SimulatedBatches(delay=0, max_lines=2)) as small:
        batch = ended(sdk(opened, small), submit(sdk(opened, small), good))
        assert batch.errors.data[0].code == "too_many_tasks"
        assert [violation.rule for violation in small.batches.violations] == ["size"]


def test_openai_is_cancelled_and_expires(opened):
    slow = SimulatedBatches(delay=1000.0, faults=[BatchFault("expire_after:0.6", on=[2])])
    with SimulatedProvider(batches=slow) as provider:
        client = sdk(opened, provider)
        cancelled, expired = submit(client, chat_lines(10)), submit(client, chat_lines(10, nonce="o"))
        provider.advance(seconds=500)
        assert client.batches.retrieve(cancelled.id).status == "in_progress"
        assert client.batches.cancel(cancelled.id).status == "cancelling"
        provider.advance(hours=25)
        cancelled, expired = client.batches.retrieve(cancelled.id), client.batches.retrieve(expired.id)
        assert (cancelled.status, expired.status) == ("cancelled", "expired")
        for batch, code in ((cancelled, "batch_cancelled"), (expired, "batch_expired")):
            errors = read(client, batch.error_file_id)
            assert {line["error"]["code"] for line in errors} == {code}
            assert len(read(client, batch.output_file_id)) + len(errors) == 10
        assert len(read(client, expired.output_file_id)) == 6
        with urllib.request.urlopen(
            urllib.request.Request(f"{provider.base_url}/batches", headers={"authorization": "Bearer k"})
        ) as reply:
            told = email.utils.parsedate_to_datetime(reply.headers["date"]).timestamp()
        assert told == pytest.approx(provider.batches.now, abs=30)
        assert told - time.time() > 25 * 3600
        provider.advance(days=31)
        with pytest.raises(pytest.importorskip("openai").NotFoundError):
            read(client, expired.output_file_id)


def test_anthropic(provider, opened):
    client = claude(opened, provider)
    asked = {f"n-{number}": params(f"question {number}") for number in range(20)}
    asked["n-bad"] = params("") | {"max_tokens": None}
    asked["n-banned"] = params("x") | {"speed": "fast"}
    batch = client.messages.batches.create(requests=[{"custom_id": name, "params": one} for name, one in asked.items()])
    assert (batch.processing_status, batch.request_counts.processing) in (("in_progress", 22), ("ended", 0))
    batch = wait(lambda: client.messages.batches.retrieve(batch.id), lambda seen: seen.processing_status == "ended")
    counts = batch.request_counts
    assert (counts.succeeded, counts.errored, counts.processing, counts.expired) == (20, 2, 0, 0)
    results = {line.custom_id: line.result for line in client.messages.batches.results(batch.id)}
    assert list(results) != list(asked)
    assert set(results) == set(asked)
    for name, result in results.items():
        if name in ("n-bad", "n-banned"):
            assert (result.type, result.error.error.type) == ("errored", "invalid_request_error")
        else:
            live = request(f"{provider.url}/v1/messages", asked[name])[1]
            assert result.message.model_dump(mode="json", exclude_unset=True) == live
    assert [violation.rule for violation in provider.batches.violations] == ["banned"]
    assert client.messages.batches.delete(batch.id).type == "message_batch_deleted"
    assert list(client.messages.batches.list()) == []


def test_anthropic_lists_in_pages(provider, opened):
    client = claude(opened, provider)
    made = []
    for _ in range(250):
        made.append(client.messages.batches.create(requests=[{"custom_id": "a", "params": params("x")}]).id)
    assert [batch.id for batch in client.messages.batches.list(limit=20)] == made[::-1]
    page = client.messages.batches.list(limit=10, before_id=made[0])
    assert ([batch.id for batch in page.data], page.has_more) == (made[1:11][::-1], True)
    assert list(claude(opened, provider, "other").messages.batches.list()) == []
    anthropic = pytest.importorskip("anthropic")
    with pytest.raises(anthropic.NotFoundError):
        claude(opened, provider, "other").messages.batches.retrieve(made[0])


def test_anthropic_checks_ids_at_once_and_ends_late(opened):
    anthropic = pytest.importorskip("anthropic")
    with SimulatedProvider(batches=SimulatedBatches(delay=1000.0)) as provider:
        client = claude(opened, provider)
        for ids in (["a", "a"], ["a b"], ["x" * 65], []):
            with pytest.raises(anthropic.BadRequestError):
                client.messages.batches.create(requests=[{"custom_id": one, "params": params("x")} for one in ids])
        asked = [{"custom_id": str(number), "params": params("x")} for number in range(10)]
        batch = client.messages.batches.create(requests=asked)
        provider.advance(seconds=500)
        assert client.messages.batches.retrieve(batch.id).request_counts.processing == 10
        assert batch.results_url is None
        with pytest.raises(anthropic.NotFoundError):
            request_results(client, batch.id)
        with pytest.raises(anthropic.BadRequestError):
            client.messages.batches.delete(batch.id)
        assert client.messages.batches.cancel(batch.id).processing_status == "canceling"
        provider.advance(hours=1)
        batch = client.messages.batches.retrieve(batch.id)
        counts = batch.request_counts
        assert 0 < counts.canceled < 10
        assert counts.canceled + counts.succeeded == 10
        kinds = [line.result.type for line in client.messages.batches.results(batch.id)]
        assert kinds.count("canceled") == counts.canceled
        provider.advance(days=29)
        batch = client.messages.batches.retrieve(batch.id)
        assert batch.archived_at is not None
        assert batch.results_url is None


def request_results(client, batch_id):
    return client.get(f"/v1/messages/batches/{batch_id}/results", cast_to=object)


def test_the_ledger(opened):
    price = Price(2.0, 10.0)
    settings = SimulatedBatches(delay=0, prices={"m": price})
    with SimulatedProvider(batches=settings, count_questions=True, replies=["four"]) as provider:
        client = sdk(opened, provider)
        batch = submit(client, chat_lines(4, nonce="abc"), name="bllm-abc.jsonl")
        ended(client, batch)
        for number in (3, 4):
            body = {"model": "m", "messages": [{"role": "user", "content": f"question {number}"}]}
            request(f"{provider.base_url}/chat/completions", body)
        ledger = provider.batches
        assert (ledger.paid_twice, ledger.per_nonce) == (1, {"abc": 1})
        assert ledger.questions == {
            "question 0": (0, 1), "question 1": (0, 1), "question 2": (0, 1), "question 3": (1, 1),
            "question 4": (1, 0),
        }  # fmt: skip
        cost = (3 * 2.0 + 10.0) / 1e6  # three tokens of each question, one of each answer
        assert ledger.live.cost == pytest.approx(2 * cost)
        assert ledger.batch.cost == pytest.approx(4 * cost / 2)
        assert (ledger.live.answers, ledger.batch.answers, ledger.batch.input_tokens) == (2, 4, 12)
        (seen,) = ledger.batches
        assert (seen.id, seen.provider, seen.nonce, seen.file) == (batch.id, "openai", "abc", "bllm-abc.jsonl")
        assert (seen.lines, seen.succeeded, seen.end, seen.model) == (4, 4, "completed", "m")
        assert ledger.calls["create"] == ledger.calls["upload"] == 1
        assert ledger.open == []
        submit(client, chat_lines(4, nonce="abc"))
        assert provider.batches.violations == [], "the first was looked at"
        submit(client, chat_lines(4, nonce="abc"))
        assert [violation.rule for violation in provider.batches.violations] == ["create_without_list"]
    assert provider.batches.per_nonce == {"abc": 3}, "also once it has stopped"


def test_settings_are_checked():
    with pytest.raises(ValueError, match="delay must be a number of seconds"):
        SimulatedBatches(delay=-1)
    with pytest.raises(ValueError, match="or it never happens"):
        BatchFault("gone")
    with pytest.raises(ValueError, match="create_lost, create_500_made"):
        SimulatedProvider(batches=SimulatedBatches(faults=[BatchFault("nonsense", on=[1])]))
    with pytest.raises(ValueError, match="distribution must be"):
        SimulatedProvider(batches=SimulatedBatches(distribution="even"))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="batches must be a SimulatedBatches or None, not int"):
        SimulatedProvider(batches=1)  # type: ignore[typeddict-item]
    with SimulatedProvider() as provider:
        with pytest.raises(ValueError, match="a clock can only be"):
            provider.advance(hours=-1)
        with pytest.raises(ValueError, match="no batch API of 'vllm'"):
            provider.batch_url("vllm")
