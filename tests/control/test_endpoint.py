"""The endpoint of a run: who may use it, what it refuses, what it leaves behind."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import stat
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from batch_llm import ControlError, attach, process_prompts
from batch_llm._control import entries, server
from batch_llm._control.client import Client
from batch_llm._control.protocol import LONGEST_REQUEST, line_of
from batch_llm._control.server import Endpoint

from ..helpers import Echo
from .programs import Held, ask_raw, running, until

pytestmark = [
    pytest.mark.usefixtures("state"),
    pytest.mark.skipif(sys.platform == "win32", reason="Unix sockets"),
]


def mode(path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


async def test_only_its_user_can_enter(state):
    strategy = Held()
    async with running(strategy, ["a"], control="a"):
        [entry] = entries()
        folder = Path(entry.directory)
        assert {path.name for path in folder.iterdir()} == {"socket", "token"}
        assert (mode(folder), mode(folder / "token"), mode(folder / "socket")) == (0o700, 0o600, 0o600)
        assert (mode(state), mode(state / "runs"), mode(state / "open")) == (0o700, 0o700, 0o700)
        assert mode(state / "runs" / f"{entry.id}.json") == 0o600
        assert (folder / "token").read_text() not in (state / "runs" / f"{entry.id}.json").read_text()
    assert list((state / "open").iterdir()) == []
    assert [path.name for path in (state / "runs").iterdir()] == [f"{entry.id}.json"]


async def test_a_wrong_token_is_refused_and_nothing_after_it_is_read(state):
    strategy = Held()
    async with running(strategy, ["a"], control="a"):
        [entry] = entries()
        for token in ("", "wrong", None, 5, "é" * 10, {"a": 1}):
            request = line_of({"token": token, "command": "status"})
            answer = ask_raw(entry, request + request)
            assert answer["error"]["code"] == "unauthorized"
        assert ask_raw(entry, line_of({"command": "pause"}))["error"]["code"] == "unauthorized"
        entry.token_file.write_text("other")
        with pytest.raises(ControlError, match="the token is wrong"):
            await attach("a").status()


async def test_an_oversized_message_is_refused(state):
    strategy = Held()
    async with running(strategy, ["a"], control="a"):
        [entry] = entries()
        assert "longer than" in ask_raw(entry, b"x" * (LONGEST_REQUEST + 100_000))["error"]["message"]
        assert "longer than" in ask_raw(entry, b'"' + b"x" * LONGEST_REQUEST + b'"\n')["error"]["message"]
        for line in (b"{\n", b"[]\n", b'{"version": 2}\n', b"[" * 100_000 + b"\n", b"GET / HTTP/1.1\n"):
            assert ask_raw(entry, line)["error"]["code"] == "bad_request"
        assert (await attach("a").status())["state"] == "running"


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ({"command": "dance"}, "there is no command 'dance'; known commands: status"),
        ({"command": None}, "there is no command None"),
        ({"command": "status", "arguments": [1]}, "arguments must be an object"),
        ({"command": "tail", "arguments": {"most": 10**9}}, "most must be"),
        ({"command": "tail", "arguments": {"after": "x"}}, "most must be"),
        ({"command": "cancel", "arguments": {"item": 3}}, "item must be the id"),
        ({"command": "requeue", "arguments": {"items": "abc"}}, "items must be a list of ids"),
        ({"command": "requeue", "arguments": {"items": [1]}}, "items must be a list of ids"),
        ({"command": "requeue", "arguments": {"items": ["a"] * 10_001}}, "at most 10,000"),
        ({"command": "requeue", "arguments": {"category": 3}}, "category must be a string"),
    ],
)
async def test_bad_requests_are_named(state, message, problem):
    strategy = Held()
    async with running(strategy, ["a"], control="a"):
        [entry] = entries()
        answer = ask_raw(entry, line_of({"token": entry.token_file.read_text(), **message}))
        assert problem in answer["error"]["message"]


async def test_who_says_nothing_is_left_and_so_are_too_many(state, monkeypatch):
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.05)
    strategy = Held()
    async with running(strategy, ["a"], control="a"):
        [entry] = entries()
        with socket.socket(socket.AF_UNIX) as quiet:
            quiet.settimeout(30)
            quiet.connect(entry.address["socket"])
            quiet.sendall(b'{"ver')
            assert quiet.recv(100) == b""
        monkeypatch.setattr(server, "IDLE_SECONDS", 60.0)
        [endpoint] = server._open
        while endpoint._connections:  # its threads have not seen yet that these have ended
            await asyncio.sleep(0.005)
        monkeypatch.setattr(server, "MOST_CONNECTIONS", 2)
        clients = [Client(entry) for _ in range(2)]
        assert all("progress" in client.ask("status") for client in clients)
        clients.append(Client(entry))
        with pytest.raises(ControlError, match="has 2 connections already"):
            clients[-1].ask("status")
        for client in clients:
            client.close()


async def test_a_connection_takes_many_requests(state):
    strategy = Held()
    async with running(strategy, ["a"], control="a"):
        [entry] = entries()
        client = Client(entry)
        for _ in range(50):
            assert client.ask("status")["state"] == "running"
        with pytest.raises(ControlError, match="there is no setting"):
            client.ask("set", {"colour": "red"})
        assert client.ask("pause")["paused"]["after"] is True
        client.ask("resume")
        client.close()


@pytest.mark.parametrize("problem", ["foreign", "writable", "file", "unwritable"])
async def test_a_run_goes_on_without_an_endpoint(state, monkeypatch, caplog, problem):
    if problem == "file":
        state.write_text("")
    elif problem == "writable":
        state.mkdir()
        state.chmod(0o777)
    elif problem == "foreign":
        state.mkdir(mode=0o700)
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    else:
        monkeypatch.setenv("BATCH_LLM_STATE", "/proc/no/such")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            batch = await process_prompts(Echo(), ["a"], control="a")
            assert batch.succeeded == 1
    [record] = [record for record in caplog.records if record.event == "control_unavailable"]
    assert "BATCH_LLM_STATE" in record.getMessage()
    words = {"foreign": "belongs to another user", "writable": "is writable by other", "file": "is not a directory"}
    assert words.get(problem, "") in record.getMessage()
    with pytest.raises(ControlError):
        attach("a")


async def test_a_foreign_registry_is_not_read(state, monkeypatch):
    await process_prompts(Echo(), ["a"], control="a")
    assert len(entries()) == 1
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(ControlError, match="belongs to another user"):
        entries()


async def test_a_link_is_no_directory_of_ours(state, tmp_path):
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    state.mkdir(mode=0o700)
    (state / "open").symlink_to(other)
    await process_prompts(Echo(), ["a"], control="a")
    assert not list(other.iterdir())
    assert not entries()


async def test_a_long_path_has_its_socket_elsewhere(tmp_path, monkeypatch):
    state = tmp_path / ("long" * 30)
    monkeypatch.setenv("BATCH_LLM_STATE", str(state))
    strategy = Held()
    async with running(strategy, ["a"], control="a"):
        [entry] = entries()
        folder = Path(entry.directory)
        assert folder.parent == Path(tempfile.gettempdir())
        assert mode(folder) == 0o700
        assert (await attach("a").status())["state"] == "running"
    assert not folder.exists()


async def test_a_missing_directory_is_made_and_a_lost_file_does_no_harm(state):
    strategy = Held()
    async with running(strategy, ["a"], control="a") as task:
        [entry] = entries()
        Path(entry.address["socket"]).unlink()
        strategy.let(1)
        assert (await task).succeeded == 1
    assert not Path(entry.directory).exists()


async def test_where_there_are_no_unix_sockets(state, monkeypatch):
    monkeypatch.setattr(server, "has_unix_sockets", lambda: False)
    strategy = Held()
    async with running(strategy, ["a"], control="a"):
        [entry] = entries()
        assert entry.address == {"port": entry.address["port"]}
        assert mode(entry.token_file) == 0o600
        assert (await attach("a").status())["state"] == "running"
        with socket.create_connection(("127.0.0.1", entry.address["port"]), timeout=30) as connection:
            connection.sendall(b"POST / HTTP/1.1\r\n\r\n")
            assert json.loads(connection.recv(10_000))["error"]["code"] == "bad_request"
        with socket.create_connection(("127.0.0.1", entry.address["port"]), timeout=30) as connection:
            connection.sendall(line_of({"token": "guessed", "command": "status"}))
            assert json.loads(connection.recv(10_000))["error"]["code"] == "unauthorized"
    assert not Path(entry.directory).exists()


def test_it_listens_on_loopback_alone(state, monkeypatch):
    monkeypatch.setattr(server, "has_unix_sockets", lambda: False)
    endpoint = Endpoint("abc", lambda request: {})
    try:
        assert endpoint._listener.getsockname()[0] == "127.0.0.1"
    finally:
        endpoint.close()


def test_a_bug_in_an_answer_is_an_answer(state):
    def answer(request):
        raise ZeroDivisionError("oops")

    endpoint = Endpoint("abc", answer)
    try:
        token = (endpoint.directory / "token").read_text()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(endpoint.address["socket"])
            connection.sendall(line_of({"token": token}))
            assert json.loads(connection.recv(10_000))["error"]["message"] == "ZeroDivisionError: oops"
    finally:
        endpoint.close()
    endpoint.close()
    until(lambda: not any(thread.name == "batch-llm control" for thread in threading.enumerate()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_forked_child_has_no_part_in_it(state):
    strategy = Held()
    async with running(strategy, ["a"], control="a") as task:
        child = os.fork()
        if not child:
            os._exit(len(server._open))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert (await attach("a").status())["state"] == "running"
        strategy.let(1)
        assert (await task).succeeded == 1
