"""The commands: their output as JSON, which a schema describes, and as text; their exit codes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner

import batch_llm
from batch_llm import attach, process_prompts
from batch_llm._control import SHAPES, entries, new_entry, schema, write
from batch_llm.cli.control import COMMANDS
from batch_llm.cli.main import main

from ..cli_helpers import lines, write_lines
from ..helpers import Echo
from ..served import answer, serve
from .programs import Held, until

pytestmark = pytest.mark.usefixtures("state")


@pytest.fixture
def held(tmp_path):
    """A run in another thread, of 20 items of which two are in flight; it ends when it is let go."""
    strategy, loop = Held(), asyncio.new_event_loop()
    prompts = [f"p{number}" for number in range(20)]
    strategy.fails = {"p0"}

    async def whole():
        strategy.more = asyncio.Event()
        return await process_prompts(strategy, prompts, store=tmp_path / "run.db", control="held", concurrency=2)

    done = []
    thread = threading.Thread(target=lambda: done.append(loop.run_until_complete(whole())))
    thread.start()
    until(lambda: strategy.waiting == 2 and any(entry.is_live for entry in entries()))

    def let(count):
        loop.call_soon_threadsafe(strategy.let, count)

    strategy.let_go = let
    strategy.result = done
    yield strategy
    if not done:
        let(1000)
    thread.join()
    loop.close()


def call(*arguments, code=0):
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == code, (done.output, done.exception)
    return done


def ask(command, *arguments, code=0):
    """Call a command with --json, and return its data or its error."""
    done = call(command, *arguments, "--json", code=code)
    envelopes = [json.loads(line) for line in done.stdout.splitlines()]
    for envelope in envelopes:
        jsonschema.validate(envelope, schema(command))
    assert envelopes[-1]["command"] == command
    return envelopes[-1].get("data") or envelopes[-1]["error"]


def test_there_is_a_schema_for_every_command():
    assert {command.name for command in COMMANDS} == set(SHAPES)
    for command in SHAPES:
        jsonschema.Draft202012Validator.check_schema(schema(command))
        assert json.loads(call(command, "--schema").output) == schema(command)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"version": 1, "command": command, "run": None}, schema(command))


def test_every_command_while_a_run_is_on(held):
    [run] = ask("ps")["runs"]
    assert (run["name"], run["state"], run["pid"]) == ("held", "running", os.getpid())
    found = ask("status")
    assert (found["state"], found["progress"]["in_flight"], found["progress"]["total"]) == ("running", 2, 20)
    assert ask("pause", "held", "--dry-run") == {"dry_run": True, "paused": {"before": False, "after": True}}
    assert ask("status", run["id"])["state"] == "running"
    assert ask("pause", run["id"], "--reason", "lunch")["paused"]["after"] is True
    held.let_go(2)
    until(lambda: ask("status")["progress"]["processed"] == 2)
    assert len(held.calls) == 2
    assert ask("set", "concurrency=3", "rpm=6000", "--dry-run")["values"]["concurrency"] == {"before": 2, "after": 3}
    assert ask("set", "held", "concurrency=3", "deadline=2h", "budget=none")["values"]["deadline"]["after"] == 7200.0
    assert ask("resume", run["store"])["paused"] == {"before": True, "after": False}
    until(lambda: held.waiting == 3)
    assert [failure["id"] for failure in ask("tail")["failures"]] == ["item_0"]
    assert "text" in ask("explain", "held")
    assert ask("cost")["spent"] is None
    held.fails = set()
    assert ask("requeue", "held", "--failed", "--dry-run")["items"] == 1
    assert ask("requeue", "held", "item_0") == {"dry_run": False, "items": 1, "when": "now"}
    assert ask("cancel", "held", "item_19") == {"dry_run": False, "item": "item_19"}
    assert ask("wait", "--timeout", "0.01", code=7)["code"] == "not_over"
    changes = ask("status")["changes"]
    assert [change["type"] for change in changes] == ["pause", "set", "resume", "requeue", "cancel"]
    assert changes[0]["reason"] == "lunch"
    assert ask("drain", "--reason", "enough")["in_flight"] == 3
    held.let_go(100)
    assert ask("wait", "held", code=130)["status"]["state"] == "ended"
    assert ask("watch", "held")["state"] == "ended"
    assert "enough" in held.result[0].termination.reason


def test_every_command_after_a_run(held):
    held.let_go(1000)
    assert ask("wait", code=3)["run"]["exit_code"] == 3
    assert ask("ps")["runs"] == []
    assert [run["state"] for run in ask("ps", "--all")["runs"]] == ["ended"]
    assert ask("status", "held")["progress"]["succeeded"] == 19
    assert ask("tail", "held", "-n", "1")["failures"][0]["id"] == "item_0"
    assert ask("tail", "held", "--follow")["last"] == 1
    assert "bound_by" in ask("explain", "held")
    assert ask("cost", "held")["tokens"]["input"] == 19
    assert ask("requeue", "held", "--category", "logic_error")["when"] == "next_run"
    for command in ("pause", "resume", "cancel", "drain"):
        assert ask(command, "held", code=6)["code"] == "not_running"
    assert ask("set", "held", "rpm=3", code=6)["code"] == "not_running"
    assert ask("status", code=5)["code"] == "unknown_run"
    assert ask("status", "other", code=5)["message"].startswith("there is no run 'other'")


def test_a_finished_run_still_says_that_its_concurrency_was_automatic(tmp_path):
    batch_llm.run(Echo(), ["a", "b"], store=tmp_path / "auto.db", control="auto")
    assert ask("status", "auto")["adaptive"] is True
    assert "concurrency=auto, at most 10,000" in call("status", "auto").output


def test_what_people_see(held):
    assert "held" in call("ps").output
    held.let_go(2)
    until(lambda: ask("status")["progress"]["processed"] == 2)
    assert "it would be paused" in call("pause", "--dry-run").output
    assert call("pause", "--reason", "a\x1b[2Jb").output == "paused\n"
    assert "already" in call("pause").output
    assert call("set", "tpm=5000", "budget=none").output.splitlines() == ["tpm: none -> 5,000", "budget: none -> none"]
    assert call("resume").output == "running\n"
    text = call("status").output
    assert "1 failed" in text
    assert "pause, by" in text
    assert "\x1b" not in text
    assert "item_0  logic_error  ValueError: p0 is not liked" in call("tail").output
    assert "the price of the model is unknown" in call("cost").output
    assert "of" in call("explain").output
    assert "1 item would be sent again" in call("requeue", "--dry-run").output
    assert call("requeue").output == "1 item is sent again\n"
    assert "nothing has failed" in call("requeue").output
    assert "would be cancelled" in call("cancel", "--dry-run").output
    assert "item_19 cancelled" in call("cancel", "held", "item_19").output
    assert "drained" in call("drain").output
    held.let_go(100)
    call("wait", "held", code=130)
    assert "ended" in call("watch", "held").output
    assert "ended early the run was drained by" in call("status", "held").output
    assert "no run is in progress" in call("ps").output
    assert "Error: the run" in call("pause", "held", code=6).stderr


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (["set"], 5, "no run is in progress"),
        (["set", "a", "b"], 2, "'b' is not a setting"),
        (["set", "colour=red", "speed=2"], 2, "'speed=2' is not a setting"),
        (["requeue", "a", "b", "--failed"], 2, "ids cannot be combined"),
        (["wait", "--timeout", "soon"], 2, "such as 90"),
        (["tail", "-n", "5000"], 2, "5000"),
        (["watch", "--interval", "0"], 2, "0"),
        (["status", "no\x1bsuch"], 5, "there is no run"),
    ],
)
def test_wrong_command_lines(arguments, code, problem):
    done = call(*arguments, code=code)
    assert problem in done.stderr
    assert "\x1b" not in done.stderr


def test_bad_settings_are_refused(held):
    assert ask("set", "concurrency=0", code=2)["code"] == "bad_argument"
    assert ask("set", "budget=1", code=1)["code"] == "refused"
    assert ask("set", code=2)["message"].startswith("nothing to set")


def test_a_run_that_has_died():
    write(new_entry("gone", pid=10**9))
    assert ask("wait", "gone", code=8)["run"]["state"] == "died"


def test_the_registry_cannot_be_used(state):
    state.write_text("")
    assert ask("ps", code=1)["code"] == "state_directory"


# Runs of the command line


def batch_llm_command(*arguments, **options):
    command = [sys.executable, "-m", "batch_llm", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, **options)


def test_a_run_of_the_command_line_is_registered(at, provider):
    write_lines(at / "in.jsonl", *({"prompt": f"p{number}"} for number in range(5)))
    call("run", "in.jsonl", "-m", "openai:gpt-5-mini", "-o", "out.jsonl", "-q", "--name", "mine")
    [run] = ask("ps", "--all")["runs"]
    assert (run["name"], run["state"], run["exit_code"], run["program"]) == ("mine", "ended", 0, "cli")
    call("run", "in.jsonl", "-m", "openai:gpt-5-mini", "--no-store", "-q")
    assert ask("ps", "--all")["runs"][0]["store"] is None
    assert "1 to 100" in call("run", "in.jsonl", "--name", " ", code=2).stderr


def test_a_detached_run_and_who_waits_for_it(at, provider):
    write_lines(at / "in.jsonl", *({"prompt": f"p{number}"} for number in range(5)))
    arguments = ("in.jsonl", "-m", "openai:gpt-5-mini", "-o", "out.jsonl", "--detach", "--name", "--detach")
    done = batch_llm_command("run", *arguments)
    assert done.returncode == 0, done.stderr
    run = done.stdout.strip()
    waited = batch_llm_command("wait", run, "--json")
    assert waited.returncode == 0
    found = json.loads(waited.stdout)["data"]
    assert (found["run"]["name"], found["run"]["exit_code"]) == ("--detach", 0)
    assert found["run"]["pid"] != os.getpid()
    assert len(lines(at / "out.jsonl")) == 5
    assert "5 of 5 answered" in Path(found["run"]["log"]).read_text()
    if sys.platform != "win32":
        assert os.stat(found["run"]["log"]).st_mode & 0o777 == 0o600
    again = batch_llm_command("run", *arguments[:-3], "--detach", "--json")
    assert json.loads(again.stdout)["data"]["run"]["program"] == "cli"


def test_a_detached_run_that_cannot_begin_says_why(at, provider, state):
    done = batch_llm_command("run", "missing.jsonl", "-m", "openai:gpt-5-mini", "-o", "out.jsonl", "--detach")
    assert done.returncode == 1
    assert "missing.jsonl" in done.stderr
    assert done.stdout == ""
    write_lines(at / "in.jsonl", {"prompt": "p"})
    for arguments in (["-", "-o", "out.jsonl"], ["in.jsonl"]):
        wrong = batch_llm_command("run", *arguments, "-m", "openai:gpt-5-mini", "--detach")
        assert (wrong.returncode, "--detach needs" in wrong.stderr) == (2, True)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, getattr(signal, "SIGKILL", None)])
def test_a_detached_run_is_ended_by_a_signal(at, monkeypatch, number):
    from batch_llm.testing import SimulatedProvider

    write_lines(at / "in.jsonl", *({"prompt": f"p{number}"} for number in range(5)))
    with SimulatedProvider(latency=1000.0) as slow:
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        monkeypatch.setenv("OPENAI_BASE_URL", slow.base_url)
        done = batch_llm_command("run", "in.jsonl", "-m", "openai:gpt-5-mini", "-o", "out.jsonl", "--detach")
        handle = attach(done.stdout.strip()).sync
        until(lambda: handle.refresh().state == "running" and handle.status()["progress"]["in_flight"] == 5)
        os.kill(handle.info["pid"], number)
        if number == signal.SIGTERM:
            until(lambda: handle.refresh().state != "running" or handle.status()["state"] == "ending")
            os.kill(handle.info["pid"], number)
        waited = batch_llm_command("wait", handle.id)
    assert waited.returncode == (130 if number == signal.SIGTERM else 8)
    assert not (at / "out.jsonl").exists()


@pytest.mark.parametrize("target", ["out.jsonl", "out.csv"])
def test_rows_that_are_sent_again_are_in_the_output_once(at, target, monkeypatch):
    write_lines(at / "in.jsonl", *({"id": f"r{number}", "prompt": f"p{number}"} for number in range(8)))
    from batch_llm._pipeline import StrategyPipeline

    asked = []
    before = StrategyPipeline.record_result

    def record_result(self, flight, result):
        first = flight.item.item_id == "r3" and not asked
        if first:
            result.success, result.output, result.error, result.error_category = False, None, "E: odd", "odd"
        whole = before(self, flight, result)
        if first:
            asked.append(True)
            threading.Thread(target=lambda: asked.append(attach().sync.requeue()["items"])).start()
        return whole

    def reply(body, number):
        if body["messages"][-1]["content"] == "p7":  # the last one: the run must not end before it was told
            until(lambda: len(asked) == 2)
        return answer("chat")

    monkeypatch.setattr(StrategyPipeline, "record_result", record_result)
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    with serve(reply) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.root}/v1")
        code = call("run", "in.jsonl", "-m", "openai:gpt-5-mini", "-o", target, "-q", "-c", "1", "--store", "s.db")
    assert asked == [True, 1]
    assert "8 of 8 answered" in code.stderr
    text = (at / target).read_text()
    assert text.count("r3") == 1
    assert "odd" not in text
    prompts = [body["messages"][-1]["content"] for body in server.bodies]
    assert sorted(prompts) == sorted([*(f"p{number}" for number in range(8)), "p3"])
    assert batch_llm.inspect("s.db").failed == 0


def test_echo_runs_in_another_process_are_seen(tmp_path):
    asyncio.run(process_prompts(Echo(), ["a"], store=tmp_path / "a.db"))
    done = batch_llm_command("status", tmp_path / "a.db")
    assert "1 of 1 done" in done.stdout
