"""The native strategy for OpenAI's Chat Completions and the servers that speak it: no Python on the way."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload

from ._core import OpenAiClient
from ._usage import attach_usage
from .llm_strategies import LLMCallStrategy

if TYPE_CHECKING:
    from .base import RetryState, TokenUsage

__all__ = ["ChatResponse", "OpenAIStrategy"]

TOutput = TypeVar("TOutput")

DEFAULT_BASE_URL = "https://api.openai.com/v1"


@dataclass
class ChatResponse(Generic[TOutput]):
    """An output with what the provider tells about it, from ``OpenAIStrategy(include_metadata=True)``.

    Args:
        output: The text, or what the response parser made of it.
        finish_reason: Why the model stopped: ``"stop"``, ``"length"``, ...
        model: The model that answered.
        request_id: The provider's id of the request.
        reasoning_tokens: Output tokens spent on reasoning.
    """

    output: TOutput
    finish_reason: str | None
    model: str | None
    request_id: str | None
    reasoning_tokens: int


class OpenAIStrategy(LLMCallStrategy[TOutput]):
    """Answers through OpenAI's Chat Completions, or any server that speaks it (vLLM, Ollama, OpenRouter, ...).

    Requests are written, sent, read and counted in Rust. **Share one strategy between all items**: they then share
    its connections.

    Args:
        model: The model's name.
        api_key: The key; by default the environment variable ``OPENAI_API_KEY``. Servers other than OpenAI's own
            may do without one. It is held in the extension and shows in no repr, log or error.
        base_url: Everything before ``/chat/completions``; by default ``OPENAI_BASE_URL``, else OpenAI's.
        system_prompt: Sent before each prompt.
        temperature: Sampling temperature, 0 to 2; None leaves it to the model.
        max_tokens: Longest answer, tokens (sent as ``max_completion_tokens``; a server that knows only the old name
            takes ``extra_body={"max_tokens": ...}``).
        response_parser: Makes the output from the text; what it raises fails the attempt. By default the output is
            the text.
        include_metadata: Return a :class:`ChatResponse` around the output.
        extra_body: Further fields of the request.
        extra_headers: Further headers of the request.
        connect_timeout: Limit of making a connection, seconds.
        max_body_bytes: Longest reply accepted, bytes.

    Raises:
        ValueError: When an argument cannot be used or the key is missing; names it and the remedy.
        TypeError: When an argument has the wrong type.
    """

    @overload
    def __init__(
        self: OpenAIStrategy[str],
        model: str,
        api_key: str | None = None,
        base_url: str | None = None,
        *,
        system_prompt: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        extra_body: Mapping[str, Any] | None = None,
        extra_headers: Mapping[str, str] | None = None,
        connect_timeout: float = 10.0,
        max_body_bytes: int = 64 * 1024 * 1024,
    ) -> None: ...
    @overload
    def __init__(
        self,
        model: str,
        api_key: str | None = None,
        base_url: str | None = None,
        *,
        system_prompt: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        response_parser: Callable[[str], Any] | None = None,
        include_metadata: bool = False,
        extra_body: Mapping[str, Any] | None = None,
        extra_headers: Mapping[str, str] | None = None,
        connect_timeout: float = 10.0,
        max_body_bytes: int = 64 * 1024 * 1024,
    ) -> None: ...
    def __init__(
        self,
        model: str,
        api_key: str | None = None,
        base_url: str | None = None,
        *,
        system_prompt: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        response_parser: Callable[[str], Any] | None = None,
        include_metadata: bool = False,
        extra_body: Mapping[str, Any] | None = None,
        extra_headers: Mapping[str, str] | None = None,
        connect_timeout: float = 10.0,
        max_body_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        if not isinstance(model, str) or not model.strip():
            raise ValueError(f"model must be a non-empty string (got {model!r}), 'gpt-5-mini' for instance")
        if response_parser is not None and not callable(response_parser):
            raise TypeError(f"response_parser must be callable, not {type(response_parser).__name__}")
        self.model = model
        self.base_url = base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_BASE_URL
        self.response_parser = response_parser
        self.include_metadata = include_metadata
        # A key of the environment belongs to OpenAI: another server gets only a key that was meant for it.
        is_openai = self.base_url.startswith("https://api.openai.com/")
        key = api_key or (os.environ.get("OPENAI_API_KEY") if is_openai else None)
        if is_openai and not key:
            raise ValueError("no API key: pass api_key=... or set the environment variable OPENAI_API_KEY")
        if not connect_timeout > 0:
            raise ValueError(f"connect_timeout must be > 0 (got {connect_timeout}); it is a number of seconds")
        body: dict[str, Any] = dict(extra_body or {})
        for name, value in (("temperature", temperature), ("max_completion_tokens", max_tokens)):
            if value is not None:
                body.setdefault(name, value)
        for name in ("model", "messages", "stream"):
            if name in body:
                raise ValueError(f"extra_body cannot set {name!r}: the strategy itself does")
        self._client = OpenAiClient(
            model=model,
            base_url=self.base_url,
            api_key=key,
            system_prompt=system_prompt,
            extra_body=body,
            extra_headers=list((extra_headers or {}).items()),
            connect_timeout=connect_timeout,
            max_body_bytes=max_body_bytes,
        )

    async def execute(
        self, prompt: str, attempt: int, timeout: float, state: RetryState | None = None
    ) -> tuple[TOutput, TokenUsage]:
        """Ask once. A processor does this without Python; a direct call is for single questions.

        Raises:
            ProviderError: When the provider refused or could not be reached, or its reply makes no sense.
            TimeoutError: After ``timeout`` seconds.
        """
        success, answer = await self._client.complete(prompt, timeout)
        if not success:
            raise answer
        return self._read(answer)

    def _read(self, answer: tuple[str, dict[str, int], dict[str, Any]]) -> tuple[TOutput, TokenUsage]:
        """Make the output from a native answer."""
        text, counts, metadata = answer
        usage = cast("TokenUsage", counts)
        output: Any = text
        if self.response_parser is not None:
            try:
                output = self.response_parser(text)
            except Exception as error:
                attach_usage(error, usage)
                raise
        if self.include_metadata:
            output = ChatResponse(output, **metadata)
        return output, usage

    # A processor may take the native way only where nobody has overridden `execute`.
    _native_execute = execute

    def __repr__(self) -> str:
        return f"{type(self).__name__}(model={self.model!r}, base_url={_without_secrets(self.base_url)!r})"


def _without_secrets(url: str) -> str:
    """A URL without what may be secret: user, password, query."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rsplit('@', 1)[-1]}{slash}{path.split('?', 1)[0]}"
