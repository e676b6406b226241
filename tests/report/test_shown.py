"""What servers, files and other people write cannot move the cursor, forge a line of a log, or end the program."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest

from batch_llm import (
    CallableStrategy,
    EmbeddingStrategy,
    LLMWorkItem,
    ProcessorConfig,
    RetryConfig,
    inspect,
    llm,
    process_prompts,
    run,
)
from batch_llm._core import NativeClient, SchemaCheck, example, fingerprint
from batch_llm._shown import Lines, escaped, escaped_json, line
from batch_llm.serialization import to_plain

from ..served import DIALECTS, serve

ODD = "\x1b[2J\x1b]0;title\x07\r\x08\x9b31m\u202eevil\u2066\u2028\x7f\x00"
RAW = [letter for letter in ODD if not letter.isprintable()]
ONCE = ProcessorConfig(max_workers=2, timeout_per_item=20, retry=RetryConfig(max_attempts=1))


def assert_plain(text):
    assert not [letter for letter in RAW if letter in text], repr(text)


def test_control_characters_are_escapes():
    assert escaped("a\tb\nc") == "a\tb\nc"
    assert line("a\tb\nc") == "a\\tb\\nc"
    assert (
        line("caf\xe9 \u05e9\u05dc\u05d5\u05dd \U0001f469\u200d\U0001f680")
        == "caf\xe9 \u05e9\u05dc\u05d5\u05dd \U0001f469\u200d\U0001f680"
    )
    assert escaped("\x1b[1m\ud800") == "\\x1b[1m\\ud800"
    assert_plain(escaped(ODD))
    written = json.dumps({"text": ODD + "\U000e0041"}, ensure_ascii=False)
    assert_plain(escaped_json(written))
    assert json.loads(escaped_json(written)) == json.loads(written)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_errors_of_servers(tmp_path, caplog, dialect):
    replies = (
        (400, {"error": {"message": f"bad {ODD} request", "code": ODD}}, {}),
        (500, f"<html>{ODD}</html>".encode(), {"content-type": "text/html"}),
        (200, f"{ODD} nonsense".encode(), {}),
        (200, {"error": {"message": ODD}}, {}),
    )
    with serve() as served:
        for reply in replies:
            served.reply = lambda body, number, reply=reply: reply
            strategy = served.strategy(dialect)
            batch = run(strategy, ["x"], config=ONCE, progress=False, store=tmp_path / "a.db", resume="force")
            (result,) = batch.results
            assert not result.success
            for text in (result.error, str(result.exception), batch.summary(), caplog.text, repr(result)):
                assert_plain(text)
            assert_plain("".join(record.getMessage() for record in caplog.records))
            assert_plain(inspect(tmp_path / "a.db").summary())


def test_errors_of_strategies_of_ones_own(caplog):
    async def failing(prompt):
        raise RuntimeError(f"two\nlines {ODD}")

    batch = run(CallableStrategy(failing), ["x"], config=ONCE, progress=False)
    assert batch.results[0].error.startswith("RuntimeError: two\nlines")
    assert_plain(batch.results[0].error + batch.summary() + caplog.text)
    assert "two\\nlines" in caplog.text


async def test_ids_forge_no_lines(caplog):
    async def failing(prompt):
        raise RuntimeError("no\nERROR forged")

    item = LLMWorkItem("one\nERROR:root:forged\r\x1b[1A", CallableStrategy(failing), "x")
    batch = await process_prompts(CallableStrategy(failing), [("a\nb", "x")], config=ONCE)
    assert batch.results[0].item_id == "a\nb"
    from batch_llm import ParallelBatchProcessor

    async with ParallelBatchProcessor(config=ONCE) as processor:
        await processor.add_work(item)
        batch = await processor.process_all()
    assert batch.results[0].item_id == item.item_id
    for record in caplog.records:
        assert "\n" not in record.getMessage() or "What bound it" in record.msg
        assert_plain(record.getMessage())
    assert_plain(batch.summary())
    assert "\nERROR" not in batch.summary()


def test_texts_of_our_own_may_have_lines(caplog):
    from batch_llm._logs import logger

    with caplog.at_level(logging.INFO):
        logger.info("told: %s, %s, %d", Lines("a\nb"), "c\nd", 3)
    assert caplog.records[-1].getMessage() == "told: a\nb, c\\nd, 3"


def test_the_command_line(tmp_path):
    file = tmp_path / "in.jsonl"
    file.write_text(json.dumps({"id": f"x{ODD}", "prompt": "hello"}) + "\n")
    with serve(lambda body, number: (400, {"error": {"message": f"bad {ODD}"}}, {})) as served:
        command = ["run", str(file), "-m", "openai-compatible:m", "--base-url", f"{served.root}/v1", "-o",
                   str(tmp_path / "out.jsonl"), "--retries", "0"]  # fmt: skip
        texts = []
        for arguments in (
            command,
            ["inspect", str(tmp_path / "out.jsonl.store.db")],
            ["inspect", str(tmp_path / "out.jsonl.store.db"), "--failed"],
            ["inspect", str(tmp_path / "out.jsonl.store.db"), "--json"],
            ["run", str(broken(tmp_path)), "-m", "openai-compatible:m", "--base-url", served.root],
        ):
            done = subprocess.run(
                [sys.executable, "-m", "batch_llm", *arguments], capture_output=True, timeout=60
            )  # bytes: a text would have its ends of lines changed
            texts.append(done.stdout.decode() + done.stderr.decode())
    for text in texts:
        assert_plain("".join(part for part in text.split("\r") if part))  # a progress bar moves its own cursor
    assert json.loads(texts[2])["id"] == f"x{ODD}"


def broken(folder):
    path = folder / "broken.csv"
    path.write_text(f"text{ODD.replace(chr(0), '')},b\n1,2\n", encoding="utf-8", newline="")
    return path


FRAMING = [
    "Content-Length", "transfer-encoding", "HOST", "connection", "TE", "upgrade", "trailer", "Keep-Alive", "expect",
    "Proxy-Authorization", "proxy-connection", "http2-settings",
]  # fmt: skip


@pytest.mark.parametrize("name", FRAMING)
def test_framing_headers_are_not_the_users(name):
    for make in (llm, EmbeddingStrategy):
        with pytest.raises(ValueError, match=f"extra_headers cannot set '?\"?{name}"):
            make("openai:m", api_key="k", extra_headers={name: "1"})
    for bad in ({"x\r\ny": "1"}, {"x": "1\r\nHost: evil"}, {"x": "1\n"}, {"": "1"}, {"a b": "1"}, {":path": "/"}):
        with pytest.raises(ValueError, match="extra_headers"):
            llm("openai:m", api_key="k", extra_headers=bad)


def odd_values():
    """Values that nobody expects, some of them very deep."""
    deep = current = []
    for _ in range(5000):
        current.append([])
        current = current[0]
    loop = {}
    loop["loop"] = loop
    return [
        deep, loop, 10**400, -(10**30), float("nan"), float("inf"), "\ud800", "\x00", b"\xff", {1: 2}, {None: 1},
        {"": []}, [[]], [{}], object(), set(), "x" * 100_000, [None] * 1000, {"$ref": "#"}, {"type": ["x", 1]}, 1e308,
        True, (), -0.0,
        {"role": []}, [{"role": "user", "content": [{"type": "text"}]}], [{"role": "tool", "content": None}],
        {"anyOf": [{"$ref": "#/anyOf/0"}]}, {"allOf": [{"$ref": "#"}]}, {"minimum": 1e308, "type": "integer"},
        {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1, "multipleOf": 2**63 - 1},
        {"type": "string", "minLength": 2**62}, {"type": "array", "minItems": 2**62}, {"pattern": "(" * 1000},
        {"type": "number", "minimum": float("-inf")}, {"enum": []}, {"const": loop},
        {"properties": {"a": {"$ref": "#"}}},
    ]  # fmt: skip


def test_nothing_from_outside_panics():
    """Whatever is given: an answer, or an exception that is no BaseException of Rust's."""
    values, seen = odd_values(), []

    def tried(function):
        try:
            function()
        except Exception as error:
            seen.append(f"{type(error).__name__}: {error}")

    for value in values:
        tried(lambda value=value: fingerprint(value, to_plain))
        tried(lambda value=value: SchemaCheck(value).problem("{}"))
        tried(lambda value=value: NativeClient.check_prompt(value))
        tried(lambda value=value: NativeClient.measure([{"role": "user", "content": value}]))
        tried(lambda value=value: example(json.dumps(value)))
        tried(lambda value=value: llm("openai:m", api_key="k", response_model=value))
        tried(lambda value=value: llm("openai:m", api_key="k", tools=[{"name": "t", "parameters": value}]))
        tried(lambda value=value: llm("gemini:m", api_key="k", response_model=value))
        for option in ("temperature", "seed", "max_tokens", "stop", "n", "logprobs", "extra_body", "extra_headers"):
            tried(lambda value=value, option=option: llm("anthropic:m", api_key="k", **{option: value}))
        tried(lambda value=value: EmbeddingStrategy("openai:m", "k", dimensions=value))
    assert len(seen) > 100
    assert not [text for text in seen if "which is a bug" in text or "Panic" in text]
