"""Stores in buckets, against a real S3 API on loopback: pages, prefixes, and everything that can be wrong with one."""

from __future__ import annotations

import logging
import os
import re
import socket

import pytest
from click.testing import CliRunner

from batch_llm import ArtifactIOError, inspect, process_prompts, run
from batch_llm.cli.main import main

from .. import buckets
from ..helpers import Echo
from .test_segments import ask


def object_url(place: str) -> str:
    return place.replace("s3://", f"{os.environ['AWS_ENDPOINT_URL']}/")


def names(place: str) -> list[str]:
    """What is in a bucket."""
    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    listing = buckets.ask(f"{os.environ['AWS_ENDPOINT_URL']}/{bucket}?list-type=2&prefix={prefix}", "GET").decode()
    return re.findall("<Key>(.*?)</Key>", listing)


def refused(store: str, match: str) -> str:
    """The error of a run that must not send anything."""
    strategy = Echo()
    with pytest.raises(ArtifactIOError, match=match) as caught:
        run(strategy, ["a"], store=store)
    assert not strategy.calls
    message = str(caught.value)
    assert message.startswith(f"{store}: ")
    assert buckets.KEY not in message
    assert buckets.SECRET not in message
    assert len(message) < 600
    return message


def test_a_large_run_is_found_again(bucket, tmp_path):
    prompts = [f"{number}" for number in range(3_000)]
    store = f"{bucket}/a/run"
    assert ask(store, *prompts)[0] == 3_000
    assert ask(store, *prompts)[0] == 0
    view = inspect(store)
    assert view.succeeded == 3_000
    records, removed = view.compact(tmp_path / "out.db", remove=True)
    assert records == 3_000
    assert removed > 0
    assert names(store) == []


def test_listings_have_pages(bucket, monkeypatch):
    """More segments than a page of the API has."""
    store = f"{bucket}/run"
    ask(store, "a")
    (name,) = [name for name in names(store) if b'"output":"a"' in buckets.ask(object_url(f"{bucket}/{name}"), "GET")]
    content = buckets.ask(object_url(f"{bucket}/{name}"), "GET")
    for number in range(2 * buckets.PAGE + 1):
        early = re.sub(r"\d{13}-", f"{number:013}-", name, count=1)
        buckets.ask(object_url(f"{bucket}/{early}"), "PUT", content)
    view = inspect(f"{store}/")
    assert view.records == 2 * buckets.PAGE + 2


def test_prefixes_of_a_bucket_are_apart(bucket):
    ask(f"{bucket}/run", "a")
    assert ask(f"{bucket}/run-2", "a")[0] == 1
    assert ask(bucket, "a")[0] == 1
    assert ask(f"{bucket}/run/more", "a")[0] == 1
    assert ask(f"{bucket}/run", "a")[0] == 0


def test_other_objects_are_left_alone(bucket, tmp_path, caplog):
    store = f"{bucket}/run"
    for name in ("notes.txt", "1764265000000.jsonl", "deeper/1764265000000-0123456789ab-000000.jsonl"):
        buckets.ask(object_url(f"{store}/{name}"), "PUT", b"mine")
    with caplog.at_level(logging.WARNING, "batch_llm"):
        ask(store, "a")
    assert "2 files are ignored" in caplog.text
    inspect(store).compact(tmp_path / "out.db", remove=True)
    assert len(names(store)) == 3
    assert buckets.ask(object_url(f"{store}/notes.txt"), "GET") == b"mine"


def test_damage_to_one_segment_costs_that_one(bucket):
    store = f"{bucket}/run"
    for prompt in "abc":
        ask(store, prompt)
    for name in names(store):
        content = buckets.ask(object_url(f"{bucket}/{name}"), "GET")
        if b'"output":"b"' in content:
            buckets.ask(object_url(f"{bucket}/{name}"), "PUT", content[: len(content) // 2])
    strategy = Echo()
    run(strategy, ["a", "b", "c"], store=f"{store}/")
    assert [prompt for prompt, _ in strategy.calls] == ["b"]


# What can be wrong


def test_a_missing_bucket_is_named_with_the_remedy(bucket):
    refused("s3://no-such-bucket/run", "create the bucket, or check its name and region")
    shown = CliRunner().invoke(main, ["inspect", "s3://no-such-bucket/run"])
    assert shown.exit_code == 1
    assert "s3://no-such-bucket/run" in shown.output
    assert "create the bucket" in shown.output


def test_wrong_credentials_are_named_without_them(s3, bucket):
    ask(f"{bucket}/run", "a")
    buckets.ask(f"{s3}/moto-api/reset-auth", "POST", b"0")
    try:
        refused(f"{bucket}/run", "check the credentials in the environment .AWS_ACCESS_KEY_ID")
    finally:
        buckets.ask(f"{s3}/moto-api/reset-auth", "POST", b"inf")


def test_a_missing_account_is_named_with_the_variable(monkeypatch):
    for variable in [variable for variable in os.environ if variable.startswith("AZURE_")]:
        monkeypatch.delenv(variable)
    refused("az://container/run", "Account must be specified; set AZURE_STORAGE_ACCOUNT_NAME")


def test_credentials_that_may_only_read_are_an_error_before_anything_is_sent(bucket, front):
    front.fails["PUT"] = 403, 1 << 30
    refused(f"{bucket}/run", "writing a segment failed.*check the credentials.*allow listing, reading and writing")


def test_a_host_that_cannot_be_reached_is_an_error_before_anything_is_sent(bucket, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    refused(f"{bucket}/run", "check the network and the environment variables .AWS_ACCESS_KEY_ID")


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_bucket_that_answers_503_is_named_with_the_remedy(bucket, front, method):
    front.fails[method] = 503, 1 << 30
    refused(f"{bucket}/run", "503.*run again later")
    assert front.count(method) > 1, "it is tried again"


def test_an_outage_that_passes_ends_no_run(bucket, front):
    ask(f"{bucket}/run", "a")
    front.fails["PUT"] = 503, 3
    assert ask(f"{bucket}/run", "b")[0] == 1
    assert ask(f"{bucket}/run", "a", "b")[0] == 0


async def test_a_bucket_that_fails_during_a_run_ends_it_with_its_results(bucket, front):
    store = f"{bucket}/run"

    class Failing(Echo):
        async def execute(self, prompt, attempt, timeout, state=None):
            if prompt == "500":
                front.fails["PUT"] = 403, 1 << 30
            return await super().execute(prompt, attempt, timeout, state)

    with pytest.raises(ArtifactIOError, match=f"{store}: writing a segment failed") as caught:
        await process_prompts(Failing(0.005), [f"{number}" for number in range(5_000)], store=store)
    assert buckets.KEY not in str(caught.value)
    partial = caught.value.partial_result
    assert any(result.success for result in partial.results)
    front.fails.clear()
    stored = {result.item_id for result in inspect(store).results()}
    seen = {result.item_id for result in partial.results if result.success}
    assert len(stored) < 5_000
    assert stored <= seen
