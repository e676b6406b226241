"""Lanes on the command line: ``run --lane``, ``batches``, ``collect``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from batch_llm.testing import SimulatedBatches, SimulatedProvider

from ..cli_helpers import call, lines, write_lines

ROWS = [{"id": str(number), "prompt": f"prompt {number}"} for number in range(20)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    write_lines(tmp_path / "in.jsonl", *ROWS)
    return tmp_path


def ask(provider, *arguments, **options):
    base = ("--base-url", provider.batch_url("openai"))
    return call("run", "in.jsonl", "-m", "openai:gpt-4.1-mini", "-q", "-o", "out.jsonl", *base, *arguments, **options)


def test_rows_are_answered_in_batches(folder):
    with SimulatedProvider() as provider:
        done = ask(provider, "--lane", "batch")
        ledger = provider.batches
    assert "20 of 20 answered" in done.stderr
    assert len(lines(folder / "out.jsonl")) == 20
    # The first one goes live, before the batch is made.
    assert (ledger.batch.answers, ledger.live.answers) == (19, 1)


def test_a_deadline_decides_what_goes_into_batches(folder):
    with SimulatedProvider() as provider:
        far = ask(provider, "--lane", "auto", "--deadline", "8h")
        in_batches = provider.batches.batch.answers
        near = ask(provider, "--lane", "auto", "--deadline", "60s", "--store", "near.db", "-o", "near.jsonl")
        ledger = provider.batches
    assert "20 of 20 answered" in far.stderr
    # One shows that such requests are answered, and up to eight how fast that is.
    assert 11 <= in_batches < 20
    assert "20 of 20 answered" in near.stderr
    assert (ledger.batch.answers, ledger.live.answers) == (in_batches, 40 - in_batches)


def test_without_a_probe_all_rows_are_in_batches(folder):
    with SimulatedProvider() as provider:
        done = ask(provider, "--lane", "batch", "--no-probe")
        ledger = provider.batches
        refused = ask(provider, "--no-probe", code=2)
    assert "20 of 20 answered" in done.stderr
    assert (ledger.batch.answers, ledger.live.answers) == (20, 0)
    assert "--no-probe needs --lane batch or --lane auto" in refused.stderr


def test_batches_are_left_listed_and_collected(folder):
    with SimulatedProvider(batches=SimulatedBatches(delay=3600)) as provider:
        left = ask(provider, "--lane", "batch", "--no-wait")
        assert "19 rows are waiting in batches; see: batch-llm batches out.jsonl.store.db" in left.stderr
        assert not (folder / "out.jsonl").exists()
        listed = call("batches", "out.jsonl.store.db").stdout
        assert "openai:gpt-4.1-mini" in listed
        assert "19 requests" in listed
        provider.advance(hours=2)
        collected = call("collect", "out.jsonl.store.db").stdout
        assert "19 to be taken by the next run" in collected
        done = ask(provider, "--lane", "batch")
        ledger = provider.batches
        [ticket] = json.loads(call("batches", "out.jsonl.store.db", "--json").stdout)
    assert "20 of 20 answered" in done.stderr
    assert (ledger.calls["create"], ledger.batch.answers) == (1, 19)
    assert (ticket["stage"], ticket["waiting"]) == ("collected", 0)
    assert ticket["cost"] == pytest.approx(ledger.batch.cost)


def advance_once_cancelled(provider):
    while provider.batches.calls.get("cancel", 0) == 0:
        time.sleep(0.01)
    provider.advance(hours=1)


def advance_once_made(provider, batches):
    while provider.batches.calls.get("create", 0) < batches:
        time.sleep(0.01)
    provider.advance(hours=2)


def test_cancelled_batches_keep_what_was_answered(folder):
    with SimulatedProvider(batches=SimulatedBatches(delay=3600)) as provider:
        ask(provider, "--lane", "batch", "--no-wait")
        provider.advance(minutes=30)
        ticking = threading.Thread(target=advance_once_cancelled, args=[provider])
        ticking.start()
        listed = call("batches", "out.jsonl.store.db", "--cancel").stdout
        ticking.join()
        answered = provider.batches.batch.answers
        assert 0 < answered < 20
        assert f"{answered:,} to be taken by the next run" in listed
        ticking = threading.Thread(target=advance_once_made, args=[provider, 2])
        ticking.start()
        ask(provider, "--lane", "batch")
        ticking.join()
        ledger = provider.batches
    assert (ledger.live.answers, ledger.batch.answers, ledger.paid_twice) == (1, 19, 0)
    assert len(lines(folder / "out.jsonl")) == 20


def test_a_store_without_batches_has_none(folder):
    with SimulatedProvider() as provider:
        ask(provider)
        assert call("batches", "out.jsonl.store.db").stdout == "no batches\n"
        assert call("collect", "out.jsonl.store.db").stdout == "no batches\n"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--lane", "batch", "--no-store"), "--lane batch needs a store"),
        (("--no-wait",), "--no-wait needs --lane batch"),
        (("--lane", "auto", "--deadline", "soon"), "such as 90, 90s, 30m or 8h"),
        (("--lane", "bulk"), "is not one of"),
    ],
)
def test_what_cannot_work_is_said(folder, arguments, problem):
    with SimulatedProvider() as provider:
        assert problem in ask(provider, *arguments, code=2).stderr


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_ctrl_c_leaves_batches_and_says_how_to_go_on(folder):
    with SimulatedProvider(batches=SimulatedBatches(delay=3600)) as provider:
        program = [sys.executable, "-m", "batch_llm", "run", "in.jsonl", "-m", "openai:gpt-4.1-mini", "-o", "out.jsonl"]
        program += ["--base-url", provider.batch_url("openai"), "--lane", "batch"]
        process = subprocess.Popen(program, stderr=subprocess.PIPE, text=True, env={**os.environ})
        while provider.batches.calls.get("create", 0) == 0:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        said = process.communicate()[1]
        assert process.returncode == 130
        assert "batch-llm collect out.jsonl.store.db" in said
        assert "batch-llm batches out.jsonl.store.db --cancel" in said
        provider.advance(hours=2)
        assert "20 of 20 answered" in ask(provider, "--lane", "batch").stderr
        assert provider.batches.calls["create"] == 1
