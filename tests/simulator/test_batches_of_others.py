"""Batch APIs of the simulated provider, as the vendors' own SDKs see them: all that differ from OpenAI's."""

from __future__ import annotations

import io
import json

import pytest

from batch_llm.testing import BatchFault, SimulatedBatches, SimulatedProvider

from .batch_clients import MESSAGES, SOON, chat_lines, contents, gemini, gemini_ended, gemini_live, jsonl, request, wait


@pytest.fixture
def provider():
    with SimulatedProvider(batches=SOON, count_questions=True) as simulated:
        yield simulated


def test_gemini_by_file(provider, opened):
    client = gemini(opened, provider)
    asked = [{"key": f"n-{number}", "request": contents(f"question {number}")} for number in range(20)]
    asked.append({"key": "n-bad", "request": {"contents": []}})
    file = client.files.upload(
        file=io.BytesIO(jsonl(asked)), config={"name": "ours-1", "mime_type": "application/jsonl", "display_name": "in"}
    )
    assert (file.name, file.state.name, file.source.name) == ("files/ours-1", "ACTIVE", "UPLOADED")
    errors = pytest.importorskip("google.genai.errors")
    with pytest.raises(errors.ClientError, match="409"):
        client.files.upload(file=io.BytesIO(b""), config={"name": "ours-1", "mime_type": "application/jsonl"})
    job = client.batches.create(model="gemini-2.5-flash", src=file.name, config={"display_name": "n1"})
    assert (job.display_name, job.model) == ("n1", "models/gemini-2.5-flash")
    job = gemini_ended(client, job)
    assert job.state.name == "JOB_STATE_SUCCEEDED"
    operation = request(f"{provider.gemini_url}/{job.name}?key=k", key="")[1]
    assert operation["metadata"]["batchStats"] == {
        "requestCount": "21", "successfulRequestCount": "20", "failedRequestCount": "1",
    }  # fmt: skip
    assert (operation["done"], operation["metadata"]["state"]) == (True, "BATCH_STATE_SUCCEEDED")
    text = client.files.download(file=job.dest.file_name)
    results = {line["key"]: line for line in map(json.loads, text.splitlines())}
    assert list(results) != [line["key"] for line in asked]
    assert results.pop("n-bad")["error"]["code"] == 3
    for number in range(20):
        assert results.pop(f"n-{number}") == {
            "key": f"n-{number}", "response": gemini_live(provider, f"question {number}"),
        }  # fmt: skip
    assert not results
    assert len(job.dest.file_name.removeprefix("files/")) == 42
    with pytest.raises(errors.ClientError, match="at most 40"):
        client.files.delete(name=job.dest.file_name)
    client.files.delete(name=file.name)
    client.batches.delete(name=job.name)
    assert list(client.batches.list()) == []


def test_gemini_inline_and_embeddings(provider, opened):
    client = gemini(opened, provider)
    texts = [f"question {number}" for number in range(5)]
    src = [contents(text) | {"metadata": {"key": text}} for text in texts]
    for one in src:
        one["config"] = {"max_output_tokens": 99}
        del one["generationConfig"]
    job = gemini_ended(client, client.batches.create(model="gemini-2.5-flash", src=src, config={"display_name": "n"}))
    assert [one.metadata["key"] for one in job.dest.inlined_responses] == texts
    said = [one.response.candidates[0].content.parts[0].text for one in job.dest.inlined_responses]
    live = [gemini_live(provider, text)["candidates"][0]["content"]["parts"][0]["text"] for text in texts]
    assert said == live
    inline = {"inlined_requests": {"contents": ["a", "b"], "config": {"output_dimensionality": 8}}}
    with pytest.warns(match="experimental"):
        job = client.batches.create_embeddings(model="gemini-embedding-001", src=inline, config={"display_name": "n"})
    job = gemini_ended(client, job)
    vectors = [one.response.embedding.values for one in job.dest.inlined_embed_content_responses]
    body = {"requests": [{"content": {"parts": [{"text": text}]}, "outputDimensionality": 8} for text in "ab"]}
    live = request(f"{provider.gemini_url}/models/gemini-embedding-001:batchEmbedContents", body)[1]
    assert vectors == [vector["values"] for vector in live["embeddings"]]


def test_gemini_lists_in_pages_cancels_and_expires(opened):
    stuck = BatchFault("stuck:PENDING", on=[13])
    with SimulatedProvider(batches=SimulatedBatches(delay=1000.0, faults=[stuck])) as provider:
        client = gemini(opened, provider)
        src = [contents("x") | {"config": {}}]
        del src[0]["generationConfig"]
        made = []
        for _ in range(13):
            made.append(client.batches.create(model="m", src=src, config={"display_name": "n"}).name)
        assert [job.name for job in client.batches.list(config={"page_size": 5})] == made[::-1]
        assert list(gemini(opened, provider, "other").batches.list()) == []
        client.batches.cancel(name=made[0])
        provider.advance(hours=49)
        states = [client.batches.get(name=name).state.name for name in (made[0], made[1], made[12])]
        assert states == ["JOB_STATE_CANCELLED", "JOB_STATE_SUCCEEDED", "JOB_STATE_EXPIRED"]
        assert client.batches.get(name=made[12]).dest is None
        assert provider.batches.batch.answers == 11
    with SimulatedProvider(batches=SimulatedBatches(delay=1000.0, queue_tokens=1)) as provider:
        errors = pytest.importorskip("google.genai.errors")
        client = gemini(opened, provider)
        src[0]["contents"][0]["parts"][0]["text"] = "more than one token"
        with pytest.raises(errors.ClientError, match="429"):
            client.batches.create(model="m", src=src, config={"display_name": "n"})


def test_mistral(provider, opened):
    client_module = pytest.importorskip("mistralai.client")
    client = client_module.Mistral(api_key="k", server_url=f"{provider.url}/mistral")
    bodies = {f"n-{number}": {"messages": [{"role": "user", "content": f"q {number}"}]} for number in range(20)}
    lines = jsonl({"custom_id": name, "body": body} for name, body in bodies.items())
    file = client.files.upload(file={"file_name": "bllm-n.jsonl", "content": lines}, purpose="batch")
    assert [found.id for found in client.files.list(search="bllm-n", purpose="batch").data] == [file.id]
    more = {"model": "mistral-small", "endpoint": "/v1/chat/completions", "metadata": {"nonce": "n"}}
    job = client.batch.jobs.create(input_files=[file.id], **more)
    job = wait(lambda: client.batch.jobs.get(job_id=job.id), lambda seen: seen.status == "SUCCESS")
    assert (job.succeeded_requests, job.failed_requests, job.metadata) == (20, 0, {"nonce": "n"})
    results = [json.loads(line) for line in client.files.download(file_id=job.output_file).read().splitlines()]
    for line in results:
        body = bodies.pop(line["custom_id"]) | {"model": "mistral-small"}
        assert request(f"{provider.batch_url('mistral')}/chat/completions", body)[1] == line["response"]["body"]
    assert not bodies
    inline = [{"custom_id": "a", "body": {"messages": MESSAGES}}]
    job = client.batch.jobs.create(requests=inline, **more)
    job = wait(lambda: client.batch.jobs.get(job_id=job.id, inline=True), lambda seen: seen.status == "SUCCESS")
    assert job.outputs[0]["response"]["status_code"] == 200
    for _ in range(10):
        client.batch.jobs.create(requests=inline, **more | {"model": "other"})
    pages = [client.batch.jobs.list(page=page, page_size=5) for page in range(4)]
    assert [len(page.data or []) for page in pages] == [5, 5, 2, 0]
    assert pages[0].total == 12
    assert client.batch.jobs.list(model="mistral-small").total == 2
    assert client.batch.jobs.delete(job_id=job.id).deleted
    assert client.batch.jobs.list(model="mistral-small").total == 1


def test_groq(provider, opened):
    groq = pytest.importorskip("groq")
    client = opened(groq.Groq(base_url=f"{provider.url}/groq", api_key="k", max_retries=0))
    made = []
    for _ in range(25):
        file = client.files.create(file=("a.jsonl", jsonl(chat_lines(3))), purpose="batch")
        batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="7d")
        made.append(batch.id)
    assert [batch.id for batch in client.batches.list().data] == made[::-1]
    batch = wait(lambda: client.batches.retrieve(made[0]), lambda seen: seen.status == "completed")
    assert batch.expires_at == batch.created_at + 7 * 86_400
    results = [json.loads(line) for line in client.files.content(batch.output_file_id).read().splitlines()]
    assert {line["custom_id"] for line in results} == {"n-0", "n-1", "n-2"}
    raw = request(f"{provider.batch_url('groq')}/batches/{made[0]}")[1]
    assert not {"usage", "model"} & set(raw)


def test_together(provider, opened, tmp_path):
    together = pytest.importorskip("together")
    client = opened(together.Together(base_url=f"{provider.url}/together", api_key="k", max_retries=0))
    path = tmp_path / "bllm-n.jsonl"
    lines = [{"custom_id": line["custom_id"], "body": line["body"]} for line in chat_lines(20)]
    lines.append({"custom_id": "n-bad", "body": {"model": "m", "messages": []}})
    path.write_bytes(jsonl(lines))
    file = client.files.upload(file=path, purpose="batch-api", check=False)
    job = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions").job
    job = wait(lambda: client.batches.retrieve(job.id), lambda seen: seen.status == "COMPLETED")
    assert (job.progress, job.x_model_id, job.file_size_bytes) == (100.0, "m", path.stat().st_size)
    results = [json.loads(line) for line in client.files.content(job.output_file_id).read().splitlines()]
    assert len(results) == 20
    (error,) = [json.loads(line) for line in client.files.content(job.error_file_id).read().splitlines()]
    assert (error["custom_id"], error["error"]["code"]) == ("n-bad", 400)
    for _ in range(24):
        client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions")
    assert len(client.batches.list()) == 25
    assert [one.filename for one in client.files.list().data if one.purpose == "batch-api"] == ["bllm-n.jsonl"]


def test_xai(opened):
    with SimulatedProvider(batches=SimulatedBatches(delay=1000.0)) as provider:
        url = provider.batch_url("xai")
        batch = request(f"{url}/batches", {"name": "n"})[1]
        at = f"{url}/batches/{batch['batch_id']}"
        assert batch["state"]["num_requests"] == 0
        bodies = {f"n-{number}": {"model": "grok-4", "messages": MESSAGES, "n": number + 1} for number in range(20)}

        def add(names, model="grok-4"):
            asked = [
                {"batch_request_id": name, "batch_request": {"chat_get_completion": bodies[name] | {"model": model}}}
                for name in names
            ]
            return request(f"{at}/requests", {"batch_requests": asked})

        names = list(bodies)
        assert add(names[:10]) == (200, {})
        provider.advance(seconds=500)
        status = request(at)[1]["state"]
        assert (status["num_requests"], status["num_pending"]) == (10, 5)
        assert len(request(f"{at}/results")[1]["results"]) == 5, "while it runs"
        assert add(names[9:])[0] == 400, "one is there already"
        assert add(names[10:], "grok-4.6")[0] == 400
        assert add(names[10:])[0] == 200
        there = request(f"{at}/requests?limit=1000")[1]["batch_request_metadata"]
        assert [line["batch_request_id"] for line in there] == names
        provider.advance(seconds=1000)
        assert request(at)[1]["state"]["num_pending"] == 0
        results, token = [], ""
        while token is not None:
            page = request(f"{at}/results?limit=7&pagination_token={token}")[1]
            results, token = results + page["results"], page["pagination_token"]
        for line in results:
            live = request(f"{url}/chat/completions", bodies.pop(line["batch_request_id"]))[1]
            assert line["batch_result"]["response"]["chat_get_completion"] == live
        assert not bodies
        assert provider.batches.batches[0].end == "completed"
        other = request(f"{url}/batches", {"name": "second"})[1]
        request(f"{url}/batches/{other['batch_id']}:cancel", {})
        assert add(["n-0"]) if bodies else True
        listed = request(f"{url}/batches?limit=1")[1]
        assert (listed["batches"][0]["name"], listed["pagination_token"]) == ("second", "1")


def test_openrouter(provider, opened):
    url = provider.batch_url("openrouter")
    asked = [{"custom_id": f"n-{number}", "body": {"messages": MESSAGES, "n": number + 1}} for number in range(5)]
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
    asked.append({"custom_id": "n-image", "body": {"messages": [{"role": "user", "content": [image]}]}})
    wrong = {"requests": asked, "endpoint": "/v1/chat/completions", "model": "m"}
    assert request(f"{url}/batches", wrong)[0] == 400, "the order of fields counts"
    right = {"endpoint": "/v1/chat/completions", "model": "m", "requests": asked}
    status, batch = request(f"{url}/batches", right)
    assert (status, batch["object"]) == (202, "batch")
    at = f"{url}/batches/{batch['id']}"
    batch = wait(lambda: request(at)[1], lambda seen: seen["status"] == "completed")
    results = {line["custom_id"]: line["response"] for line in batch["results"]}
    assert results.pop("n-image")["status_code"] == 400
    for line in asked[:5]:
        live = request(f"{url}/chat/completions", line["body"] | {"model": "m"})[1]
        assert results.pop(line["custom_id"]) == {"status_code": 200, "body": live}
    assert request(f"{url}/batches")[1]["data"][0]["id"] == batch["id"]
    assert request(at, method="DELETE")[0] == 200
    assert request(at)[0] == 404
