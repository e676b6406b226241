"""Other packages on the scene of ``pools.py``, which calls this: ``python pool_peers.py PEER ITEMS IN_FLIGHT URL...``.

Prints the seconds that the items took, and how many failed. Each package is set to spread requests over the endpoints
and to send them elsewhere when they fail.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it looks for prices on the network when it is imported


async def litellm_router(urls: list[str], items: int, in_flight: int, strategy: str) -> int:
    """Ask through LiteLLM's Router; return how many failed."""
    import litellm

    litellm.suppress_debug_info = True
    deployments: Any = [
        {"model_name": "m", "litellm_params": {"model": "openai/m", "api_base": url, "api_key": "key"}} for url in urls
    ]
    router: Any = litellm.Router(model_list=deployments, routing_strategy=strategy, num_retries=3, retry_after=0)
    left, failed = itertools.count(), 0

    async def work() -> None:
        nonlocal failed
        while (number := next(left)) < items:
            try:
                await router.acompletion("m", messages=[{"role": "user", "content": f"prompt {number}"}])
            except Exception:
                failed += 1

    await asyncio.gather(*(work() for _ in range(in_flight)))
    return failed


async def flexllm_pool(urls: list[str], items: int, in_flight: int) -> int:
    """Ask through flexllm's pool of clients; return how many failed."""
    import flexllm

    endpoints: Any = [{"base_url": url, "api_key": "key", "model": "m", "provider": "openai"} for url in urls]
    pool: Any = flexllm.LLMClientPool(
        endpoints=endpoints, fallback=True, failure_threshold=3, recovery_time=5.0, concurrency_limit=in_flight,
        total_concurrency_limit=in_flight, max_qps=10**9, retry_times=3,
    )  # fmt: skip
    messages = [[{"role": "user", "content": f"prompt {number}"}] for number in range(items)]
    answers: Any = await pool.chat_completions_batch(messages, show_progress=False)
    return sum(not isinstance(answer, str) for answer in answers)


PEERS: dict[str, Callable[..., Awaitable[int]]] = {
    "litellm-shuffle": lambda *scene: litellm_router(*scene, "simple-shuffle"),
    "litellm-latency": lambda *scene: litellm_router(*scene, "latency-based-routing"),
    "flexllm": flexllm_pool,
}


def main() -> None:
    """Measure one of them."""
    # Not part of what is measured.
    import_module(sys.argv[1].partition("-")[0])
    peer, items, in_flight, urls = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
    began = time.perf_counter()
    failed: Any = asyncio.run(PEERS[peer](urls, items, in_flight))  # type: ignore[arg-type]
    print(time.perf_counter() - began, failed)


if __name__ == "__main__":
    main()
