"""Gemini through the google-genai SDK. Public as part of :mod:`batch_llm.llm_strategies`."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from . import llm_strategies as _home
from ._llm import LLMCallStrategy, attach_usage, count
from ._logs import logger_of

if TYPE_CHECKING:
    from google import genai
    from google.genai.types import Content, GenerateContentConfig

    from ._types import RetryState, TokenUsage

logger = logger_of("batch_llm.llm_strategies")

TOutput = TypeVar("TOutput")


@dataclass
class GeminiResponse(Generic[TOutput]):
    """An output with Gemini's metadata, from strategies with ``include_metadata=True``.

    Args:
        output: What the response parser returned.
        safety_ratings: Probability by category, with Gemini's names; {} if there are none.
        finish_reason: The name of the reason, such as ``"STOP"``; None if Gemini reports none.
        token_usage: The call's token counts.
        raw_response: The SDK's response.
    """

    output: TOutput
    safety_ratings: dict[str, str] | None
    finish_reason: str | None
    token_usage: dict[str, int]
    raw_response: Any


def _require_sdk(strategy: str) -> None:
    if not _home._GENAI_INSTALLED:
        raise ImportError(f"google-genai is required for {strategy}. Install it: pip install 'batch-llm[gemini]'")


def _name(value: Any) -> str:
    """An SDK enum by its name, anything else as text."""
    return str(getattr(value, "name", None) or getattr(value, "value", None) or value)


def _safety_ratings(response: Any) -> dict[str, str]:
    ratings: dict[str, str] = {}
    try:
        candidates = response.candidates or []
        for rating in (candidates[0].safety_ratings or []) if candidates else []:
            category = getattr(rating, "category", "UNKNOWN")
            ratings[_text(category)] = _text(getattr(rating, "probability", "UNKNOWN"))
    except Exception as error:
        logger.warning("Could not read Gemini's safety ratings: %s", error)
    return ratings


def _text(value: Any) -> str:
    return value if isinstance(value, str) and not hasattr(value, "name") else _name(value)


def _finish_reason(response: Any) -> str | None:
    try:
        candidates = response.candidates or []
        reason = getattr(candidates[0], "finish_reason", None) if candidates else None
    except Exception as error:
        logger.warning("Could not read Gemini's finish reason: %s", error)
        return None
    return None if reason is None else _text(reason)


def _counts(response: Any) -> dict[str, int]:
    usage = getattr(response, "usage_metadata", None)
    return {
        "input_tokens": count(getattr(usage, "prompt_token_count", None)),
        "output_tokens": count(getattr(usage, "candidates_token_count", None)),
        "total_tokens": count(getattr(usage, "total_token_count", None)),
    }


class GeminiStrategy(LLMCallStrategy[TOutput]):
    """Calls Gemini through a client of the google-genai SDK.

    Share one strategy object between items: they share its client and its connections.

    Args:
        model: The model name.
        client: The SDK's client.
        response_parser: Converts the SDK's response to the output. If it raises, the attempt fails.
        config: The SDK's configuration for each call.
        include_metadata: Whether outputs are :class:`GeminiResponse` objects.

    Raises:
        ImportError: If google-genai is not installed.
    """

    def __init__(
        self,
        model: str,
        client: genai.Client,
        response_parser: Callable[[Any], TOutput],
        config: GenerateContentConfig | None = None,
        include_metadata: bool = False,
    ) -> None:
        _require_sdk("GeminiStrategy")
        self.model = model
        self.client = client
        self.response_parser = response_parser
        self.config = config
        self.include_metadata = include_metadata

    async def execute(
        self, prompt: str, attempt: int, timeout: float, state: RetryState | None = None
    ) -> tuple[TOutput, TokenUsage]:
        """Call Gemini once."""
        response = await self.client.aio.models.generate_content(model=self.model, contents=prompt, config=self.config)
        return self._read(response, _counts(response))

    def _read(self, response: Any, tokens: dict[str, int]) -> tuple[TOutput, TokenUsage]:
        usage: Any = tokens
        try:
            output: Any = self.response_parser(response)
        except Exception as error:
            attach_usage(error, usage)
            raise
        if self.include_metadata:
            output = GeminiResponse(output, _safety_ratings(response), _finish_reason(response), tokens, response)
        return output, usage


@dataclass(frozen=True)
class _Cache:
    """A context cache and its end, which belong together: replaced as one, so that no check can mix two caches."""

    name: str
    expires_at: float


class _Lock:
    """A lock for tasks of any event loop: a strategy may serve several, also at the same time.

    An ``asyncio.Lock`` belongs to the first loop in which a task waits for it. So each loop has its own, and the
    task that has it takes the one that all loops share, or retries soon if a task of another loop has it.
    """

    _LOOK_AGAIN = 0.02  # seconds

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._of_loops: dict[asyncio.AbstractEventLoop, asyncio.Lock] = {}
        self._of_all = threading.Lock()
        self._process = os.getpid()

    def __reduce__(self) -> tuple[type[_Lock], tuple[()]]:
        return _Lock, ()  # a copy has its own lock

    @contextlib.asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Hold the lock within a block."""
        if self._process != os.getpid():
            self._reset()  # its owner at the time of the fork is not in this process
        async with self._of_this_loop():
            of_all = self._of_all
            while not of_all.acquire(blocking=False):  # noqa: ASYNC110 - an event would belong to one loop too
                await asyncio.sleep(self._LOOK_AGAIN)
            try:
                yield
            finally:
                of_all.release()

    def _of_this_loop(self) -> asyncio.Lock:
        loop = asyncio.get_running_loop()
        if loop not in self._of_loops:
            for other in [other for other in list(self._of_loops) if other.is_closed()]:
                self._of_loops.pop(other, None)
        return self._of_loops.setdefault(loop, asyncio.Lock())


class GeminiCachedStrategy(GeminiStrategy[TOutput]):
    """Calls Gemini with a context cache; cached tokens cost a tenth of the price (as of 2025).

    **Share one object between all items with the same content.** The cache is found or created once, before the first
    item, and renewed before it expires. It is not deleted, so later runs and other processes can reuse it.

    Args:
        model: The model name.
        client: The SDK's client.
        response_parser: Converts the SDK's response to the output.
        cached_content: The content to cache, in the SDK's format.
        cache_ttl_seconds: Time to live (TTL) of a cache, seconds, > 0.
        cache_refresh_threshold: Deprecated; has no effect.
        cache_renewal_buffer_seconds: How long before it expires a cache is replaced, seconds, > 0 and less than the
            TTL.
        auto_renew: Whether to check before each call if the cache is about to expire.
        config: The SDK's configuration for each call.
        include_metadata: Whether outputs are :class:`GeminiResponse` objects.
        cache_tags: Tags that a cache must have to be reused; at most ten. A cache that this class created is reused
            only for the same content, with or without tags.

    Raises:
        ImportError: If google-genai is not installed.
        ValueError: If the TTL or the buffer is invalid.
    """

    def __init__(
        self,
        model: str,
        client: genai.Client,
        response_parser: Callable[[Any], TOutput],
        cached_content: list[Content],
        cache_ttl_seconds: int = 3600,
        cache_refresh_threshold: float = 0.1,
        cache_renewal_buffer_seconds: int = 300,
        auto_renew: bool = True,
        config: GenerateContentConfig | None = None,
        include_metadata: bool = False,
        cache_tags: dict[str, str] | None = None,
    ) -> None:
        _require_sdk("GeminiCachedStrategy")
        super().__init__(model, client, response_parser, config, include_metadata)
        if cache_renewal_buffer_seconds >= cache_ttl_seconds:
            raise ValueError(
                f"cache_renewal_buffer_seconds ({cache_renewal_buffer_seconds}) must be less than cache_ttl_seconds "
                f"({cache_ttl_seconds}); otherwise every call renews the cache. Lower the buffer or raise the TTL."
            )
        for name, value in (
            ("cache_ttl_seconds", cache_ttl_seconds),
            ("cache_renewal_buffer_seconds", cache_renewal_buffer_seconds),
        ):
            if not value > 0:
                raise ValueError(f"{name} must be > 0 (got {value}). It is a number of seconds.")
        if cache_tags is not None and len(cache_tags) > _MAX_TAGS:
            raise ValueError(
                f"cache_tags has {len(cache_tags)} tags; at most {_MAX_TAGS} fit into the name of a cache."
            )
        if 10 <= cache_ttl_seconds < 60:
            warnings.warn(
                f"cache_ttl_seconds ({cache_ttl_seconds}) is less than 60 seconds: the cache is renewed all "
                "the time. Raise it.",
                UserWarning,
                stacklevel=2,
            )
        self.cached_content = cached_content
        self.cache_ttl_seconds = cache_ttl_seconds
        self.cache_refresh_threshold = cache_refresh_threshold
        self.cache_renewal_buffer_seconds = cache_renewal_buffer_seconds
        self.auto_renew = auto_renew
        self.cache_tags = cache_tags if cache_tags is not None else {}
        self._current: _Cache | None = None
        self._change = _Lock()

    async def prepare(self) -> None:
        """Find the cache, or create it."""
        async with self._change.locked():
            self._current = await self._find() or await self._create()

    async def execute(
        self, prompt: str, attempt: int, timeout: float, state: RetryState | None = None
    ) -> tuple[TOutput, TokenUsage]:
        """Call Gemini once, with the cache.

        Raises:
            RuntimeError: If there is no cache; this cannot happen with ``auto_renew``.
        """
        cache = await self._fresh() if self.auto_renew else self._current
        if cache is None:
            raise RuntimeError("Cache not initialized. Call prepare() first, or leave auto_renew on.")
        response = await self.client.aio.models.generate_content(
            model=self.model, contents=prompt, config=self._config_with(cache)
        )
        tokens = _counts(response)
        usage = getattr(response, "usage_metadata", None)
        tokens["cached_input_tokens"] = count(getattr(usage, "cached_content_token_count", None))
        return self._read(response, tokens)

    async def cleanup(self) -> None:
        """Do nothing. The cache expires by itself, because other items, runs and processes may use it."""
        logger.debug("The context cache is not deleted; it expires by itself")

    async def delete_cache(self) -> None:
        """Delete the cache now, to stop paying for it. Does nothing if there is none.

        Waits for a renewal in progress, and deletes the new cache. Call it after the last item: with ``auto_renew``, an
        item that starts later creates a new cache. If deleting fails, a warning is logged and the cache expires after
        its TTL.
        """
        async with self._change.locked():
            cache = self._current
            if cache is None:
                return
            try:
                await self.client.aio.caches.delete(name=cache.name)
            except Exception as error:
                logger.warning("Could not delete cache %s: %s", cache.name, error)
            else:
                self._current = None

    def _expiring(self, cache: _Cache) -> bool:
        return cache.expires_at - time.time() <= self.cache_renewal_buffer_seconds

    async def _fresh(self) -> _Cache:
        """The current cache, replaced first if it is about to expire. Of many callers one replaces it."""
        cache = self._current
        if cache is not None and not self._expiring(cache):
            return cache
        async with self._change.locked():
            cache = self._current
            if cache is None or self._expiring(cache):
                cache = self._current = await self._find() or await self._create()
            return cache

    async def _find(self) -> _Cache | None:
        """A cache of this model, content and tags that is not about to expire."""
        try:
            found: Any = await self.client.aio.caches.list()
            if hasattr(type(found), "__aiter__"):
                caches: list[Any] = [cache async for cache in found]
            else:
                caches = list(found)
        except Exception as error:
            logger.warning("Could not list caches; creating a new one: %s", error)
            return None
        for candidate in caches:
            if self._fits(candidate):
                cache = _Cache(candidate.name, self._end_of(candidate))
                if not self._expiring(cache):
                    return cache
        return None

    def _fits(self, cache: Any) -> bool:
        if str(cache.model).rsplit("/", 1)[-1] != self.model.rsplit("/", 1)[-1]:
            return False
        label = getattr(cache, "display_name", None)
        content, tags = _parse_label(label) if isinstance(label, str) else (None, frozenset[str]())
        if content is not None:
            return content == _fingerprint(self.cached_content) and tags >= _tag_digests(self.cache_tags)
        # Created by another program: only tags show that it has the same content.
        metadata = getattr(cache, "metadata", None)
        known = metadata if isinstance(metadata, dict) else {}
        return bool(self.cache_tags) and all(known.get(key) == value for key, value in self.cache_tags.items())

    def _end_of(self, cache: Any) -> float:
        end, created = getattr(cache, "expire_time", None), getattr(cache, "create_time", None)
        if isinstance(end, datetime):
            return end.timestamp()
        if created is not None and hasattr(created, "timestamp"):
            try:
                return float(created.timestamp()) + self.cache_ttl_seconds
            except (TypeError, ValueError):
                pass
        return time.time()  # unknown: as good as expired

    async def _create(self) -> _Cache:
        ttl = f"{self.cache_ttl_seconds}s"
        label = _label(self.cached_content, self.cache_tags)
        caches: Any = self.client.aio.caches
        try:
            from google.genai.types import CreateCachedContentConfig
        except ImportError:
            if self.cache_tags:
                logger.warning(
                    "This version of google-genai cannot label caches; cache_tags are ignored. Upgrade google-genai."
                )
            created = await caches.create(model=self.model, contents=self.cached_content, ttl=ttl)
        else:
            fields: dict[str, Any] = {"contents": self.cached_content, "ttl": ttl, "display_name": label}
            try:
                config: Any = CreateCachedContentConfig(**fields)
            except ValueError:
                # Content that the SDK's own check rejects is sent unchanged: the service decides.
                config = CreateCachedContentConfig.model_construct(**fields)
            created = await caches.create(model=self.model, config=config)
        end = getattr(created, "expire_time", None)
        expires_at = end.timestamp() if isinstance(end, datetime) else time.time() + self.cache_ttl_seconds
        return _Cache(created.name, expires_at)

    def _config_with(self, cache: _Cache) -> Any:
        """The call's configuration with the cache in it, where the SDK has it; the user's own stays as it is."""
        config: Any = self.config
        if config is None:
            from google.genai.types import GenerateContentConfig

            return GenerateContentConfig(cached_content=cache.name)
        if isinstance(config, dict):
            return {**config, "cached_content": cache.name}
        return config.model_copy(update={"cached_content": cache.name})


# A cache's display name carries at most 128 characters: a mark, the digest of the content, digests of the tags.
_MARK = "batch-llm/1"
_MAX_TAGS = 10


def _digest(value: Any, length: int) -> str:
    text = json.dumps(value, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def _plain(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    dumped = dump(mode="json") if callable(dump) else None
    return dumped if isinstance(dumped, (dict, list)) else repr(value)


def _fingerprint(content: Any) -> str:
    return _digest(content, 16)


def _tag_digests(tags: dict[str, str]) -> frozenset[str]:
    return frozenset(_digest([key, value], 8) for key, value in tags.items())


def _label(content: Any, tags: dict[str, str]) -> str:
    return " ".join([_MARK, _fingerprint(content), *sorted(_tag_digests(tags))])


def _parse_label(label: str) -> tuple[str | None, frozenset[str]]:
    mark, *rest = label.split(" ")
    return (rest[0], frozenset(rest[1:])) if mark == _MARK and rest else (None, frozenset())
