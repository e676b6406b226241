"""Runs the Python blocks of a document one after the other, as a reader would type them; ``test_documents`` calls it.

``python run_page.py PAGE``: in the current folder, with a simulated provider in place of the real ones. What a page
takes for granted (a client, some prompts) is in ``BEFORE``; ``AFTER`` calls what it only defines.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import sys
from pathlib import Path

from batch_llm.testing import SimulatedProvider

COMMON = """
import asyncio
prompts = ["Name a colour.", "Name a fruit."]
async def ask(*arguments):
    await asyncio.sleep(0)
    return str(arguments[-1])
"""

BEFORE = {
    "frames.md": """
from pathlib import Path
Path("chair.png").write_bytes(b"\\x89PNG\\r\\n\\x1a\\n" + bytes(20))
import pyarrow, pyarrow.parquet
pyarrow.parquet.write_table(pyarrow.table({"text": ["x"] * 2500}), "reviews.parquet")
""",
    "hooks.md": """
from batch_llm import LLMCallStrategy
class Mine(LLMCallStrategy[str]):
    class client:
        @staticmethod
        async def close():
            print("closed")
    async def execute(self, prompt, attempt, timeout, state=None):
        return prompt, {}
""",
    "surfaces.md": """
from types import SimpleNamespace
class my_client:
    @staticmethod
    async def complete(prompt, temperature):
        return SimpleNamespace(text=prompt.upper(), prompt_tokens=3, answer_tokens=4)
""",
    "large-batches.md": "from batch_llm import LLMWorkItem, ParallelBatchProcessor, llm",
}

AFTER = {
    "hooks.md": """
batch = await main(prompts)
assert batch.succeeded == 2
async def ask(model, prompt):
    return f"{model}: {prompt}", {}
answer = await Escalating().execute("x", 2, 1.0, None)
assert answer == ("small: x", {})
""",
    "surfaces.md": """
class Request:
    prompt = "x"
    def answer_with(self, answer):
        self.answer = answer
requests = [Request(), Request()]
async def arriving():
    for request in requests:
        yield request
await main(prompts)
assert await once()
await serve(arriving())
assert requests[1].answer
assert batch.outputs() == ["NAME A COLOUR."]
with sqlite3.connect("questions.db") as database:
    database.execute("create table questions (id, text)")
    database.execute("insert into questions values (1, 'x')")
answer_all("questions.db")
""",
    "large-batches.md": """
strategy = llm("openai:x")
async with ParallelBatchProcessor(max_workers=5) as processor:
    with open("chunks.jsonl", "w") as file:
        await run_all((("id%d" % n, "x") for n in range(250)), processor, strategy, file, chunk=100)
assert len(open("chunks.jsonl").readlines()) == 250
""",
    "providers.md": """
Path("contract.pdf").write_bytes(b"%PDF-1.4 ...")
made = list(items(llm("openai:gpt-5-mini"), Path("contract.pdf"), b"\\x89PNG\\r\\n\\x1a\\n" + bytes(20)))
assert len(made) == 3
from batch_llm import run
def weather(city: str) -> str:
    "Tell the weather."
tooled = llm("openai:gpt-5-mini", tools=[weather], tool_choice="required")
first = run(tooled, ["How is the weather in Lima?"]).results[0]
question = [{"role": "user", "content": "?"}]
item = next_item(llm("openai:gpt-5-mini", tools=[weather]), question, first, {"weather": "fine"})
assert run(item.strategy, [item]).succeeded == 1
""",
    "limits.md": "config.validate()",
}


def blocks(page: Path) -> list[tuple[int, str]]:
    """Line and text of each block."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [(text.count("\n", 0, match.start(1)), match.group(1)) for match in found]


async def _at_once(function, *arguments):
    function(*arguments)


async def run_page(page: Path) -> None:
    """Run all blocks in one namespace."""
    scope = {"__name__": "__main__"}

    async def execute(source: str, name: str, line: int) -> None:
        code = compile("\n" * line + source, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        if code.co_flags & inspect.CO_COROUTINE:
            await eval(code, scope)
        else:
            # A loop runs, as in a notebook; what calls asyncio.run() needs a thread without one.
            run_it = asyncio.to_thread if "asyncio.run(" in source else _at_once
            await run_it(exec, code, scope)

    await execute(COMMON + BEFORE.get(page.name, ""), "before", 0)
    for line, source in blocks(page):
        await execute(source, str(page), line)
    await execute(AFTER.get(page.name, ""), "after", 0)


def main() -> None:
    """Run a page against a simulated provider."""
    page = Path(sys.argv[1])
    with SimulatedProvider() as provider:
        os.environ.update(provider.environment)
        asyncio.run(run_page(page))


if __name__ == "__main__":
    main()
