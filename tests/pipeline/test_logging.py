"""What runs say in the log: quiet by default, a line per change of state, fields for machines."""

from __future__ import annotations

import logging
import subprocess
import sys

from batch_llm import (
    LLMCallStrategy,
    LLMWorkItem,
    ParallelBatchProcessor,
    ProcessorConfig,
    RetryConfig,
    process_prompts,
)
from batch_llm.testing import FakeRateLimitError

from ..helpers import Echo, Scripted

QUICK = ProcessorConfig(retry=RetryConfig(max_attempts=2, initial_wait=0.001, max_wait=0.001))


def above_debug(caplog):
    return [record for record in caplog.records if record.levelno > logging.DEBUG]


def test_nothing_is_printed_unless_the_program_sets_up_logging():
    program = "import batch_llm; batch_llm.run(lambda prompt: 1 / 0, ['a', 'b'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == done.stdout == ""


async def test_a_thousand_failures_are_a_handful_of_lines(caplog):
    def fail(prompt):
        raise ConnectionError("gone")

    with caplog.at_level(logging.INFO, logger="batch_llm"):
        await process_prompts(fail, ["x"] * 1000, config=QUICK)
    assert len([record for record in above_debug(caplog) if hasattr(record, "item_id")]) == 6
    assert len(above_debug(caplog)) < 15


async def test_failing_hooks_are_a_handful_of_lines_too(caplog):
    class Broken(LLMCallStrategy[str]):
        async def execute(self, prompt, attempt, timeout, state=None):
            raise ConnectionError("gone")

        async def on_error(self, exception, attempt, state=None):
            raise RuntimeError("this too")

        async def cleanup(self):
            raise RuntimeError("and this")

    with caplog.at_level(logging.WARNING, logger="batch_llm"):
        processor = ParallelBatchProcessor(config=QUICK, post_processor=lambda result: 1 / 0)
        for number in range(200):
            await processor.add_work(LLMWorkItem(str(number), Broken(), "x"))
        await processor.process_all()
    assert len(above_debug(caplog)) < 30
    hooks = {record.hook for record in above_debug(caplog) if record.event == "hook_failed"}
    assert hooks == {"the strategy's on_error()", "cleanup()", "the post-processor"}


async def test_records_have_fields_for_machines(caplog):
    def script(prompt, attempt):
        if prompt == "bad":
            return ValueError("wrong")
        return FakeRateLimitError() if attempt == 1 else prompt

    config = ProcessorConfig(max_workers=2, retry=RetryConfig(max_attempts=1), enable_detailed_logging=True)
    with caplog.at_level(logging.DEBUG, logger="batch_llm"):
        await process_prompts(Scripted(script), ["good", "bad"], config=config, rate_limit_cooldown=0.01)
    by_event = {record.event: record for record in caplog.records if hasattr(record, "event")}
    assert by_event["item_failed"].item_id == "item_1"
    assert by_event["item_failed"].error_type == "ValueError"
    assert by_event["item_failed"].levelno == logging.ERROR
    assert by_event["attempt_failed"].error_category == "rate_limit"
    assert by_event["attempt_failed"].attempt == 1
    assert by_event["cooldown_started"].seconds > 0
    assert by_event["cooldown_started"].consecutive == 1
    assert by_event["cooldown_ended"].seconds > 0
    assert by_event["item_succeeded"].item_id == "item_0"
    assert (by_event["run_ended"].succeeded, by_event["run_ended"].failed) == (1, 1)


async def test_the_place_of_a_record_is_where_it_was_said(caplog):
    with caplog.at_level(logging.INFO, logger="batch_llm"):
        await process_prompts(Echo(), ["a"])
    assert {record.filename for record in caplog.records} == {"events.py"}


async def test_successes_are_not_in_the_log_by_default(caplog):
    with caplog.at_level(logging.INFO, logger="batch_llm"):
        await process_prompts(Echo(), ["a"] * 50)
    assert not [record for record in caplog.records if hasattr(record, "item_id")]
