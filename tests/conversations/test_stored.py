"""Conversations in stores: each step is recorded before the next, and none is paid for or run twice."""

import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from batch_llm import JsonlArtifactStore, ProcessorConfig, inspect, llm, process_prompts, run
from batch_llm.testing import SimulatedProvider

from ..served import serve
from .common import Steps, called, results, said

FORMATS = ["run.db", "run.jsonl", "segments/"]


def place(tmp_path, name):
    if name.endswith("/"):
        (tmp_path / name).mkdir()
    return tmp_path / name


class Ended(Exception):
    """The program ends here."""


@pytest.mark.parametrize("name", FORMATS)
def test_a_conversation_goes_on_where_it_was(tmp_path, name):
    store = place(tmp_path, name)
    steps = Steps(4)
    with SimulatedProvider() as provider:

        def strategy(rounds):
            return llm("openai:m", base_url=provider.base_url, tools=[steps.advance], rounds=rounds)

        first = run(strategy(3), ["call advance"], store=store)
        assert first.results[0].error_category == "rounds_exhausted"
        assert (provider.stats.requests, steps.ran["item_0"]) == (3, 2)
        second = run(strategy(8), ["call advance"], store=store)
        (result,) = second.results
        assert (result.success, result.rounds) == (True, 5)
        assert (provider.stats.requests, steps.ran["item_0"]) == (5, 4)
        assert [message["role"] for message in result.messages].count("tool") == 4
        # The whole conversation's tokens are in the result; those of this run, in its statistics.
        assert result.token_usage["input_tokens"] == provider.stats.input_tokens
        assert second.stats.total_input_tokens < provider.stats.input_tokens
        third = run(strategy(8), ["call advance"], store=store)
        assert (third.results[0].reused, third.results[0].rounds) == ("store", 5)
        assert third.results[0].messages == result.messages
        assert provider.stats.requests == 5
    seen = inspect(store)
    assert (seen.succeeded, seen.failed) == (1, 0)
    assert seen.input_tokens == provider.stats.input_tokens


def test_a_later_tool_has_the_idempotency_key_of_the_first_try(tmp_path):
    store = tmp_path / "run.db"
    keys = []

    async def charge(about) -> str:
        keys.append(about.idempotency_key)
        if len(keys) == 1:
            os_exit = SystemExit("killed in the middle of a tool")
            raise os_exit
        return "charged"

    from batch_llm import ToolContext

    charge.__annotations__["about"] = ToolContext
    with serve() as server:
        server.reply = lambda body, _: said("ok") if results(body) else called(("a", "charge", {}))
        strategy = server.strategy("chat", tools=[charge], rounds=3)
        with pytest.raises(SystemExit):
            run(strategy, ["go"], store=store)
        assert len(server.bodies) == 1
        assert run(strategy, ["go"], store=store).succeeded == 1
        assert len(server.bodies) == 2
    assert keys[0] == keys[1]


def test_a_tool_whose_result_was_recorded_does_not_run_again(tmp_path):
    store = tmp_path / "run.db"
    ran = []

    async def good() -> str:
        ran.append("good")
        return "fine"

    async def bad() -> str:
        ran.append("bad")
        if len(ran) < 3:
            import asyncio

            await asyncio.sleep(0.1)
            raise SystemExit("killed")
        return "fine, too"

    with serve() as server:
        server.reply = lambda body, _: (
            said(" and ".join(results(body))) if results(body) else called(("a", "good", {}), ("b", "bad", {}))
        )
        strategy = server.strategy("chat", tools=[good, bad], rounds=3)
        with pytest.raises(SystemExit):
            run(strategy, ["go"], store=store)
        assert run(strategy, ["go"], store=store).results[0].output == "fine and fine, too"
    assert ran == ["good", "bad", "bad"]


def test_turns_and_their_state_are_recorded(tmp_path):
    store = tmp_path / "run.db"
    calls = []

    def turn(conversation, reply):
        calls.append(conversation.rounds)
        if conversation.rounds == 3 and calls.count(3) == 1:
            raise SystemExit("killed")
        conversation.state["count"] = conversation.state.get("count", 0) + 1
        return None if conversation.rounds == 4 else f"question {conversation.state['count']}"

    with serve() as server:
        server.reply = lambda body, _: said(f"answer {len(body['messages'])}")
        strategy = server.strategy("chat", turn=turn)
        with pytest.raises(SystemExit):
            run(strategy, ["go"], store=store)
        (result,) = run(strategy, ["go"], store=store).results
        assert len(server.bodies) == 4
    assert calls == [1, 2, 3, 3, 4]
    assert [message["content"] for message in result.messages if message["role"] == "user"] == [
        "go", "question 1", "question 2", "question 3",
    ]  # fmt: skip


@pytest.mark.parametrize("include_prompt", [True, False])
def test_a_store_has_the_prompt_only_if_it_is_to(tmp_path, include_prompt):
    steps = Steps(2)
    path = tmp_path / "run.jsonl"
    with SimulatedProvider() as provider:
        strategy = llm("openai:m", base_url=provider.base_url, tools=[steps.advance], rounds=9)
        prompt = [{"role": "system", "content": "a secret"}, {"role": "user", "content": "call advance"}]
        store = JsonlArtifactStore(path, include_prompt=include_prompt)
        first = run(strategy, [prompt], store=store).results[0]
        assert ("a secret" in path.read_text()) == include_prompt
        again = run(strategy, [prompt], store=store).results[0]
    assert again.reused == "store"
    assert again.messages == first.messages


def test_a_store_without_outputs_has_no_steps(tmp_path):
    steps = Steps(2)
    path = tmp_path / "run.jsonl"
    with SimulatedProvider() as provider:
        strategy = llm("openai:m", base_url=provider.base_url, tools=[steps.advance], rounds=9)
        run(strategy, ["call advance"], store=JsonlArtifactStore(path, include_output=False))
    assert "now call" not in path.read_text()


def test_equal_items_have_conversations_of_their_own(tmp_path):
    steps = Steps(2)
    with SimulatedProvider() as provider:
        strategy = llm("openai:m", base_url=provider.base_url, tools=[steps.advance], rounds=2)
        run(strategy, ["call advance"] * 3, store=tmp_path / "run.db")
        assert provider.stats.requests == 6
        more = llm("openai:m", base_url=provider.base_url, tools=[steps.advance], rounds=9)
        batch = run(more, ["call advance"] * 3, store=tmp_path / "run.db")
        assert batch.succeeded == 3
        assert provider.stats.requests == 9
    assert steps.ran == {"item_0": 2, "item_1": 2, "item_2": 2}


async def test_a_store_with_hooks_and_many_items(tmp_path):
    steps = Steps(3)
    with SimulatedProvider() as provider:
        strategy = llm("openai:m", base_url=provider.base_url, tools=[steps.advance], rounds=9)
        batch = await process_prompts(
            strategy, ["call advance"] * 200, store=tmp_path / "run.db", config=ProcessorConfig(concurrency=16)
        )
        assert batch.succeeded == 200
        assert provider.stats.requests == 800
    assert set(steps.ran.values()) == {3}


PROGRAM = """
import asyncio, sys
from batch_llm import ProcessorConfig, ToolContext, llm, run

async def advance(call: ToolContext) -> str:
    with open(sys.argv[3], "a") as log:
        print(call.idempotency_key, file=log)
    await asyncio.sleep(0.01)
    return f"{call.item_id}, {call.round}: now call advance" if call.round < 6 else "that was all"

strategy = llm("openai:m", base_url=sys.argv[1], tools=[advance], rounds=20)
print("begins", flush=True)
prompts = [f"{number}: call advance" for number in range(12)]
batch = run(strategy, prompts, store=sys.argv[2], config=ProcessorConfig(concurrency=6))
print("ended", batch.succeeded, flush=True)
"""
KILLED_BY_ITSELF = """
import os, pathlib, signal, sys
from batch_llm import ToolContext, llm, run

async def advance(call: ToolContext) -> str:
    mark = pathlib.Path(sys.argv[3], f"{call.round}-{call.idempotency_key}")
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return f"{call.round}: now call advance" if call.round < int(sys.argv[4]) else "that was all"

strategy = llm("openai:m", base_url=sys.argv[1], tools=[advance], rounds=1000)
print("ended", run(strategy, ["call advance"], store=sys.argv[2]).succeeded)
"""
posix = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")


def killed_at_random(tmp_path, name, delays):
    """Kill the program after each of these times, then let it end; return how often each prompt came, and each key."""
    log = tmp_path / "tools.txt"
    with SimulatedProvider(latency=0.01, count_questions=True) as provider:
        command = [sys.executable, "-c", PROGRAM, provider.base_url, str(place(tmp_path, name)), str(log)]
        for delay in delays:
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
                program.stdout.readline()
                time.sleep(delay)
                program.send_signal(signal.SIGKILL)
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "ended 12" in ended.stdout, ended.stdout + ended.stderr
        asked = provider.stats.questions
    return asked, Counter(log.read_text().split())


def killed_in_every_tool(tmp_path, name, kills):
    """Let the program kill itself in each tool call of one conversation; return the number of requests."""
    marks = tmp_path / "marks"
    marks.mkdir()
    with SimulatedProvider() as provider:
        arguments = [provider.base_url, str(place(tmp_path, name)), str(marks), str(kills)]
        command = [sys.executable, "-c", KILLED_BY_ITSELF, *arguments]
        for number in range(kills):
            ended = subprocess.run(command, capture_output=True, text=True, check=False)
            assert ended.returncode == -signal.SIGKILL, ended.stderr
            assert len(list(marks.iterdir())) == number + 1
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "ended 1" in ended.stdout, ended.stderr
        return provider.stats.requests


@posix
def test_what_was_recorded_is_not_asked_again_whenever_the_program_is_killed(tmp_path):
    delays = [0.05, 0.1, 0.15]
    asked, tools = killed_at_random(tmp_path, "run.db", delays)
    # 12 conversations of 7 requests and 6 calls. What is in flight at a kill is repeated, 6 requests at most.
    assert sum(asked.values()) - 84 <= 6 * len(delays)
    assert len(tools) == 72
    assert sum(tools.values()) - 72 <= 12 * len(delays)


@posix
@pytest.mark.parametrize("name", FORMATS)
def test_a_program_that_dies_in_its_tools_pays_for_no_round_twice(tmp_path, name):
    assert killed_in_every_tool(tmp_path, name, 3) == 4


@posix
@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", FORMATS)
def test_a_hundred_deaths_in_one_conversation(tmp_path, name):
    assert killed_in_every_tool(tmp_path, name, 100) == 101


@posix
@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", FORMATS)
def test_a_hundred_kills_at_random_times(tmp_path, name):
    chance = random.Random(7)
    for number in range(20):
        folder = tmp_path / str(number)
        folder.mkdir()
        delays = [chance.uniform(0.0, 0.2) for _ in range(5)]
        asked, tools = killed_at_random(folder, name, delays)
        # A segment is written every quarter of a second: what was answered since is lost, in all 12 conversations.
        lost = 12 if name == "segments/" else 6
        assert sum(asked.values()) - 84 <= lost * len(delays)
        assert len(tools) == 72
        assert sum(tools.values()) - 72 <= 12 * len(delays)
