"""Exceptions that end programs, raised wherever the user has a say: the run ends with them, and nothing hangs."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from batch_llm import LLMCallStrategy, process_prompts, run, stream

from ..ending import ENDING, FAILING, KINDS, SURFACES, Custom
from ..helpers import script, until

THOROUGHLY = ("process_all", "run")
"""Surfaces on which all kinds are tried; on the others one, or two where they differ."""
BLOCKING = ("run", "run, stored", "stream", "run_frame")


@pytest.fixture(params=SURFACES)
def told(request) -> tuple[str, list[dict[str, Any]], str]:
    """What a program said that tried all places of a surface."""
    surface = request.param
    others = ["SystemExit", *["GeneratorExit"] * (surface in ("process_prompts", "stream", "call"))]
    kinds = list(KINDS) if surface in THOROUGHLY else others
    command = [sys.executable, "-m", "tests.ending", surface, ",".join(kinds)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=180, cwd=Path(__file__).parents[2], check=False
        )
    except subprocess.TimeoutExpired as late:
        out = late.stdout or b""
        pytest.fail(f"hangs: {out.decode().splitlines()[-1]}")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1] == {"ends": True}, (lines[-1], done.stderr)
    return surface, [line for line in lines if "case" in line], done.stderr


def test_a_run_ends_with_the_very_exception_and_what_was_done(told):
    surface, cases, stderr = told
    assert cases
    assert stderr == ""
    problems = []
    for case in cases:
        kind, place = case["case"]
        # A task of the user's own takes asyncio's loop along, with whatever runs on it.
        has_partial = not (place == "task" and surface not in BLOCKING and kind in ("SystemExit", "KeyboardInterrupt"))
        partial = "DataFrame" if surface == "run_frame" else "BatchResult" if has_partial else "NoneType"
        fine = case["after"] == 2 and not case["noise"]
        if kind in ENDING:
            fine = fine and (case.get("raised"), case["partial"]) == (kind, partial)
        elif "source" in place:
            fine = fine and ("raised" in case or kind in FAILING)
        else:
            fine = fine and "raised" not in case
        if case.get("cleaned") == 0 and place != "dry_run" and surface != "own processor":
            fine = False
        if not fine:
            problems.append(case)
    assert problems == []


@pytest.mark.parametrize("kind", FAILING)
@pytest.mark.parametrize("plain", [True, False])
def test_what_only_ends_an_iteration_fails_an_item_at_once(kind, plain):
    calls = []

    def function(prompt):
        calls.append(prompt)
        if prompt == "1":
            raise KINDS[kind]()
        return prompt

    async def coroutine(prompt):
        return function(prompt)

    batch = run(function if plain else coroutine, ["0", "1", "2"])
    assert [bool(result.success) for result in batch.in_input_order().results] == [True, False, True]
    assert kind in str(batch.failures[0].error)
    assert calls.count("1") == 1


def test_the_item_that_raised_has_a_result_that_says_so():
    begun = []

    async def leave(prompt):
        begun.append(prompt)
        if prompt == "1":
            while len(begun) < 3:
                await asyncio.sleep(0.001)
            raise SystemExit("no licence")
        await asyncio.sleep(1000.0 * (prompt == "2"))
        return prompt

    with pytest.raises(SystemExit) as caught:
        run(leave, ["0", "1", "2"])
    batch = caught.value.partial_result.in_input_order()
    assert [str(result.error).split(":")[0] for result in batch.results] == ["None", "SystemExit", "CancelledError"]


def test_a_stream_gives_out_what_was_done_before():
    async def leave(prompt):
        if prompt == "3":
            raise Custom("enough")
        return prompt

    seen = []

    def read():
        for result in stream(leave, [str(number) for number in range(10)], concurrency=1):
            seen.append(result.output)

    with pytest.raises(Custom) as caught:
        read()
    assert seen[:3] == ["0", "1", "2"]
    assert caught.value.partial_result.stats.succeeded == 3


def test_cleaning_up_that_ends_the_program_does_not_keep_others_from_it():
    cleaned = []

    class Leaving(LLMCallStrategy[str]):
        def __init__(self, name):
            self.name = name

        async def execute(self, prompt, attempt, timeout, state=None):
            return prompt, {}

        async def cleanup(self):
            cleaned.append(self.name)
            if self.name == "first":
                raise SystemExit(self.name)

    from batch_llm import LLMWorkItem

    items = [LLMWorkItem(name, Leaving(name), name) for name in ("first", "second")]
    with pytest.raises(SystemExit) as caught:
        run(Leaving("unused"), items)
    assert cleaned == ["first", "second"]
    assert caught.value.partial_result.succeeded == 2


def test_a_cancelled_run_whose_hook_ends_the_program_does_so():
    begun = []

    class Leaving(LLMCallStrategy[str]):
        async def execute(self, prompt, attempt, timeout, state=None):
            begun.append(prompt)
            try:
                await asyncio.sleep(100)
            finally:
                raise SystemExit("on the way out")

    async def main():
        running = asyncio.ensure_future(process_prompts(Leaving(), ["x"]))
        await until(lambda: begun)
        running.cancel()
        await running

    with pytest.raises(SystemExit, match="on the way out"):
        asyncio.run(main())


def test_leaving_by_sys_exit_has_its_exit_code_and_no_noise():
    done = script(
        """
        def ask(prompt):
            if prompt == "5":
                sys.exit(7)
            return prompt

        run_(ask, [str(number) for number in range(100)])
        """.replace("run_", "__import__('batch_llm').run")
    )
    assert (done.returncode, done.stderr) == (7, "")
