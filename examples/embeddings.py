"""Embeddings: find similar modules of the standard library.

export OPENAI_API_KEY=sk-...
python examples/embeddings.py                                          (--simulate: no key, no cost)
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys

from batch_llm import EmbeddingStrategy, run
from batch_llm.testing import SimulatedProvider

MODULES = "asyncio base64 bisect calendar csv datetime email fractions gzip heapq html http json math queue random "
MODULES += "sched secrets socket statistics string textwrap threading time xml zipfile zlib"


def main() -> None:
    """Embed the docstring of each module and print its nearest neighbour."""
    texts = {name: inspect.getdoc(importlib.import_module(name)) or name for name in MODULES.split()}
    # Texts are packed into requests, up to 2,048 each for OpenAI; each has its own result and its share of the tokens.
    strategy = EmbeddingStrategy("openai:text-embedding-3-small", dimensions=256)
    batch = run(strategy, texts.items(), preserve_order=True)
    vectors = {result.item_id: result.output for result in batch if result.output is not None}
    for name, vector in vectors.items():
        # Vectors have length 1, so the dot product is the cosine similarity.
        likeness = {
            other: sum(a * b for a, b in zip(vector, theirs, strict=True))
            for other, theirs in vectors.items()
            if other != name
        }
        nearest = max(likeness, key=lambda other: likeness[other])
        print(f"{name:12} {nearest:12} {likeness[nearest]:.2f}")
    print(f"{len(vectors)} vectors of {len(next(iter(vectors.values())))} numbers, {batch.total_input_tokens} tokens")


if __name__ == "__main__":
    if "--simulate" in sys.argv:
        with SimulatedProvider() as provider:
            os.environ.update(provider.environment)
            main()
    elif os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL"):
        main()
    else:
        sys.exit("OPENAI_API_KEY is not set. Get a key from OpenAI: export OPENAI_API_KEY=sk-... (or --simulate)")
