"""What the documents and examples say is true: their code runs, their links lead somewhere."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


def block_with(text: str) -> str:
    """The first block of the README that has it."""
    return next(block for block in blocks(ROOT / "README.md") if text in block)


FIRST = blocks(ROOT / "README.md")[0]
AWAITED = block_with("await process_prompts(")
PROCESSOR = block_with("ParallelBatchProcessor")


def test_the_readmes_processor_runs_as_it_stands():
    program = PROCESSOR
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "1000 succeeded, 0 failed" in done.stdout, done.stderr
    assert "item-" in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_of_a_page_runs(page, tmp_path):
    command = [sys.executable, str(ROOT / "tests" / "run_page.py"), str(page)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_in_the_reference():
    import batch_llm

    pages = "".join(path.read_text() for path in (ROOT / "docs" / "reference").glob("*.md"))
    documented = set(re.findall(r"^::: batch_llm\.(\w+)$", pages, re.MULTILINE))
    errors = {name for name in batch_llm.__all__ if getattr(batch_llm, name).__module__ == "batch_llm.errors"}
    aliases = {"PostProcessorFunc", "ProgressCallbackFunc"}  # of types; their documentation is where they are used
    assert documented | errors | aliases >= set(batch_llm.__all__)


def test_the_version_is_the_same_everywhere():
    versions = [
        re.search(r'^version = "([^"]+)"', (ROOT / name).read_text(), re.MULTILINE).group(1)
        for name in ("Cargo.toml", "pyproject.toml")
    ]
    assert len(set(versions)) == 1


VARYING = r"'[^']*'|\d[\d.]*s?|\bopenai\b|\bOPENAI_API_KEY\b|\bChat Completions\b|pydantic_ai's Agent|\bstr\b"
"""What differs from case to case in the messages that troubleshooting.md quotes."""


def test_errors_that_troubleshooting_explains_are_those_that_are_raised():
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    sources = (*ROOT.glob("python/batch_llm/**/*.py"), *ROOT.glob("src/**/*.rs"))
    # Texts that stand on several lines of the source are one.
    said = re.sub(r'"\s*\n\s*f?"', "", "".join(path.read_text() for path in sources))
    titles = re.findall(r"^\*\*(.+)\*\*$", page, re.MULTILINE)
    assert len(titles) > 25
    for title in titles:
        for quoted in re.findall(r"`([^`]+)`", title):
            for part in re.split(VARYING, quoted):
                assert part.strip(" .;,:()") in said, (quoted, part)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.filterwarnings("ignore")
def test_a_notebook_runs_batches_in_its_own_loop_and_survives_an_interrupt():
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    setup = PROCESSOR.replace("asyncio.run(main())", "").replace("range(1000)", "range(50)")
    interrupted = """
import os, signal, threading
from batch_llm import LLMCallStrategy

class Slow(LLMCallStrategy[str]):
    async def execute(self, prompt, attempt, timeout, state=None):
        await asyncio.sleep(100)

processor = ParallelBatchProcessor(max_workers=3)
for number in range(5):
    await processor.add_work(LLMWorkItem(str(number), Slow(), "x"))
threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    await processor.process_all()
except (asyncio.CancelledError, KeyboardInterrupt):
    pass
print("after the interrupt:", processor.partial_result().total_items)
"""
    cells = [setup, "await main()", "await main()", interrupted]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3")
    asyncio.run(client.async_execute())
    printed = ["".join(o.get("text", "") for o in cell.outputs) for cell in notebook.cells]
    assert "50 succeeded, 0 failed" in printed[1]
    assert "50 succeeded, 0 failed" in printed[2]
    assert "after the interrupt: 5" in printed[3]


RUNNERS = {
    "asyncio": "import asyncio\nasyncio.run(main())",
    "uvloop": "import uvloop\nuvloop.run(main())",
    "anyio": "import anyio\nanyio.run(main)",
}


@pytest.fixture
def openai(monkeypatch):
    """A provider on this machine in place of OpenAI, for this process and its children."""
    from batch_llm.testing import SimulatedProvider

    with SimulatedProvider() as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        yield provider


def test_the_first_program_of_the_readme_runs_as_a_script_without_a_key():
    assert len([line for line in FIRST.splitlines() if line.strip()]) <= 6
    done = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True, timeout=60)
    assert "1,000 succeeded (100.0%), 0 failed" in done.stdout, done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize("runner", [name for name in RUNNERS if name != "uvloop" or sys.platform != "win32"])
def test_the_awaited_program_of_the_readme_runs_under(runner, openai):
    main = "async def main():\n" + "".join(f"    {line}\n" for line in AWAITED.splitlines()) + RUNNERS[runner]
    done = subprocess.run([sys.executable, "-c", main], capture_output=True, text=True, timeout=60)
    assert done.stdout.count("'") == 4, done.stderr
    assert done.stderr == ""


def test_both_run_in_the_repl_of_asyncio(openai):
    # What is piped is read line by line: a block of several lines is given as one.
    lines = "\n".join((AWAITED, f"exec({FIRST!r})", "print('end')\n"))
    command = [sys.executable, "-m", "asyncio"]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=60)
    assert "1,000 succeeded" in done.stdout, done.stderr
    assert "['" in done.stdout
    assert "Traceback" not in done.stderr


def test_both_run_in_a_kernel(openai):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    programs = [nbformat.v4.new_code_cell(block) for block in (FIRST, AWAITED)]
    notebook = nbformat.v4.new_notebook(cells=programs)
    asyncio.run(nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").async_execute())
    printed = ["".join(output.get("text", "") for output in cell.outputs) for cell in notebook.cells]
    assert "1,000 succeeded" in printed[0]
    assert "['" in printed[1]
