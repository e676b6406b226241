"""An agent for each of a thousand files: it reads as much of its file as it needs, and answers in a typed object.

export OPENAI_API_KEY=sk-...
python examples/agent_over_files.py FOLDER                             (--simulate: no key, no cost)

By default the files are those of Python's standard library. What every agent has read and said is in agents.db: a
program that was killed goes on in the middle of each conversation.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

from pydantic import BaseModel

from batch_llm import ToolContext, llm, run
from batch_llm.testing import SimulatedProvider

FILES = 1000
PART = 2000
STORE = "agents.db"


class Purpose(BaseModel):
    """What a file is for."""

    summary: str
    has_tests: bool


def read_part(offset: int, call: ToolContext) -> str:
    """Read the next part of the file, from this offset in characters. Begin with 0."""
    path: Path = call.context
    text = path.read_text(encoding="utf-8", errors="replace")
    # Models make mistakes: an offset outside of the file is one.
    start = min(max(offset, (call.round - 1) * PART), len(text))
    part, left = text[start : start + PART], len(text) - start - PART
    return part if left <= 0 or call.round >= 3 else f"{part}\n({left} more characters: call read_part again)"


def main(folder: Path) -> None:
    """Have all files read."""
    paths = sorted(folder.rglob("*.py"))[:FILES]
    strategy = llm("openai:gpt-5-mini", tools=[read_part], rounds=6, response_model=Purpose)
    prompts = [
        (str(path.relative_to(folder)), "What is this file for? Use read_part until you know.", path) for path in paths
    ]
    batch = run(strategy, prompts, store=STORE, progress=True)
    print(batch.summary())
    rounds = [result.rounds or 0 for result in batch]
    print(f"{sum(rounds)} rounds for {len(rounds)} files")
    for result in [result for result in batch if result.success][:3]:
        assert result.output is not None
        print(f"    {result.item_id}: {result.output.summary}")


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    place = Path(arguments[0] if arguments else sysconfig.get_path("stdlib"))
    if "--simulate" in sys.argv:
        with SimulatedProvider(latency=0.02) as provider:
            os.environ.update(provider.environment)
            main(place)
    elif os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL"):
        main(place)
    else:
        sys.exit("OPENAI_API_KEY is not set. Get a key from OpenAI: export OPENAI_API_KEY=sk-... (or --simulate)")
