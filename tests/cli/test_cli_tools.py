"""Tools on the command line."""

import json

import pytest

from batch_llm.testing import SimulatedProvider

from ..cli_helpers import call, lines, write_lines

TOOLS = '''
RAN = []

async def order_status(order: str = "A1") -> str:
    """Look up the status of an order."""
    RAN.append(order)
    return "shipped"

def wrong(*args): ...
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop.py").write_text(TOOLS)
    write_lines(tmp_path / "in.jsonl", {"id": "a", "prompt": "call order_status"}, {"id": "b", "prompt": "hello"})
    return tmp_path


def ask(*arguments, **options):
    with SimulatedProvider() as provider:
        base = ("--base-url", provider.base_url)
        done = call("run", "in.jsonl", "-m", "openai:m", "-q", *base, *arguments, **options)
        return done, provider.stats.requests


@pytest.mark.parametrize("name", ["shop:order_status", "shop.py:order_status"])
def test_tools_of_a_module_run(folder, name):
    _, requests = ask("--tools", name, "-o", "out.jsonl")
    assert requests == 3
    answers = {row["id"]: row["output"] for row in lines(folder / "out.jsonl")}
    assert answers["a"].endswith("shipped")
    # Again: nothing is sent.
    _, requests = ask("--tools", name, "-o", "out.jsonl")
    assert requests == 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--tools", "shop"), "write module:function"),
        (("--tools", "shop:nothing"), "shop has no 'nothing'"),
        (("--tools", "no_such_shop:f"), "No module named 'no_such_shop'"),
        (("--tools", "none.py:f"), "--tools none.py:f: there is no file"),
        (("--tools", "shop:wrong"), "name every argument"),
        (("--rounds", "3"), "--rounds needs --tools"),
    ],
)
def test_what_cannot_be_a_tool_is_named(folder, arguments, problem):
    done, requests = ask(*arguments, code=2)
    assert problem in " ".join(done.output.split())
    assert requests == 0


def test_rows_without_an_answer_after_the_last_round_fail(folder):
    (folder / "loop.py").write_text("def order_status() -> str:\n    return 'call order_status'\n")
    _, requests = ask("--tools", "loop.py:order_status", "--rounds", "2", "-o", "out.jsonl", code=3)
    assert requests == 3
    (row,) = [row for row in lines(folder / "out.jsonl") if row["id"] == "a"]
    assert "there was no answer after 2 rounds" in json.dumps(row)
