"""Faults of the simulated batch APIs that are seen on the network. Those of states are tested in Rust."""

from __future__ import annotations

import json
import ssl
import threading
import urllib.request

import pytest

from batch_llm.testing import BatchFault, Fault, SimulatedBatches, SimulatedProvider

from .batch_clients import SOON, chat_lines, claude, ended, jsonl, params, read, request, sdk, submit, wait


def with_fault(kind, **more):
    return SimulatedProvider(batches=SimulatedBatches(delay=0, faults=[BatchFault(kind, on=[1], **more)]))


def test_a_reply_is_lost_and_the_list_finds_the_batch(opened):
    openai = pytest.importorskip("openai")
    with with_fault("create_lost") as provider:
        client = sdk(opened, provider)
        with pytest.raises(openai.APIConnectionError):
            submit(client, chat_lines(3), metadata={"nonce": "abc"})
        (batch,) = client.batches.list()
        assert batch.metadata == {"nonce": "abc"}
        assert ended(client, batch).status == "completed"
        assert provider.batches.per_nonce == {"abc": 1}
        assert provider.batches.violations == []
    with with_fault("create_500_not_made") as provider:
        client = sdk(opened, provider)
        with pytest.raises(openai.InternalServerError):
            submit(client, chat_lines(3, nonce="abc"))
        assert provider.batches.batches == []
        submit(client, chat_lines(3, nonce="abc"))
        assert [violation.rule for violation in provider.batches.violations] == ["create_without_list"]
        assert provider.batches.per_nonce == {"abc": 1}


def test_an_upload_is_cut(opened):
    openai = pytest.importorskip("openai")
    with with_fault("upload_cut") as provider:
        client = sdk(opened, provider)
        lines = jsonl(chat_lines(20_000))
        with pytest.raises(openai.APIConnectionError):
            client.files.create(file=("a.jsonl", lines), purpose="batch")
        assert list(client.files.list()) == []
        assert client.files.create(file=("a.jsonl", lines), purpose="batch").bytes == len(lines)


def test_a_download_is_cut_once(opened):
    with with_fault("cut_download") as provider:
        client = sdk(opened, provider)
        batch = ended(client, submit(client, chat_lines(1000)))
        with pytest.raises(Exception, match="Connection error|incomplete|peer closed"):
            read(client, batch.output_file_id)
        assert len(read(client, batch.output_file_id)) == 1000


def test_results_of_anthropic_without_a_content_type_and_with_separators(opened):
    anthropic = pytest.importorskip("anthropic")
    with SimulatedProvider(
        batches=SimulatedBatches(delay=0, faults=[BatchFault("no_content_type", on=[1]), BatchFault("u2028", every=1)])
    ) as provider:
        client = claude(opened, provider)
        asked = [{"custom_id": str(number), "params": params("x")} for number in range(20)]
        batch = client.messages.batches.create(requests=asked)
        wait(lambda: client.messages.batches.retrieve(batch.id), lambda seen: seen.processing_status == "ended")
        url = f"{provider.url}/v1/messages/batches/{batch.id}/results"
        with urllib.request.urlopen(urllib.request.Request(url, headers={"x-api-key": "k"})) as reply:
            assert reply.headers["content-type"] is None
            lines = reply.read()
        assert lines.count("\u2028".encode()) == 2
        assert len(lines.splitlines()) == 20
        assert len(lines.decode().splitlines()) > 20
        assert {json.loads(line)["custom_id"] for line in lines.split(b"\n") if line} == {str(n) for n in range(20)}
        assert anthropic is not None


def test_faults_of_requests_and_keys_hold_for_batches_too(opened):
    with SimulatedProvider(faults=[Fault(503, on=[2])], api_key="right", batches=SOON) as provider:
        url = f"{provider.base_url}/batches"
        assert [request(url, key=key)[0] for key in ("right", "right", "right", "wrong")] == [200, 503, 200, 401]
        assert request(f"{provider.url}/v1/messages/batches", key="wrong")[1]["type"] == "error"


def test_addresses_in_replies_are_encrypted_with_tls(opened):
    anthropic = pytest.importorskip("anthropic")
    with SimulatedProvider(tls=True, batches=SOON) as provider:
        context = ssl.create_default_context(cadata=provider.ca)
        http_client = anthropic.DefaultHttpxClient(verify=context)
        client = opened(anthropic.Anthropic(base_url=provider.url, api_key="k", http_client=http_client))
        batch = client.messages.batches.create(requests=[{"custom_id": "a", "params": params("x")}])
        batch = wait(lambda: client.messages.batches.retrieve(batch.id), lambda seen: seen.processing_status == "ended")
        assert batch.results_url.startswith(provider.url)
        assert [line.custom_id for line in client.messages.batches.results(batch.id)] == ["a"]


def test_live_requests_are_answered_while_a_large_batch_is_read(opened):
    with SimulatedProvider(batches=SOON) as provider:
        client = sdk(opened, provider)
        thread = threading.Thread(target=submit, args=(client, list(chat_lines(50_000))))
        thread.start()
        answered = 0
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
        while thread.is_alive():
            assert request(f"{provider.base_url}/chat/completions", body)[0] == 200
            answered += 1
        assert answered > 0
        wait(lambda: provider.batches, lambda ledger: ledger.batches and ledger.batches[0].end)
        assert provider.batches.batch.answers == 50_000


def test_many_clients_make_batches_at_the_same_time(opened):
    with SimulatedProvider(batches=SOON) as provider:
        client = sdk(opened, provider)
        file = client.files.create(file=("a.jsonl", jsonl(chat_lines(5))), purpose="batch")

        def make():
            for _ in range(25):
                client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")

        threads = [threading.Thread(target=make) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        listed = [batch.id for batch in client.batches.list(limit=100)]
        assert len(set(listed)) == len(listed) == 250
        wait(lambda: provider.batches, lambda ledger: not ledger.open)
        assert (provider.batches.batch.answers, provider.batches.paid_twice) == (1250, 1245)
