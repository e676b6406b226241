"""Retrieval-augmented generation: find relevant passages, and answer from them. One cache for embeddings and answers.

export OPENAI_API_KEY=sk-...
python examples/rag.py docs/*.md                                       (--simulate: no key, no cost)

Run it again and nothing is sent: passages, questions and answers are in rag-cache.db. Change one document, and only its
changed passages are embedded again.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from batch_llm import BatchResult, EmbeddingStrategy, llm, run
from batch_llm.testing import SimulatedProvider

QUESTIONS = ["How does a broken run go on?", "Who shares a limit?", "What does a failed item look like?"]
CACHE = "rag-cache.db"
NEAREST = 3


def passages(paths: list[Path]) -> list[str]:
    """Split documents at blank lines, and drop short passages."""
    texts = [path.read_text(encoding="utf-8") for path in paths]
    return [part.strip() for text in texts for part in text.split("\n\n") if len(part.strip()) > 80]


def vectors(texts: list[str]) -> list[list[float]]:
    """Embed texts, many per request and equal ones only once."""
    strategy = EmbeddingStrategy("openai:text-embedding-3-small", dimensions=256)
    batch = run(strategy, texts, preserve_order=True, cache=CACHE, dedupe=True, concurrency=4096)
    return [list(vector) for vector in batch.outputs() if vector is not None]


def nearest(question: list[float], known: list[list[float]]) -> list[int]:
    """Return the indexes of the nearest vectors. All have length 1, so the dot product is the similarity."""
    scores = [sum(a * b for a, b in zip(question, vector, strict=True)) for vector in known]
    return sorted(range(len(known)), key=lambda place: -scores[place])[:NEAREST]


def main(paths: list[Path]) -> None:
    """Answer the questions."""
    parts = passages(paths)
    embedded = vectors(parts + QUESTIONS)
    known, asked = embedded[: len(parts)], embedded[len(parts) :]
    # Share one strategy. Its instructions come first, so that the provider can cache them.
    strategy = llm("openai:gpt-5-mini", system_prompt="Answer from the passages alone. Say so if they do not tell.")
    prompts = []
    for question, vector in zip(QUESTIONS, asked, strict=True):
        found = "\n---\n".join(parts[place] for place in nearest(vector, known))
        prompts.append((question, f"Passages:\n{found}\n\nQuestion: {question}"))
    batch: BatchResult[str, None] = run(strategy, prompts, preserve_order=True, cache=CACHE)
    for result in batch:
        print(f"{result.item_id}\n    {result.output if result.success else result.error}")
    print(f"{len(parts)} passages; {sum(result.reused == 'cache' for result in batch)} answers were in {CACHE}")


if __name__ == "__main__":
    files = [Path(argument) for argument in sys.argv[1:] if argument != "--simulate"]
    simulated = "--simulate" in sys.argv
    if not (simulated or os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL")):
        sys.exit("OPENAI_API_KEY is not set. Get a key from OpenAI: export OPENAI_API_KEY=sk-... (or --simulate)")
    if not files:
        sys.exit("Give some documents: python examples/rag.py docs/*.md [--simulate]")
    if simulated:
        with SimulatedProvider(latency=0.02) as provider:
            os.environ.update(provider.environment)
            main(files)
    else:
        main(files)
