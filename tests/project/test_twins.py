"""What Rust and Python both spell out is the same on both sides."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from batch_llm import LLMWorkItem, ParallelBatchProcessor
from batch_llm._run import messages

from ..helpers import Echo, quick

ROOT = Path(__file__).parents[2]
BRIDGE = ROOT / "src" / "bridge"
STUB = ROOT / "python" / "batch_llm" / "_core.pyi"
# What pyo3 makes of the values of Python's types.
TYPES = {
    "i64": "int", "u64": "int", "u8": "int", "f64": "float", "bool": "bool", "String": "str", "Readable": "str",
    "[u8; 16]": "bytes", "Bound<'py, PyAny>": "Any", "Py<Timing>": "Timing",
    "Request": "_Request", "Outcome": "_Outcome", "Spending<'py>": "_Spending",
}  # fmt: skip


def codes_of_rust() -> dict[str, int]:
    text = (BRIDGE / "messages.rs").read_text(encoding="utf-8")
    found = re.findall(r"pub const ([A-Z_]+): u8 = (\d+);", text)
    assert len(dict(found)) == len(found), "a name is there twice"
    return {name: int(code) for name, code in found}


def test_codes_are_the_same():
    in_python = {name: code for name, code in vars(messages).items() if isinstance(code, int)}
    assert len(in_python) > 30
    assert codes_of_rust() == in_python


def test_each_code_of_a_message_is_sent_and_read():
    rust = (BRIDGE / "messages.rs").read_text(encoding="utf-8").partition("pub fn read<")[2]
    readers = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "python/batch_llm/_run").glob("*.py"))
    (block,) = re.findall(r"^mod code \{\n(.*?)^\}", (BRIDGE / "messages.rs").read_text(), re.MULTILINE | re.DOTALL)
    for name in re.findall(r"const (\w+)", block):
        assert f"code::{name}," in rust, name
        assert f"message.{name}" in readers or name == "BROKEN", name  # it is what is left


async def test_a_code_that_does_not_exist_is_rejected():
    class Ending(Echo):
        async def execute(self, prompt, attempt, timeout, state=None):
            with pytest.raises(ValueError, match="no kind of failure has the code 99"):
                processor._run.handle.failed(0, 99, 0.0, False, {})
            with pytest.raises(ValueError, match="no sign has the code 99"):
                processor._run.handle.failed(0, messages.PERMANENT, 0.0, False, {}, 99)
            return await super().execute(prompt, attempt, timeout, state)

    processor = ParallelBatchProcessor(config=quick())
    await processor.add_work(LLMWorkItem("a", Ending(), "x"))
    assert (await processor.process_all()).succeeded == 1


(PRICE,) = re.findall(r"type GivenPrice = (.*);", (BRIDGE / "convert.rs").read_text(encoding="utf-8"))


def split(types: str) -> list[str]:
    """The types of a list that may hold others in brackets."""
    found, depth = [""], 0
    for letter in types:
        depth += {"<": 1, "[": 1, "(": 1, ">": -1, "]": -1, ")": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            found.append("")
        else:
            found[-1] += letter
    return [one.strip() for one in found if one.strip()]


def to_python(rust: str) -> str:
    rust = rust.replace("convert::GivenPrice", PRICE)
    if rust.startswith("("):
        return f"tuple[{', '.join(map(to_python, split(rust[1:-1])))}]"
    optional = re.fullmatch(r"Option<(.*)>", rust)
    return f"{to_python(optional[1])} | None" if optional else TYPES[rust]


@pytest.mark.parametrize("name", ["Record", "Request", "Outcome", "Spending"])
def test_a_record_of_the_journal_has_the_same_parts(name):
    text = (BRIDGE / "journal.rs").read_text(encoding="utf-8")
    (rust,) = re.findall(rf"^(?:struct {name}(?:<'py>)?|type {name}(?:<'py>)? = )\((.*?)\);$", text, re.M | re.DOTALL)
    stub = ast.parse(STUB.read_text(encoding="utf-8"))
    (alias,) = (
        node for node in stub.body if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == f"_{name}"
    )
    assert isinstance(alias.value, ast.Subscript)
    in_python = re.sub(r"^\(|\)$", "", ast.unparse(alias.value.slice))
    assert [to_python(one) for one in split(rust)] == split(in_python)
