"""The same job with each package, as its documentation says it is to survive a crash. Started by ``__main__.py``.

``programs.py NAME`` imports the package once, and then forks for each job (a line of JSON), so that the time of a run
is not that of its imports. Each job ends, or is killed, and its end is said in a line. A function below imports a
package and returns the program: it gets the job, and returns the answers, in the order of the prompts. A second of
the provider's clock is ``job["second"]`` of ours.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

MODEL = "gpt-4.1-mini"
POLL = 30
"""Between two looks at a batch, where a package lets one say so: seconds of the provider's clock."""
LONGEST = 120.0
"""When a program that does not end is killed, seconds."""
Program = Callable[[dict[str, Any]], list[Any]]


def live() -> Program:
    """batch-llm, without batches."""
    from batch_llm import run

    def program(job: dict[str, Any]) -> list[Any]:
        batch = run(f"openai:{MODEL}", job["prompts"], api_key="any", base_url=job["url"], preserve_order=True)
        return [result.output for result in batch.results]

    return program


def batch_llm() -> Program:
    """batch-llm with a store in SQLite."""
    from batch_llm import BatchSettings, run

    def program(job: dict[str, Any]) -> list[Any]:
        second = job["second"]
        settings = BatchSettings(
            size=job["size"],
            linger=0.5,  # how fast this program is does not depend on the provider's clock
            first_poll=POLL * second,
            longest_poll=POLL * second,
            list_delays=[pause * second for pause in (0, 15, 60, 180)],
        )
        where = {"api_key": "any", "base_url": job["url"], "store": f"{job['folder']}/run.db"}
        batch = run(f"openai:{MODEL}", job["prompts"], lane="batch", batches=settings, preserve_order=True, **where)
        return [result.output for result in batch.results]

    return program


def _pydantic_model(job: dict[str, Any]) -> Any:
    from pydantic_ai.models.openai import OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    return OpenAIResponsesModel(MODEL, provider=OpenAIProvider(base_url=job["url"], api_key="any"))


def pydantic_ai() -> Program:
    """Pydantic AI's call for a list of requests, which keeps nothing."""
    from datetime import timedelta

    import_module("pydantic_ai.models.openai")
    from pydantic_ai import ModelRequest
    from pydantic_ai.direct import model_request_batch
    from pydantic_ai.models.batch import BatchRequest

    def program(job: dict[str, Any]) -> list[Any]:
        requests = [
            BatchRequest(custom_id=str(number), messages=[ModelRequest.user_text_prompt(prompt)])
            for number, prompt in enumerate(job["prompts"])
        ]
        poll = timedelta(seconds=POLL * job["second"])
        options = {"max_requests": job["size"], "poll_interval": poll, "max_poll_interval": poll}
        responses = asyncio.run(model_request_batch(_pydantic_model(job), requests, **options))
        return [getattr(response, "text", None) for response in responses]

    return program


def pydantic_ai_handles() -> Program:
    """Pydantic AI's methods for single batches, and a file that keeps the handle of each batch."""
    import_module("pydantic_ai.models.openai")
    from pydantic import TypeAdapter
    from pydantic_ai import ModelRequest
    from pydantic_ai.models.batch import Batch, BatchRequest

    handles = TypeAdapter(Batch)

    async def answer(job: dict[str, Any]) -> list[Any]:
        model, file = _pydantic_model(job), Path(job["folder"], "batches.jsonl")
        requests = [
            BatchRequest(custom_id=str(number), messages=[ModelRequest.user_text_prompt(prompt)])
            for number, prompt in enumerate(job["prompts"])
        ]
        encoded = [await model.batch_encode(request) for request in requests]
        batches = [handles.validate_json(line) for line in file.read_bytes().splitlines()] if file.exists() else []
        for start in range(len(batches) * job["size"], len(encoded), job["size"]):
            batches.append(await model.batch_create(encoded[start : start + job["size"]]))
            with file.open("ab") as kept:
                kept.write(handles.dump_json(batches[-1]) + b"\n")
                kept.flush()
                os.fsync(kept.fileno())
        answers: list[Any] = [None] * len(requests)
        for batch in batches:
            while batch.status != "ended":
                await asyncio.sleep(POLL * job["second"])
                batch = await model.batch_status(batch)
            for result in await model.batch_results(batch):
                number = int(result.custom_id)
                answers[number] = model.batch_decode(result, requests[number]).text
        return answers

    return lambda job: asyncio.run(answer(job))


def batchlane() -> Program:
    """batchlane with a checkpoint."""
    from dataclasses import replace

    import batchlane
    from batchlane.adapters.openai_shaped import ROWS

    def program(job: dict[str, Any]) -> list[Any]:
        ROWS["openai"] = replace(ROWS["openai"], base_url=job["url"])  # no option sets it
        lines = [
            batchlane.BatchLine(str(number), f"openai/{MODEL}", [{"role": "user", "content": prompt}])
            for number, prompt in enumerate(job["prompts"])
        ]
        checkpoint = f"{job['folder']}/job.jsonl"
        answers: list[Any] = [None] * len(lines)
        for handle in batchlane.submit_all(lines, checkpoint=checkpoint, max_requests_per_batch=job["size"]):
            batchlane.wait(handle, poll_interval=POLL * job["second"])
            for result in batchlane.results(handle):
                answers[int(result.custom_id)] = batchlane.answer_text(result)
        return answers

    return program


def batchor() -> Program:
    """Batchor with its store in SQLite."""
    sys.modules["tiktoken"] = None  # type: ignore[assignment] # it fetches its tables from the network; there is a fallback
    from batchor import (
        BatchItem,
        BatchJob,
        BatchRunner,
        ChunkPolicy,
        OpenAIEndpoint,
        OpenAIProviderConfig,
        PromptParts,
        SQLiteStorage,
    )

    def program(job: dict[str, Any]) -> list[Any]:
        folder = job["folder"]
        runner = BatchRunner(storage=SQLiteStorage(path=f"{folder}/runs.sqlite3"), temp_root=f"{folder}/artifacts")
        work = BatchJob(
            items=[BatchItem(item_id=str(number), payload=prompt) for number, prompt in enumerate(job["prompts"])],
            build_prompt=lambda item: PromptParts(prompt=item.payload),
            provider_config=OpenAIProviderConfig(
                model=MODEL, endpoint=OpenAIEndpoint.CHAT_COMPLETIONS, poll_interval_sec=POLL * job["second"]
            ),
            chunk_policy=ChunkPolicy(max_requests=job["size"]),
        )
        run = runner.start(work, run_id="job").wait()
        answers = {result.item_id: result.output_text for result in run.results()}
        return [answers.get(str(number)) for number in range(len(job["prompts"]))]

    return program


def curator() -> Program:
    """Curator, whose cache is its working folder."""
    import_module("litellm")  # or the first job imports it
    from bespokelabs import curator
    from datasets import Dataset

    class Asker(curator.LLM):
        def prompt(self, row: dict[str, Any]) -> str:
            return row["prompt"]

        def parse(self, row: dict[str, Any], response: str) -> dict[str, Any]:
            return {"prompt": row["prompt"], "answer": response}

    def program(job: dict[str, Any]) -> list[Any]:
        parameters = {
            "base_url": job["url"],
            "api_key": "any",
            "batch_size": job["size"],
            "batch_check_interval": max(1, round(POLL * job["second"])),  # whole seconds
        }
        asker = Asker(model_name=MODEL, batch=True, backend="openai", backend_params=parameters)
        rows = Dataset.from_list([{"prompt": prompt} for prompt in job["prompts"]])
        got = asker(rows, working_dir=f"{job['folder']}/curator").dataset
        answers = dict(zip(got["prompt"], got["answer"], strict=True))
        return [answers.get(prompt) for prompt in job["prompts"]]

    return program


def inspect_ai() -> Program:
    """Inspect, whose log of an evaluation has the samples that are done."""
    import_module("openai")
    from inspect_ai import Task, eval_set, task
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.log import read_eval_log
    from inspect_ai.model import BatchConfig
    from inspect_ai.solver import generate

    def program(job: dict[str, Any]) -> list[Any]:
        samples = [Sample(id=number, input=prompt) for number, prompt in enumerate(job["prompts"])]

        @task
        def ask() -> Task:
            return Task(dataset=MemoryDataset(samples), solver=generate())

        second, size = job["second"], job["size"]
        waiting = BatchConfig(size=size, max_size=size, send_delay=5.0, tick=POLL * second)
        _, logs = eval_set(
            ask(),
            log_dir=f"{job['folder']}/logs",
            model=f"openai/{MODEL}",
            batch=waiting,
            max_connections=len(samples),
            max_samples=len(samples),
            log_buffer=1,
            log_realtime=False,
            retry_wait=second,
            display="none",
        )
        answers = {
            sample.id: sample.output.completion
            for sample in read_eval_log(logs[0].location).samples or []
            if not sample.error
        }
        return [answers.get(number) for number in range(len(samples))]

    return program


def work(program: Program, job: dict[str, Any]) -> None:
    """Do the job in this process, and write the answers in one piece."""
    folder = Path(job["folder"])
    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(folder)
    os.environ.update(OPENAI_BASE_URL=job["url"], HOME=str(folder))
    status = 1
    try:
        answers = program(job)
        (folder / "answers.json").write_text(json.dumps(answers))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def until_end(child: int, kill_after: float) -> tuple[int, float]:
    """Kill the child after so many seconds, unless it ends before; return its exit status, and how long it has run."""
    began = time.perf_counter()
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        seconds = time.perf_counter() - began
        if ended:
            return os.waitstatus_to_exitcode(status), seconds
        if seconds > kill_after:
            os.kill(child, signal.SIGKILL)
            kill_after = float("inf")
        time.sleep(0.002)


def main() -> None:
    """Fork for each job."""
    # Nothing but the simulated provider is asked for anything.
    os.environ.update(TELEMETRY_ENABLED="0", LITELLM_LOCAL_MODEL_COST_MAP="True", HF_HUB_OFFLINE="1")
    os.environ.update(NO_PROXY="127.0.0.1", CURATOR_DISABLE_RICH_DISPLAY="1", OPENAI_API_KEY="any")
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a package prints
    program: Program = globals()[sys.argv[1]]()
    print("ready", file=said, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            work(program, job)
        status, seconds = until_end(child, job["kill_after"] or LONGEST)
        print(json.dumps([status, seconds]), file=said, flush=True)


if __name__ == "__main__":
    main()
