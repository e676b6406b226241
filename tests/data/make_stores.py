"""Makes the stores that later versions must read: ``python tests/data/make_stores.py``, once per format."""

from pathlib import Path

from batch_llm import llm, run
from batch_llm.testing import SimulatedProvider

HERE = Path(__file__).parent
FORMAT = 1

if __name__ == "__main__":
    with SimulatedProvider() as provider:
        for suffix in (".db", ".jsonl"):
            store = HERE / f"store-{FORMAT}{suffix}"
            store.unlink(missing_ok=True)
            strategy = llm("openai:gpt-5-mini", api_key="none", base_url=provider.base_url, temperature=0.5)
            prompts = [("1", "One?"), ("2", "Two?", {"page": 2}), ("3", ["Three?"])]
            assert run(strategy, prompts, store=store).succeeded == 3
