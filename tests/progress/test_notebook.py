"""In a real Jupyter kernel: the example notebook as it stands, and what the interrupt button does."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.filterwarnings("ignore")


def texts(cell):
    return "".join(output.get("text", "") for output in cell.outputs)


def htmls(cell):
    return ["".join(output.data.get("text/html", "")) for output in cell.outputs if "data" in output]


def test_the_example_notebook(tmp_path):
    notebook = nbformat.read(ROOT / "examples" / "quickstart.ipynb", as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    asyncio.run(client.async_execute())
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    panel, cell = htmls(code[1])
    assert "500 / 500" in panel
    assert "<svg" in cell
    assert "500 succeeded (100.0%), 0 failed" in cell
    assert "50 succeeded" in texts(code[2])
    assert code[4].outputs[0].data["text/plain"] == "[7, 7, 7, 7, 7]"
    assert (tmp_path / "run.html").read_text().startswith("<!doctype html>")


def test_the_notebook_of_conversations(tmp_path):
    notebook = nbformat.read(ROOT / "examples" / "conversations.ipynb", as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    asyncio.run(client.async_execute())
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert "3 succeeded (100.0%)" in htmls(code[1])[0]
    assert [line.split()[0] for line in texts(code[2]).splitlines()] == ["user", "assistant", "tool", "assistant"]
    assert "rounds" in htmls(code[3])[0]
    assert "3 from the store" in texts(code[4])


SETUP = """
import asyncio
import os
import pandas
from batch_llm import last_interrupted, process_frame, process_prompts, process_stream, run, stream

async def slow(prompt):
    print("begun", flush=True)
    if prompt == "interrupt":
        while not os.path.exists(INTERRUPTED):
            await asyncio.sleep(0.01)
        prompt = "0.4"  # ends a little later
    await asyncio.sleep(float(prompt))
    return prompt
"""
WAYS = {
    "await": 'batch = await process_prompts(slow, ["interrupt"] * 100, concurrency=5)',
    "run": 'batch = run(slow, ["interrupt"] * 100, concurrency=5, progress=True)',
}
REPORT = "print(batch.termination.kind, batch.succeeded, batch.not_sent, batch.total_items)"


def interrupted(cells):
    """The cells of a notebook whose second one is interrupted. Prompts "interrupt" are answered after that."""
    folder = tempfile.TemporaryDirectory()
    sent = Path(folder.name, "sent")
    cells = [f"INTERRUPTED = {str(sent)!r}\n{cells[0]}", *cells[1:]]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])

    async def execute():
        client = nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3", allow_errors=True)
        async with client.async_setup_kernel():
            await client.async_execute_cell(notebook.cells[0], 0)
            interrupted = asyncio.ensure_future(client.async_execute_cell(notebook.cells[1], 1))
            while texts(notebook.cells[1]).count("begun") < 5:
                await asyncio.sleep(0.02)
            await client.km.interrupt_kernel()
            sent.touch()
            await interrupted
            for index in range(2, len(cells)):
                await client.async_execute_cell(notebook.cells[index], index)

    with folder:
        asyncio.run(execute())
    return notebook.cells


# Before Python 3.11, what awaits a task that was cancelled gets a new exception.
IN_A_TASK = "KeyboardInterrupt" if sys.version_info >= (3, 11) else "CancelledError"
AGAIN = "print((await process_prompts(slow, ['0'])).succeeded)"


@pytest.mark.parametrize("way", WAYS)
def test_the_interrupt_button_stops_the_notebook_and_keeps_what_is_done(way):
    cells = interrupted([SETUP, WAYS[way], "batch = last_interrupted()\n" + REPORT, AGAIN])
    (error,) = [output for output in cells[1].outputs if output["output_type"] == "error"]
    assert error["ename"] == "KeyboardInterrupt"
    assert "batch_llm.last_interrupted()" in error["evalue"]
    assert texts(cells[2]).split() == ["interrupted", "5", "95", "100"]
    assert texts(cells[3]).split() == ["begun", "1"]


@pytest.mark.parametrize("way", WAYS)
def test_it_returns_what_is_done_where_that_is_wanted(way):
    cells = interrupted([SETUP, WAYS[way].replace("concurrency=5", 'concurrency=5, on_interrupt="return"'), REPORT])
    assert not [output for output in cells[1].outputs if output["output_type"] == "error"]
    assert texts(cells[2]).split() == ["interrupted", "5", "95", "100"]


def test_a_task_in_the_background_does_not_end_the_kernel():
    begin = "task = asyncio.ensure_future(process_prompts(slow, ['interrupt'] * 100, concurrency=5))\nawait task"
    cells = interrupted([SETUP, begin, "batch = last_interrupted()\n" + REPORT, AGAIN])
    (error,) = [output for output in cells[1].outputs if output["output_type"] == "error"]
    assert error["ename"] == IN_A_TASK
    assert texts(cells[2]).split() == ["interrupted", "5", "95", "100"]
    assert texts(cells[3]).split() == ["begun", "1"]


def test_a_frame_too():
    ask = "await process_frame(pandas.DataFrame({'text': ['interrupt'] * 100}), '{text}', slow, concurrency=5)"
    cells = interrupted([SETUP, ask, "print(last_interrupted().output.notna().sum())"])
    assert texts(cells[2]).split() == ["5"]


BEHIND = """
async def behind():
    return await process_prompts(slow, ["interrupt"] * 20, concurrency=5)
task = asyncio.ensure_future(behind())
"""
IN_FRONT = {
    "waits for something else": "await asyncio.sleep(600)",
    "computes": "await asyncio.sleep(0.1)\nwhile True: pass",
    "another run": "batch = await process_prompts(slow, ['6'] * 100, concurrency=5)",
}


@pytest.mark.parametrize("cell", IN_FRONT)
@pytest.mark.parametrize("is_same", [True, False])
def test_it_belongs_to_the_cell_and_not_to_a_run_in_the_background(cell, is_same):
    if cell == "computes" and is_same:
        pytest.skip("ipykernel itself does not interrupt that")
    front = IN_FRONT[cell] if is_same or cell != "computes" else "print('begun ' * 5, flush=True)\nwhile True: pass"
    setup, begin = (
        (SETUP, BEHIND) if is_same else (SETUP + BEHIND + "await asyncio.sleep(0.3)\n", "print('begun ' * 5)\n")
    )
    cells = interrupted([setup, begin + front + "\nprint('went on')", "print((await task).termination.kind)"])
    (error,) = [output for output in cells[1].outputs if output["output_type"] == "error"]
    assert error["ename"] in ("KeyboardInterrupt", "CancelledError")
    assert "went on" not in texts(cells[1])
    assert texts(cells[2]).split()[-1] == "completed"


WAITING = {
    "gather": "await asyncio.gather(one(), one())",
    "a task that waits for one": "await asyncio.ensure_future(two())",
    "gather of runs": "runs = [process_prompts(slow, ['interrupt'] * 100, concurrency=5) for _ in range(2)]\n"
    "await asyncio.gather(*runs)",
    # A group takes a task that was cancelled for one that is done.
    "task group": "async with asyncio.TaskGroup() as group: task = group.create_task(one())\ntask.result()",
}


@pytest.mark.parametrize("way", WAITING)
def test_runs_that_the_cell_waits_for_end_gently(way):
    if way == "task group" and not hasattr(asyncio, "TaskGroup"):
        pytest.skip("Python 3.11")
    setup = """
async def one():
    return await process_prompts(slow, ["interrupt"] * 100, concurrency=5)
async def two():
    return await asyncio.create_task(one())
"""
    cells = interrupted([SETUP + setup, WAITING[way], "batch = last_interrupted()\n" + REPORT])
    assert texts(cells[2]).split() == ["interrupted", "5", "95", "100"]
    (error,) = [output for output in cells[1].outputs if output["output_type"] == "error"]
    assert error["ename"] == IN_A_TASK


CAUGHT = """
try:
    await asyncio.gather(*[process_prompts(slow, ["interrupt"] * 100, concurrency=5) for _ in range(2)])
except KeyboardInterrupt as error:
    batch = error.partial_result
"""


@pytest.mark.skipif(sys.version_info < (3, 11), reason="what awaits a cancelled task gets a new exception")
def test_what_a_gather_raises_has_a_batch():
    cells = interrupted([SETUP, CAUGHT, REPORT])
    assert texts(cells[2]).split() == ["interrupted", "5", "95", "100"]


PROCESSED = """
from batch_llm import CallableStrategy, LLMWorkItem, ParallelBatchProcessor
async def process():
    async with ParallelBatchProcessor(max_workers=5) as processor:
        for number in range(10):
            await processor.add_work(LLMWorkItem(str(number), CallableStrategy(slow), "60"))
        return await processor.process_all()
"""


@pytest.mark.parametrize("way", ["await process()", "await asyncio.gather(process(), process())"])
def test_a_processor_too(way):
    cells = interrupted([SETUP + PROCESSED, way, "batch = last_interrupted()\n" + REPORT, AGAIN])
    (error,) = [output for output in cells[1].outputs if output["output_type"] == "error"]
    assert error["ename"] == ("KeyboardInterrupt" if "gather" not in way else IN_A_TASK)
    assert texts(cells[2]).split() == ["interrupted", "0", "5", "10"]
    assert texts(cells[3]).split() == ["begun", "1"]
