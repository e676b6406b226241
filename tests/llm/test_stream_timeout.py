"""Replies that come as streams are ended by the clocks of the stream, not by the default timeout of an attempt."""

from __future__ import annotations

import copy
import pickle

import pytest

from batch_llm import ProcessorConfig, RetryConfig, llm, process_prompts
from batch_llm._attempt_timeout import DEFAULT_TIMEOUT, _Default, attempt_timeout
from batch_llm.testing import SimulatedProvider


def test_the_default_is_told_apart_from_a_number_of_the_user():
    config = ProcessorConfig()
    assert config.timeout_per_item == 120.0
    for given in (config, copy.copy(config), pickle.loads(pickle.dumps(config))):
        assert attempt_timeout(given.timeout_per_item, 3600.0) == 3600.0
    assert attempt_timeout(120.0, 3600.0) == 120.0
    assert attempt_timeout(DEFAULT_TIMEOUT, None) == 120.0


@pytest.mark.parametrize("observed", [False, True])
async def test_a_stream_may_take_longer_than_the_default(observed):
    retry = RetryConfig(max_attempts=1)
    with SimulatedProvider(latency=1.0) as provider:

        async def results(stream, timeout):
            strategy = llm("openai-compatible:m", base_url=provider.url + "/v1", api_key="k", stream=stream)
            config = ProcessorConfig(max_workers=2, timeout_per_item=timeout, retry=retry)
            post_processor = (lambda result: None) if observed else None
            batch = await process_prompts(strategy, ["a", "b"], config=config, post_processor=post_processor)
            return [result.success for result in batch.results]

        assert await results(True, _Default(0.2)) == [True, True]
        assert await results(True, 0.2) == [False, False]
        assert await results(False, _Default(0.2)) == [False, False]
