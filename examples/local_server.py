"""Use your own server: vLLM, SGLang, Ollama, llama.cpp, or anything OpenAI-compatible.

ollama serve & ollama pull llama3.2
python examples/local_server.py ollama:llama3.2
python examples/local_server.py openai-compatible:my-model http://localhost:8080/v1     (--simulate: no server)

Such servers need no key. For a provider that does, set the variable that the message names.

The best concurrency of such a server is rarely known. concurrency="auto", the default, finds it.
"""

from __future__ import annotations

import sys

from batch_llm import llm, run
from batch_llm.testing import SimulatedProvider

PROMPTS = [f"Write one sentence about the number {number}." for number in range(50)]


def main(model: str, base_url: str | None) -> None:
    """Run the prompts, and print the summary with the concurrency that was found."""
    try:
        strategy = llm(model, base_url=base_url, max_tokens=100)
    except ValueError as error:  # an unknown model name, or a provider that needs a key
        sys.exit(f"{error} (or --simulate)")
    batch = run(strategy, PROMPTS, progress=True)
    print(batch.summary())


if __name__ == "__main__":
    if "--simulate" in sys.argv:
        with SimulatedProvider(latency=0.1, latency_spread=0.1) as provider:
            main("openai-compatible:simulated", provider.base_url)
    elif len(sys.argv) < 2:
        sys.exit("Name a model: python examples/local_server.py ollama:llama3.2")
    else:
        main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
