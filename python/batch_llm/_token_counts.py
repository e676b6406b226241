"""Counts of the tokens of prompts, for estimates: by a tokenizer on this machine, or by the provider.

Only ``estimates`` uses this. Tokens are counted by the first of these that can:

- the tokenizer that the user names: a ``tokenizer.json``, or ``hf:owner/name``, which is fetched from Hugging Face;
- ``tiktoken``, for models whose encoding it knows: OpenAI's;
- ``tokenizers``, where the ``tokenizer.json`` of an open model is in Hugging Face's cache on this machine;
- the provider's endpoint that counts tokens. This sends prompts, but no answer is made, and nothing has to be paid.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ._llm import LLMCallStrategy
from ._logs import logger
from ._native import NativeStrategy
from ._secrets import quoted
from ._types import TokenUsage
from .base import LLMWorkItem
from .core.config import ProcessorConfig, RetryConfig
from .core.guardrails import GuardrailConfig
from .errors import ERROR_MESSAGE_LIMIT
from .parallel import ParallelBatchProcessor

AT_ONCE = 8
"""Requests at the same time that count tokens."""
SECONDS = 60.0
"""How long the provider may take to count, for all prompts together."""
SECONDS_OF_ONE = 20.0
FEWEST = 20
"""With fewer counts than this, the rest having failed, there is no estimate by sample."""
LONGEST_TOKENIZER = 256 << 20
"""Longest ``tokenizer.json``, bytes."""
FRAME, PRIMER = 3, 3
"""Tokens around each message of a chat, and before the answer (OpenAI's cookbook, "How to count tokens")."""
FETCHED = "hf:"

Encode = Callable[[str], int]
"""Return the number of tokens of a text."""


class UncountableError(Exception):
    """Tokens cannot be counted; says why."""


def local(strategy: NativeStrategy[Any], tokenizer: str | None) -> tuple[Callable[[Any], int], str]:
    """Return what counts the tokens of a strategy's prompts on this machine, and its name.

    Args:
        strategy: The strategy.
        tokenizer: The tokenizer that the user has named.

    Raises:
        UncountableError: If no tokenizer of the model is public, or it is not there.
        ValueError: If the tokenizer of the user's cannot be used.
    """
    if tokenizer is not None:
        encode, name = _by_tokenizers(tokenizer, strategy.model)
    elif _is_openais(strategy):
        encode, name = _by_tiktoken(strategy.model)
    else:
        found = _in_cache(strategy.model)
        if found is None:
            raise UncountableError(_missing(strategy))
        encode, name = _by_tokenizers(found, strategy.model)
    return _counter(strategy, encode), name


def _is_openais(strategy: NativeStrategy[Any]) -> bool:
    return strategy.provider in ("openai", "azure") or strategy.model.rpartition("/")[2].startswith("gpt-oss")


def _missing(strategy: NativeStrategy[Any]) -> str:
    """Why there is no tokenizer of a model on this machine."""
    if strategy.provider in ("anthropic", "gemini", "bedrock", "vertex", "xai"):
        return f"no tokenizer of {strategy.model} is public"
    return (
        f"there is no tokenizer of {strategy.model} in Hugging Face's cache on this machine; if it is an open model, "
        "name its tokenizer.json, or hf:owner/name, with tokenizer= (--tokenizer)"
    )


def _by_tiktoken(model: str) -> tuple[Encode, str]:
    try:
        import tiktoken
    except ImportError:
        raise UncountableError("tiktoken is not installed (pip install 'batch-llm[tiktoken]')") from None
    try:
        encoding = tiktoken.encoding_for_model(model.rpartition("/")[2])
    except KeyError:
        raise UncountableError(f"tiktoken does not know {model}") from None
    except Exception as error:  # it downloads the encoding the first time
        logger.debug("tiktoken cannot load the encoding of %s: %s", model, error)
        raise UncountableError(f"tiktoken cannot load the encoding of {model} ({type(error).__name__})") from error
    return lambda text: len(encoding.encode(text, disallowed_special=())), f"tiktoken ({encoding.name})"


def _by_tokenizers(named: str | Path, model: str) -> tuple[Encode, str]:
    """Load a tokenizer of Hugging Face's: from a file, or where the user wants that, from the network."""
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise UncountableError("tokenizers is not installed (pip install 'batch-llm[tokenizers]')") from None
    is_users = isinstance(named, str)
    shown = str(named) if is_users else model
    try:
        if is_users and str(named).startswith(FETCHED):
            loaded = Tokenizer.from_pretrained(str(named).removeprefix(FETCHED))
        else:
            if (size := os.stat(named).st_size) > LONGEST_TOKENIZER:
                raise ValueError(f"it has {size:,} bytes; the longest that is read has {LONGEST_TOKENIZER:,}")
            loaded = Tokenizer.from_file(os.fspath(named))
    except Exception as error:  # Hugging Face's raises no other class
        problem = f"tokenizers cannot load {quoted(shown, 300)}: {error}"
        if is_users:
            hint = "tokenizer must be the path of a tokenizer.json, or hf:owner/name"
            raise ValueError(f"{problem[:ERROR_MESSAGE_LIMIT]}; {hint}") from error
        raise UncountableError(problem[:ERROR_MESSAGE_LIMIT]) from error
    loaded.no_truncation()
    loaded.no_padding()
    return lambda text: len(loaded.encode(text, add_special_tokens=False).ids), f"tokenizers ({shown})"


def _in_cache(model: str) -> Path | None:
    """The ``tokenizer.json`` of a model in Hugging Face's cache, as ``huggingface_hub`` lays it out."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model, re.ASCII):
        return None
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    home = os.environ.get("HF_HOME") or Path(cache, "huggingface")
    hub = os.environ.get("HF_HUB_CACHE") or Path(home, "hub")
    found = Path(hub, f"models--{model.replace('/', '--')}").expanduser().glob("snapshots/*/tokenizer.json")
    return max((path for path in found if path.is_file()), key=lambda path: path.stat().st_mtime, default=None)


def _counter(strategy: NativeStrategy[Any], encode: Encode) -> Callable[[Any], int]:
    """Return what counts whole prompts."""
    requests = strategy._asks
    system = requests.get("system_prompt")
    fixed = PRIMER + (encode(system) + FRAME if system else 0)
    for name in ("tools", "schema"):
        if requests.get(name):
            fixed += encode(json.dumps(requests[name], default=str))
    return lambda prompt: fixed + sum(FRAME + encode(text) for text in _texts(prompt))


def _texts(prompt: Any) -> list[str]:
    """The text of each message of a prompt.

    Raises:
        UncountableError: If there is anything but text in it.
    """
    if isinstance(prompt, str):
        return [prompt]
    if not isinstance(prompt, list):
        raise UncountableError(f"a prompt is a {type(prompt).__name__}")
    if all(isinstance(part, str) for part in prompt):
        return ["".join(prompt)]
    texts = []
    for message in prompt:
        if not isinstance(message, Mapping) or not {"role", "content"} >= set(message):
            raise UncountableError("a prompt has media, or tool calls")
        content = message["content"]
        parts = [content] if isinstance(content, str) else content
        if not isinstance(parts, list):
            raise UncountableError("a message has no text")
        texts.append("".join(_text_of(part) for part in parts))
    return texts


def _text_of(part: Any) -> str:
    text = part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else part
    if not isinstance(text, str):
        raise UncountableError("a prompt has media, or tool calls")
    return text


class _Counting(LLMCallStrategy[int]):
    """Has a strategy's provider count the tokens of prompts: as a run whose answers are numbers."""

    def __init__(self, strategy: NativeStrategy[Any]) -> None:
        self._strategy = strategy

    def check_prompt(self, prompt: Any) -> None:
        self._strategy.check_prompt(prompt)

    async def execute(self, prompt: Any, attempt: int, timeout: float, state: Any = None) -> tuple[int, TokenUsage]:
        counting = self._strategy._client.count(prompt, timeout, self._strategy._key())
        assert counting is not None, "callers ask whether it can"
        success, tokens = await counting
        if not success:
            raise tokens
        return int(tokens), {}


async def at_provider(
    requests: Sequence[tuple[NativeStrategy[Any], Any]], config: ProcessorConfig | None
) -> list[int | None]:
    """Have providers count the tokens of prompts; None for those that were not counted.

    Args:
        requests: Strategies, which can count, and a prompt for each.
        config: The settings of the run. Its limits on requests apply, and its timeout.

    Raises:
        UncountableError: If too few were counted; says why.
    """
    given = ProcessorConfig() if config is None else config
    settings = ProcessorConfig(
        concurrency=min(AT_ONCE, given._workers),
        timeout_per_item=min(SECONDS_OF_ONE, given.timeout_per_item),
        max_requests_per_minute=given.max_requests_per_minute,
        retry=RetryConfig(
            max_attempts=2, initial_wait=0.5, max_rate_limit_retries=3, max_server_wait=SECONDS / 2, outage_patience=0
        ),
        guardrails=GuardrailConfig(batch_timeout=SECONDS),
    )
    counting = {id(strategy): _Counting(strategy) for strategy, _ in requests}
    counts: list[int | None] = [None] * len(requests)
    results: list[Any] = []
    async with ParallelBatchProcessor[Any, int, int](config=settings, control=False) as processor:
        for number, (strategy, prompt) in enumerate(requests):
            name = f"count-{number}"
            await processor.add_work(LLMWorkItem(name, counting[id(strategy)], prompt, context=number))
        results += (await processor.process_all()).results
    errors = []
    for result in results:
        if result.success and result.context is not None:
            counts[result.context] = result.output
        else:
            errors.append(str(result.error or result.error_category))
    if len(requests) - counts.count(None) < min(FEWEST, len(requests)):
        names = " and ".join(dict.fromkeys(strategy.provider for strategy, _ in requests))
        why = f": {errors[0]}" if errors else ""
        raise UncountableError(f"{names} did not count the tokens{why[:ERROR_MESSAGE_LIMIT]}")
    return counts
