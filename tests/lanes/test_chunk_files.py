"""The files that the lane uploads are files for OpenAI's Batch API, and `batch-llm run` answers those."""

from __future__ import annotations

import json
import urllib.request

from click.testing import CliRunner

from batch_llm import run
from batch_llm.cli.main import main

from .common import of, simulated


def test_the_command_line_answers_what_the_lane_has_uploaded(tmp_path):
    chunk, answered = tmp_path / "chunk.jsonl", tmp_path / "answered.jsonl"
    prompts = [f"prompt {number} \u2028 of two lines" for number in range(5)]
    with simulated() as provider:
        url = provider.batch_url("openai")

        def get(path):
            request = urllib.request.Request(url + path, headers={"authorization": "Bearer key"})
            with urllib.request.urlopen(request) as reply:
                return reply.read()

        strategy, batched = of(provider, "openai", tmp_path / "run.db", system_prompt="Be brief.")
        run(strategy, prompts, **batched, wait=False)
        [file] = json.loads(get("/files"))["data"]
        chunk.write_bytes(get(f"/files/{file['id']}/content"))
        arguments = ["run", str(chunk), "-o", str(answered), "-m", strategy, "--base-url", url]
        done = CliRunner().invoke(main, arguments, env={"OPENAI_API_KEY": "key"})
        assert done.exit_code == 0, done.output
        batch = run(strategy, prompts, preserve_order=True, **batched)
    lines = [json.loads(line) for line in answered.read_text("utf-8").split("\n") if line]
    bodies = {line["custom_id"].rsplit("-", 1)[1]: line["response"]["body"] for line in lines}
    replies = {number: body["choices"][0]["message"]["content"] for number, body in bodies.items()}
    assert [replies[str(number)] for number in range(5)] == [result.output for result in batch.results]
