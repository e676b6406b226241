"""Thousands of real prompts: summarize and categorize every public function of the standard library.

Runs against the simulated provider over real HTTP, with occasional rate limits and server errors:

    python examples/summarize_stdlib.py

With ``--real`` it sends the first ``--limit`` functions to OpenAI (model gpt-5-mini, or --model). That needs a key in
the environment variable ``OPENAI_API_KEY``.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import inspect
import io
import json
import logging
import os
import pkgutil
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from batch_llm import OpenAIStrategy, ProcessorConfig, RetryConfig, run
from batch_llm.testing import Fault, SimulatedProvider

CATEGORIES = ["text", "files", "network", "data", "concurrency", "language", "system", "other"]
SYSTEM_PROMPT = (
    "Summarize a Python function in one line and put it into one of these categories: "
    + ", ".join(CATEGORIES)
    + '. Answer with a JSON object {"summary": ..., "category": ...} and nothing else.'
)
RESULTS, REPORT = Path("demo-results.jsonl"), Path("demo-report.html")
# Modules with side effects on import.
NOISY = {"antigravity", "this", "idlelib", "lib2to3", "test", "turtledemo", "turtle", "ensurepip", "tkinter"}


def standard_modules() -> list[Any]:
    """Import every public module of the standard library that this platform has."""
    names = [name for name in sorted(sys.stdlib_module_names) if not name.startswith("_") and name not in NOISY]
    modules = []
    for name in names:
        with contextlib.suppress(Exception), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            module = importlib.import_module(name)
            modules.append(module)
            for child in pkgutil.iter_modules(getattr(module, "__path__", [])):
                if not child.name.startswith("_") and child.name not in NOISY:
                    with contextlib.suppress(Exception):
                        modules.append(importlib.import_module(f"{name}.{child.name}"))
    return modules


def public_functions() -> dict[str, str]:
    """Return the full name and a prompt for every public function and method: signature and docstring."""
    prompts: dict[str, str] = {}
    for module in standard_modules():
        for name, value in list(vars(module).items()):
            if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
                continue
            holders = list(vars(value).items()) if inspect.isclass(value) else [("", value)]
            for method, function in holders:
                if method.startswith("_") or not inspect.isroutine(function):
                    continue
                path = ".".join(part for part in (module.__name__, name, method) if part)
                signature = "(...)"
                # For built-in functions inspect evaluates their text signatures, which can raise anything.
                with contextlib.suppress(Exception):
                    signature = str(inspect.signature(function))
                text = (inspect.getdoc(function) or "No docstring.").strip()
                prompts[path] = f"{path}{signature}\n\n{text[:1500]}"
    return prompts


def summarize(prompts: dict[str, str], strategy: OpenAIStrategy[Any], config: ProcessorConfig) -> None:
    """Run the job, write the results and a report, print the summary."""
    batch = run(strategy, prompts.items(), config=config, progress="tqdm")
    batch.to_jsonl(RESULTS)
    batch.report(REPORT)
    categories = Counter(output["category"] for output in batch.outputs() if output)
    print(f"\n{batch.summary()}")
    print(f"categories  {', '.join(f'{name} {number}' for name, number in categories.most_common())}")
    print(f"results     {RESULTS.resolve()}")
    print(f"report      {REPORT.resolve()}")


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", action="store_true", help="ask OpenAI in place of the simulated provider")
    parser.add_argument("--model", default="gpt-5-mini")
    parser.add_argument("--limit", type=int, default=20, help="with --real: how many functions")
    arguments = parser.parse_args()
    if arguments.real and not os.environ.get("OPENAI_API_KEY"):
        sys.exit("OPENAI_API_KEY is not set. Get a key from OpenAI: export OPENAI_API_KEY=sk-... (or leave out --real)")
    prompts = public_functions()
    options: dict[str, Any] = {"system_prompt": SYSTEM_PROMPT, "response_parser": json.loads}
    if arguments.real:
        prompts = dict(list(prompts.items())[: arguments.limit])
        summarize(prompts, OpenAIStrategy(arguments.model, **options), ProcessorConfig(concurrency=20))
        return
    faults = [Fault(429, every=1500, retry_after=0.5), Fault(500, every=97)]
    replies = [json.dumps({"summary": "{excerpt}", "category": category}) for category in CATEGORIES]
    config = ProcessorConfig(concurrency=100, retry=RetryConfig(max_attempts=5, initial_wait=0.2))
    # This run causes retries on purpose; their log lines would break the progress bar.
    logging.getLogger("batch_llm").setLevel(logging.CRITICAL)
    with SimulatedProvider(latency=0.05, latency_spread=0.1, faults=faults, replies=replies) as provider:
        print(f"{len(prompts):,} functions, simulated provider at {provider.base_url}")
        summarize(prompts, OpenAIStrategy("simulated", base_url=provider.base_url, **options), config)


if __name__ == "__main__":
    main()
