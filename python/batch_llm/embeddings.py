"""Embeddings: many texts per request, one result per text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ._callers import ends_at_caller
from ._checks import check_known, check_options
from ._core import NativeClient
from ._llm import ApiKey, asks, endpoint, row_of, stores_arguments, without_provider
from ._secrets import quoted
from .native import NativeStrategy, RequestOptions

if TYPE_CHECKING:
    from array import array

    from typing_extensions import Unpack

    from ._types import TokenUsage

    Vector = array[float]
else:
    Vector = Any

__all__ = ["EmbeddingStrategy"]

_ARGUMENTS = ("name", "api_key", "base_url", "dimensions", "max_items", "max_tokens_per_request", "linger")


class EmbeddingStrategy(NativeStrategy[Vector]):
    """Embeds texts. The output of an item is an ``array.array`` of 32-bit floats.

    ``numpy.asarray`` takes the vectors without a copy. Texts of different items are packed into one request, up to the
    provider's limit; each item gets its own result and its share of the tokens. So allow many items in flight:
    ``max_workers`` counts texts, so ``max_workers / max_items`` requests are in flight. ``max_requests_per_minute``
    counts requests; each text counts as its share of one. If one text makes the provider reject the request, only that
    text's item fails.

    Args:
        name: ``"provider:model"``, such as ``"openai:text-embedding-3-small"`` or
            ``"gemini:gemini-embedding-001"``; also azure, together, mistral, vllm, sglang, ollama, openai-compatible.
        api_key: As for other native strategies.
        base_url: As for other native strategies.
        dimensions: Length of the vectors; None leaves it to the model.
        max_items: Texts per request; by default the provider's maximum.
        max_tokens_per_request: Maximum tokens per request, estimated as one per three bytes.
        linger: How long the first text of a request waits for others, seconds.
        api_key_env: As for other native strategies.
        extra_body: Further fields of the request.
        extra_headers: Further headers.
        transport: A :class:`~batch_llm.Transport`.

    Raises:
        ValueError: If an argument cannot be used or a key is missing; the message names it and the remedy.
        TypeError: If an argument has the wrong type, or an option is unknown; the message suggests the closest match.
    """

    @ends_at_caller
    @stores_arguments
    def __init__(
        self,
        name: str,
        api_key: ApiKey | None = None,
        base_url: str | None = None,
        *,
        dimensions: int | None = None,
        max_items: int | None = None,
        max_tokens_per_request: int = 250_000,
        linger: float = 0.005,
        **options: Unpack[RequestOptions],
    ) -> None:
        check_known(options, (*RequestOptions.__annotations__, *_ARGUMENTS), "EmbeddingStrategy")
        provider, colon, model = name.partition(":") if isinstance(name, str) else ("", "", "")
        if not colon or not model.strip():
            if isinstance(name, str) and name.strip() and not colon:
                raise ValueError(without_provider(name))
            raise ValueError(
                f"name must be 'provider:model', such as 'openai:text-embedding-3-small' (got {quoted(name)})"
            )
        check_options({"dimensions": dimensions, **options})
        body, headers = dict(options.get("extra_body") or {}), dict(options.get("extra_headers") or {})
        transport = options.get("transport")
        row = row_of(provider)
        if row.embeddings == 0:
            raise ValueError(f"{provider} has no embeddings; use another provider")
        if max_items is not None and not max_items >= 1:
            raise ValueError(f"max_items must be >= 1 (got {max_items})")
        if not linger >= 0:
            raise ValueError(f"linger must be >= 0 (got {linger}); it is a number of seconds")
        self.model, self.provider, self._dimensions = model, provider, dimensions
        where = endpoint(row, base_url, api_key, model, transport, options.get("api_key_env"))
        self.base_url, self._fresh_key, self._shown_url = where.url, where.fresh, where.address.shown
        self._key_count, self._key_from = where.key_count, where.variable
        self.reask, self.response_parser, self._shape = False, None, None
        self._scope = where.scope(row, model)
        self._max_tokens, self._overhead = 0, 0
        self._pack = min(max_items or row.embeddings, row.embeddings)
        spec = {"model": model, "dimensions": dimensions}
        self._asks = asks(where, spec, headers, body, None, None)
        self._client = NativeClient(
            {
                "provider": provider,
                "base_url": self.base_url,
                "bearer": where.is_token,
                "options": spec,
                "headers": list(where.headers_with(headers).items()),
                "transport": where.connecting(transport),
                "environment": where.credentials,
                "pack": {
                    "items": self._pack,
                    "tokens": max_tokens_per_request,
                    "linger": linger,
                },
            },
            body,
            where.keys,
        )

    _construct: ClassVar[Any] = __init__  # not that of a subclass

    async def dry_run(self, prompt: Any) -> tuple[Vector, TokenUsage]:
        """Return a vector of zeros without a call; its length is ``dimensions``, by default 256."""
        from array import array

        return array("f", bytes(4 * (self._dimensions or 256))), {"input_tokens": 100, "total_tokens": 100}

    def _expect(self, prompt: Any) -> tuple[float, float | None, float]:
        """An item is a share of the request that it is packed into with others."""
        tokens, most, _ = super()._expect(prompt)
        return tokens, most, 1.0 / self._pack

    def check_prompt(self, prompt: Any) -> None:
        """Accept only strings."""
        if not isinstance(prompt, str):
            raise TypeError(f"an embedding prompt must be a string, not {type(prompt).__name__}")
