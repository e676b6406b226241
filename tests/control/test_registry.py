"""The registry: runs that were killed, entries that nobody can read, names that several have."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import sys
import textwrap
from pathlib import Path

import pytest

from batch_llm import ControlError, attach, inspect, process_prompts
from batch_llm._control import entries, find, new_entry, places, read, registry, write

from ..helpers import Echo
from .programs import Held, program, running, until

pytestmark = pytest.mark.usefixtures("state")

SLOW = """
    import asyncio, sys
    from batch_llm import process_prompts
    async def slow(prompt):
        if prompt != "p0":
            await asyncio.sleep(1000)
        return prompt
    asyncio.run(process_prompts(slow, ["p0", "p1", "p2"], store=sys.argv[1], control="slow", concurrency=2))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize("reaped", [True, False])
def test_a_killed_run_has_died_and_leaves_nothing(tmp_path, state, reaped):
    store = tmp_path / "a.db"
    with program(SLOW, str(store)) as process:
        entry = until(lambda: next((one for one in entries() if one.is_live), None))
        until(lambda: attach("slow").sync.status()["progress"]["succeeded"] == 1)
        assert Path(entry.directory).exists()
        process.send_signal(signal.SIGKILL)
        if reaped:
            process.wait()
        else:
            until(lambda: not registry.process_exists(process.pid))
        [dead] = entries()
        assert (dead.state, dead.address, dead.exit_code) == ("died", None, None)
        assert not Path(entry.directory).exists()
        assert list((state / "open").iterdir()) == []
    handle = attach(store).sync
    found = handle.status()
    assert (found["state"], found["progress"]["succeeded"]) == ("died", 1)
    assert handle.wait()["state"] == "died"
    assert found["settings"] is None
    with pytest.raises(ControlError, match="the run was killed"):
        handle.explain()
    with pytest.raises(ControlError, match=r"is over \(died\)") as caught:
        handle.pause()
    assert caught.value.code == "not_running"


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize("name", ["a.db", "a.jsonl"])
def test_what_limited_a_killed_run_is_in_its_store(tmp_path, state, name):
    soon = "from batch_llm._run import bound_over_time as kept; kept.FIRST_SECONDS, kept.GROWTH = 0.0, 1.0"
    store = tmp_path / name
    with program(soon + textwrap.dedent(SLOW.replace('"p2"', '"p2", "p3"')), str(store)) as process:
        until(lambda: store.exists() and any(one["end"] > 2 for one in inspect(store).bound_over_time.values()))
        process.send_signal(signal.SIGKILL)
        process.wait()
    for handle in (attach("slow").sync, attach(store).sync):
        found = handle.explain(over_time=True)
        assert found["verdict"]["limit"] == "workers"
        assert "The run was killed; this is known of its first " in found["text"]
        assert sum(found["bound_over_time"]["seconds"]["workers"]) == pytest.approx(
            found["bound_by"]["workers"], abs=0.01
        )
        assert "bound_over_time" not in handle.explain()
    for path in (state / "runs").iterdir():
        path.unlink()
    assert attach(store).sync.explain()["bound_by"]["workers"] > 1


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_program_that_is_ended_by_a_signal_leaves_nothing_either(tmp_path, state, number):
    with program(SLOW, str(tmp_path / "a.db")) as process:
        until(lambda: any(one.is_live for one in entries()))
        process.send_signal(number)
        if number == signal.SIGINT:
            process.send_signal(number)
        process.communicate()
    [entry] = entries()
    assert entry.state == ("died" if number == signal.SIGTERM else "ended")
    assert list((state / "open").iterdir()) == []


async def test_a_run_that_ended_while_it_was_looked_at_has_not_died(monkeypatch):
    await process_prompts(Echo(), ["a"], control="a")
    [entry] = entries()
    seen = dataclasses.replace(entry, state="running", pid=10**9)
    assert registry.repair(seen).state == "ended"


async def test_runs_of_another_host_are_left_alone():
    entry = new_entry("there", host="elsewhere", pid=10**9)
    write(entry)
    assert entries()[0].state == "running"


async def test_another_process_with_the_same_number_is_not_the_run():
    gone = {"socket": "/no/such/socket"}
    write(new_entry("gone", address=gone, pid=os.getpid()))
    assert entries()[0].state == "died"


def test_entries_that_nobody_can_read_are_passed_over(state):
    write(new_entry("good"))
    runs = state / "runs"
    for number, text in enumerate(["", "{", "[]", "{}", '{"id": 3, "name": 4}', "[" * 100_000, "x" * 300_000]):
        (runs / f"bad{number}.json").write_text(text)
    (runs / "bad.json").mkdir()
    (runs / "more.json").write_text(json.dumps({"id": "more", "name": "of a later version", "colour": "red", "pid": 1}))
    assert {entry.name for entry in entries()} == {"good", "of a later version"}
    assert read("../../etc/passwd") is None
    assert read("nothing") is None


def test_old_runs_are_forgotten(monkeypatch):
    monkeypatch.setattr(registry, "MOST_KEPT", 3)
    for number in range(6):
        write(new_entry(f"run{number}", state="ended", started_at=float(number)))
    assert [entry.name for entry in entries()] == ["run5", "run4", "run3"]
    assert len(list((places.state_directory() / "runs").iterdir())) == 3


def test_a_run_is_found_by_its_id_its_name_and_its_store(tmp_path):
    store = str(tmp_path / "a.db")
    here = {"pid": os.getpid(), "state": "finishing"}
    first = new_entry("nightly", state="ended", started_at=1.0, store=store)
    second = new_entry("nightly", started_at=2.0, store=store, **here)
    third = new_entry("hourly", started_at=3.0, **here)
    for entry in (first, second, third):
        write(entry)
    assert find(first.id).id == first.id
    assert find(third.id[:5]).id == third.id
    assert find("nightly").id == second.id, "the one that is on"
    assert find(store).id == find(os.path.relpath(store)).id == find(tmp_path / "a.db").id == second.id
    with pytest.raises(ControlError, match="several runs are in progress") as caught:
        find(None)
    assert caught.value.code == "several_runs"
    with pytest.raises(ControlError, match="there is no run 'weekly'") as caught:
        find("weekly")
    assert caught.value.code == "unknown_run"
    write(dataclasses.replace(third, name="nightly"))
    with pytest.raises(ControlError, match="several runs in progress match 'nightly'"):
        find("nightly")


def test_no_run_at_all(state):
    assert entries() == []
    assert not state.exists()
    with pytest.raises(ControlError, match="no run is in progress"):
        attach()


def test_where_the_registry_is(monkeypatch, tmp_path):
    monkeypatch.delenv("BATCH_LLM_STATE")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    if sys.platform != "win32":
        assert places.state_directory() == tmp_path / "xdg" / "batch-llm"
        monkeypatch.setenv("XDG_STATE_HOME", "relative")
        assert places.state_directory() == Path.home() / ".local" / "state" / "batch-llm"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert places.state_directory() == tmp_path / "local" / "batch-llm"


@pytest.mark.skipif(sys.platform == "win32", reason="there are no numbers of users")
def test_a_user_without_a_name(monkeypatch):
    def unknown():
        raise KeyError("uid not found")

    monkeypatch.setattr("getpass.getuser", unknown)
    assert new_entry("a").user == str(os.geteuid())


# Runs that are over


async def test_a_finished_run_is_known_from_its_store(tmp_path, state):
    def answer(prompt):
        if prompt == "b":
            raise ValueError("odd too")
        if prompt == "c":
            raise ValueError("odd")
        return prompt

    store = tmp_path / "a.db"
    strategy = Held()
    async with running(strategy, ["x"], store=store, control="first"):
        await attach("first").pause(reason="to see")
        await attach("first").resume()
    await process_prompts(answer, ["a", "b", "c"], store=store, concurrency=1)
    for path in (state / "runs").iterdir():
        path.unlink()
    handle = attach(store)
    found = await handle.status()
    assert (found["state"], found["progress"]["succeeded"], found["progress"]["failed"]) == ("ended", 1, 2)
    assert [change["type"] for change in found["changes"]] == ["pause", "resume"]
    assert found["changes"][0]["reason"] == "to see"
    assert found["changes"][0]["by"]["host"] == socket.gethostname()
    assert "nothing" in (await handle.explain())["text"] or "% of" in (await handle.explain())["text"]
    assert (await handle.cost())["tokens"]["input"] == 1
    tail = await handle.tail()
    assert [failure["id"] for failure in tail["failures"]] == ["item_1", "item_2"]
    assert (await handle.tail(1))["failures"][0]["error"] == "ValueError: odd"
    assert (await handle.wait())["state"] == "ended"


@pytest.mark.parametrize("name", ["a.db", "a.jsonl", "segments/"])
async def test_failures_of_a_finished_run_are_sent_by_the_next_one(tmp_path, name):
    fails = {"b": ValueError("odd"), "c": TimeoutError("slow"), "d": ValueError("odd too")}
    calls = []

    def answer(prompt):
        calls.append(prompt)
        if prompt in fails:
            raise fails[prompt]
        return prompt

    store, prompts = f"{tmp_path}/{name}", ["a", "b", "c", "d", "e"]

    async def again():
        calls.clear()
        batch = await process_prompts(answer, prompts, store=store, resume="reuse_all", config=None)
        return sorted(set(calls)), batch.succeeded

    assert await again() == (prompts, 2)
    assert await again() == ([], 2)
    handle = attach(store)
    categories = inspect(store).errors
    assert (await handle.requeue(category="logic_error", dry_run=True))["items"] == categories["logic_error"]
    assert await again() == ([], 2)
    assert (await handle.requeue(category="logic_error")) == {"dry_run": False, "items": 2, "when": "next_run"}
    fails.pop("b")
    assert await again() == (["b", "d"], 3)
    assert await again() == ([], 3)
    assert (await handle.requeue())["items"] == 2
    assert await again() == (["c", "d"], 3)
    await handle.requeue(["item_0", "item_3"], reason="it was bad")
    assert await again() == (["a", "d"], 3)
    assert await again() == ([], 3)
    with pytest.raises(ControlError, match="the store has none of these items: x, y"):
        await handle.requeue(["y", "x"])
    with pytest.raises(ControlError, match="nothing failed with 'no_such'; categories: "):
        await handle.requeue(category="no_such")
    view = inspect(store)
    assert (view.succeeded, view.failed) == (3, 2)
    assert [event["reason"] for event in view.events if "reason" in event] == ["it was bad"]


async def test_a_file_that_is_no_store(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("hello")
    with pytest.raises(ControlError, match="the store cannot be read") as caught:
        attach(path)
    assert caught.value.code == "store"


async def test_a_run_without_a_store_is_known_from_the_registry(state):
    await process_prompts(Echo(), ["a", "b"], control="a")
    handle = attach("a")
    assert handle.name == handle.sync.name == "a"
    assert repr(handle) == f"AttachedRun('{handle.id}', name='a')"
    assert (await handle.status())["progress"]["succeeded"] == 2
    assert "text" in await handle.explain()
    assert (await handle.cost())["tokens"] == {"input": 20, "output": 10, "cached_input": 0}
    for ask in (handle.tail, handle.requeue):
        with pytest.raises(ControlError, match="had no store"):
            await ask()
