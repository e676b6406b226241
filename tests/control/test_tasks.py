"""Tasks of somebody who has a file of prompts, solved by ``--json`` commands alone, and by MCP tools alone."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from batch_llm.cli import agents
from batch_llm.testing import SimulatedProvider

from ..cli_helpers import answering, lines, write_lines
from .programs import until

pytestmark = pytest.mark.xdist_group("tasks")  # each goes on with what those before it have made

ROOT = Path(__file__).parents[2]
MODEL = "openai:gpt-5-mini"
ROWS = 6
PROMPTS = [f"p{number}" for number in range(ROWS)]


class Provider:
    """A provider that answers when it may, and does not answer some prompts as it should."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.bad: set[str] = set()
        self.asked: list[str] = []
        self.counts: SimulatedProvider
        """Another provider, which counts tokens."""

    def answer(self, prompt):
        self.asked.append(prompt)
        self.goes_on.wait(100)
        # A request to correct an answer is none of the prompts.
        is_good = prompt in PROMPTS and prompt not in self.bad
        return {"word": prompt} if is_good else "no JSON"


class Failed(Exception):
    """A tool has failed."""


class Commands:
    """Solves tasks by commands: a tool is nothing else than one with ``--json``."""

    def __getattr__(self, name):
        tool = next(tool for tool in agents.TOOLS if tool.__name__ == name)

        def call(**arguments):
            try:
                return json.loads(json.dumps(tool(**arguments)))
            except agents.ToolError as error:
                raise Failed(str(error)) from error

        return call

    def close(self):
        pass


class Tools:
    """Solves tasks by the tools of ``batch-llm mcp``, which is asked over its stdin and stdout."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.ready: asyncio.Future = self.loop.create_future()
        self.thread = threading.Thread(target=lambda: self.loop.run_until_complete(self._serve()))
        self.thread.start()
        self.session = asyncio.run_coroutine_threadsafe(self._begun(), self.loop).result(100)

    async def _begun(self):
        return await self.ready

    async def _serve(self):
        from mcp import ClientSession, StdioServerParameters
        from mcp.client.stdio import stdio_client

        server = StdioServerParameters(command=sys.executable, args=["-m", "batch_llm", "mcp"], env=dict(os.environ))
        async with stdio_client(server) as (read, write), ClientSession(read, write) as session:
            await session.initialize()
            self.over = asyncio.Event()
            self.ready.set_result(session)
            await self.over.wait()

    def __getattr__(self, name):
        def call(**arguments):
            asked = asyncio.run_coroutine_threadsafe(self.session.call_tool(name, arguments), self.loop)
            answer = asked.result(200)
            text = answer.content[0].text
            if answer.is_error:
                raise Failed(text.partition(f"tool {name}: ")[2] or text)
            return json.loads(text)

        return call

    def close(self):
        self.loop.call_soon_threadsafe(self.over.set)
        self.thread.join()
        self.loop.close()


@pytest.fixture(scope="module", params=[Commands, Tools])
def office(request, tmp_path_factory):
    """The tools, the folder with the files, the provider, and its URL."""
    if request.param is Tools:
        pytest.importorskip("mcp.client.stdio")
    folder = tmp_path_factory.mktemp("desk")
    provider = Provider()
    with (
        answering(provider.answer) as url,
        SimulatedProvider() as provider.counts,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.chdir(folder)
        patch.setenv("ANTHROPIC_API_KEY", "any")
        patch.setenv("ANTHROPIC_BASE_URL", provider.counts.url)
        patch.setenv("OPENAI_API_KEY", "any")
        patch.setenv("OPENAI_BASE_URL", url)
        patch.setenv("BATCH_LLM_STATE", str(folder / "state"))
        (folder / "word.json").write_text(
            json.dumps({"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]})
        )
        write_lines(
            folder / "in.jsonl", *({"id": f"r{number}", "prompt": prompt} for number, prompt in enumerate(PROMPTS))
        )
        tools = request.param()
        try:
            yield tools, folder, provider, url
        finally:
            provider.goes_on.set()
            tools.close()


@pytest.fixture
def desk(office, monkeypatch, _no_keys):
    """The tools, the folder and the provider, whose key is in the environment."""
    tools, folder, provider, url = office
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "any")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", provider.counts.url)
    yield tools, folder, provider
    provider.goes_on.set()


def answered(tools, name):
    """Run the file to its end, and return what there is to say."""
    run = tools.run(file="in.jsonl", model=MODEL, output=f"{name}.jsonl", schema="word.json", name=name)["run"]
    return tools.wait(run=run["id"])


@pytest.fixture(scope="module")
def first(office):
    """A run that has answered all."""
    return answered(office[0], "first")


@pytest.fixture(scope="module")
def second(office):
    """A run of which two have failed."""
    tools, _, provider, _ = office
    provider.bad = {"p1", "p4"}
    try:
        return answered(tools, "second")
    finally:
        provider.bad = set()


def started(tools, provider, name, **more):
    """Start a run whose requests wait, and return its id."""
    provider.goes_on.clear()
    provider.asked.clear()
    run = tools.run(file="in.jsonl", model=MODEL, output=f"{name}.jsonl", name=name, concurrency=2, **more)["run"]["id"]
    until(lambda: len(provider.asked) >= 2)
    return run


def test_01_what_would_it_cost(desk):
    tools, _, provider = desk
    found = tools.estimate(file="in.jsonl", model=MODEL, max_tokens=100)
    assert (found["requests"], found["most_answer_tokens"], found["requests_without_price"]) == (ROWS, 600, 0)
    assert found["cost"] > 0
    assert not provider.asked


def test_02_what_would_a_sample_cost(desk):
    tools, *_ = desk
    found = tools.estimate(file="in.jsonl", model="openai:unknown", limit=2, prompt="-Say {prompt}")
    assert (found["requests"], found["cost"]) == (2, None)


def test_03_why_does_this_file_not_work(desk):
    tools, *_ = desk
    with pytest.raises(Failed, match=r"missing\.jsonl"):
        tools.estimate(file="missing.jsonl", model=MODEL)
    with pytest.raises(Failed, match="no_such"):
        tools.run(file="in.jsonl", model=MODEL, output="x.jsonl", prompt="{no_such}")


def test_04_answer_a_file(desk, first):
    _, folder, _ = desk
    assert (first["state"], first["run"]["exit_code"]) == ("ended", 0)
    assert [row["output"]["word"] for row in lines(folder / "first.jsonl")] == PROMPTS


def test_05_which_runs_were_there(desk, first):
    tools, *_ = desk
    assert "first" not in [run["name"] for run in tools.runs()["runs"]]
    assert "first" in [run["name"] for run in tools.runs(past=True)["runs"]]


def test_06_how_did_it_go(desk, first):
    tools, *_ = desk
    assert tools.status(run="first.jsonl.store.db")["progress"]["succeeded"] == ROWS


def test_07_what_did_it_cost(desk, first):
    tools, *_ = desk
    found = tools.cost(run="first")
    assert found["tokens"] == {"input": ROWS, "output": ROWS, "cached_input": 0}
    assert found["spent"] > 0


def test_08_what_limited_it(desk, first):
    tools, *_ = desk
    assert "To change it" in tools.explain(run="first")["text"]


def test_09_what_failed_and_why(desk, second):
    tools, *_ = desk
    assert second["run"]["exit_code"] == 3
    found = tools.failures(run="second")["failures"]
    assert {failure["id"] for failure in found} == {"r1", "r4"}
    assert "JSON" in found[0]["error"]
    assert len(tools.failures(run="second", most=1)["failures"]) == 1


def test_10_how_many_would_be_sent_again(desk, second):
    tools, *_ = desk
    category = tools.failures(run="second")["failures"][0]["category"]
    assert tools.requeue(run="second", category=category, dry_run=True)["items"] == 2


def test_11_send_again_what_failed_and_nothing_else(desk, second):
    tools, folder, provider = desk
    assert tools.requeue(run="second", reason="the model was told better")["when"] == "next_run"
    provider.asked.clear()
    assert answered(tools, "second")["run"]["exit_code"] == 0
    assert sorted(provider.asked) == ["p1", "p4"]
    assert all(row["output"] for row in lines(folder / "second.jsonl"))


def test_12_a_single_answer_is_bad(desk, first):
    tools, _, provider = desk
    assert tools.requeue(run="first.jsonl.store.db", items=["r2"])["items"] == 1
    provider.asked.clear()
    answered(tools, "first")
    assert provider.asked == ["p2"]


def test_13_a_run_that_is_not_there(desk):
    tools, *_ = desk
    with pytest.raises(Failed, match="unknown_run: there is no run 'other'"):
        tools.status(run="other")


def test_14_hold_a_run_for_a_while(desk):
    tools, _, provider = desk
    run = started(tools, provider, "held")
    assert tools.pause(run=run, reason="the provider asked for it")["paused"] == {"before": False, "after": True}
    provider.goes_on.set()
    until(lambda: tools.status(run=run)["progress"]["processed"] == 2)
    assert tools.status(run=run)["state"] == "paused"
    assert len(provider.asked) == 2
    assert tools.resume(run=run)["paused"]["after"] is False
    found = tools.wait(run=run)
    assert (found["state"], found["progress"]["succeeded"]) == ("ended", ROWS)


def test_15_more_at_a_time(desk):
    tools, _, provider = desk
    run = started(tools, provider, "faster")
    assert tools.change(run=run, concurrency=5, budget=1.0)["values"]["concurrency"] == {"before": 2, "after": 5}
    until(lambda: len(provider.asked) == 5)
    provider.goes_on.set()
    tools.wait(run=run)


def test_16_is_it_done_yet(desk):
    tools, _, provider = desk
    run = started(tools, provider, "slow")
    found = tools.wait(run=run, seconds=0.2)
    assert (found["state"], found["progress"]["in_flight"]) == ("running", 2)
    provider.goes_on.set()
    assert tools.wait(run=run)["state"] == "ended"


def test_17_leave_one_out(desk):
    tools, _, provider = desk
    run = started(tools, provider, "without")
    assert tools.stop(run=run, item="r5")["item"] == "r5"
    provider.goes_on.set()
    found = tools.wait(run=run)
    assert (found["progress"]["succeeded"], "p5" in provider.asked) == (ROWS - 1, False)


def test_18_end_it_gently_and_go_on_tomorrow(desk):
    tools, folder, provider = desk
    run = started(tools, provider, "gently")
    assert tools.stop(run=run, reason="enough for today")["in_flight"] == 2
    provider.goes_on.set()
    found = tools.wait(run=run)
    assert (found["run"]["exit_code"], found["progress"]["succeeded"]) == (130, 2)
    assert "enough for today" in found["termination"]["reason"]
    assert not (folder / "gently.jsonl").exists()
    again = tools.run(file="in.jsonl", model=MODEL, output="gently.jsonl")["run"]["id"]
    assert tools.wait(run=again)["run"]["exit_code"] == 0
    assert len(provider.asked) == ROWS


def test_19_end_it_at_once(desk):
    tools, _, provider = desk
    run = started(tools, provider, "at-once")
    assert tools.stop(run=run, at_once=True)["in_flight"] == 2
    assert tools.wait(run=run)["progress"]["succeeded"] == 0
    provider.goes_on.set()
    with pytest.raises(Failed, match="not_running: the run .* is over"):
        tools.change(run=run, concurrency=3)


def test_20_what_is_in_batches(desk, first):
    tools, *_ = desk
    assert tools.collect(store="first.jsonl.store.db") == {"batches": []}
    with pytest.raises(Failed):
        tools.collect(store="missing.db")


def test_21_how_many_tokens_would_it_take_as_the_provider_counts(desk):
    tools, *_ = desk
    model = "anthropic:claude-sonnet-5"
    whole = tools.estimate(file="in.jsonl", model=model, sample=True, limit=2, max_tokens=100)
    assert whole["sampled"] == whole["requests"] == 2
    assert whole["sent_to_count"] == 2
    assert whole["input_tokens"]["low"] == whole["input_tokens"]["high"]
    assert whole["cost"]["low"] <= whole["cost"]["expected"] <= whole["cost"]["high"]


def test_the_server_needs_its_package(tmp_path):
    (tmp_path / "mcp.py").write_text("raise ImportError('not here')")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(
        [sys.executable, "-m", "batch_llm", "mcp"], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 1
    assert "pip install 'batch-llm[mcp]'" in done.stderr


def test_what_agents_read_is_up_to_date():
    sys.path.insert(0, str(ROOT))
    try:
        from scripts import agent_docs
    finally:
        sys.path.remove(str(ROOT))
    assert agent_docs.outdated() == []
    assert all(tool.__name__ in agent_docs.skill() for tool in agents.TOOLS)
