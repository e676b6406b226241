"""Strategies that use other libraries' clients.

Use them for features that native strategies lack, or if your program already has a client. Native strategies
(``llm("openai:...")``) are an order of magnitude faster than any SDK. Each adapter needs the library that it wraps, an
optional extra: ``pip install 'batch-llm[openai]'``, ``[anthropic]``, ``[gemini]``, ``[langchain]``, ``[litellm]``. For
pydantic-ai agents, see :class:`~batch_llm.PydanticAIStrategy`.

The clients' own retries are disabled, because they would hide rate limits from the run and multiply attempts. Results
have tokens with the names of :class:`~batch_llm.TokenUsage`, and ``model``, ``finish_reason`` and ``request_id`` in
``metadata`` if the library reports them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from ._llm import LLMCallStrategy, count
from ._secrets import quoted
from ._types import TOutput

if TYPE_CHECKING:
    import anthropic
    import openai
    from google import genai
    from langchain_core.runnables import Runnable, RunnableConfig

    from ._types import RetryState
    from .strategies.errors import ErrorClassifier

__all__ = [
    "AnthropicClientStrategy",
    "GoogleClientStrategy",
    "LangChainStrategy",
    "LiteLLMStrategy",
    "OpenAIClientStrategy",
]


class _Adapter(LLMCallStrategy[TOutput]):
    """What all of these share: they take strings, and lists that their library understands."""

    def check_prompt(self, prompt: Any) -> None:
        """Take what the library may take: a string, or a list of messages or parts."""
        if not isinstance(prompt, (str, list)):
            raise TypeError(f"prompt must be a string or a list, not {type(prompt).__name__} ({quoted(prompt)})")


class OpenAIClientStrategy(_Adapter[TOutput]):
    """Uses a client of the openai SDK, including for Azure and compatible servers.

    Args:
        client: An ``AsyncOpenAI`` or ``AsyncAzureOpenAI``.
        model: The model's name.
        api: ``"chat"`` (Chat Completions) or ``"responses"``.
        response_model: A pydantic model. The SDK's own ``parse()`` returns an object of it as the output.
        system_prompt: Sent before each prompt.
        arguments: Further arguments of each call: ``temperature=0``, ``tools=[...]``, ...

    Raises:
        TypeError: If the client is not async.
    """

    def __init__(
        self,
        client: openai.AsyncOpenAI,
        model: str,
        *,
        api: Literal["chat", "responses"] = "chat",
        response_model: type[TOutput] | None = None,
        system_prompt: str | None = None,
        **arguments: Any,
    ) -> None:
        _must_be_async(client, "Async")
        if api not in ("chat", "responses"):
            raise ValueError(f"api must be 'chat' or 'responses' (got {api!r})")
        self.model = model
        self._client: Any = client.with_options(max_retries=0)
        self._api = api
        self._response_model = response_model
        self._system_prompt = system_prompt
        self._arguments = arguments

    async def execute(self, prompt: Any, attempt: int, timeout: float, state: RetryState | None = None) -> Any:
        """Call the model once."""
        messages = _messages(prompt, self._system_prompt)
        given = {"model": self.model, "timeout": timeout, **self._arguments}
        if self._api == "responses":
            api = self._client.responses
            if self._response_model is not None:
                reply = await api.parse(input=messages, text_format=self._response_model, **given)
                output = reply.output_parsed
            else:
                reply = await api.create(input=messages, **given)
                output = reply.output_text
            return output, _openai_usage(reply.usage), _metadata(reply, finish_reason=reply.status)
        api = self._client.chat.completions
        if self._response_model is not None:
            reply = await api.parse(messages=messages, response_format=self._response_model, **given)
            output = reply.choices[0].message.parsed
        else:
            reply = await api.create(messages=messages, **given)
            output = reply.choices[0].message.content
        choice = reply.choices[0]
        calls = [_plain(call) for call in choice.message.tool_calls or ()]
        return (
            output,
            _openai_usage(reply.usage),
            _metadata(reply, finish_reason=choice.finish_reason, tool_calls=calls),
        )


class AnthropicClientStrategy(_Adapter[str]):
    """Uses a client of the anthropic SDK, including those for Bedrock and Vertex.

    Args:
        client: An ``AsyncAnthropic``, ``AsyncAnthropicBedrock`` or ``AsyncAnthropicVertex``.
        model: The model's name.
        max_tokens: Maximum length of an answer, tokens; Anthropic requires it.
        system_prompt: Sent before each prompt.
        arguments: Further arguments of each call.

    Raises:
        TypeError: If the client is not async.
    """

    def __init__(
        self,
        client: anthropic.AsyncAnthropic | Any,
        model: str,
        *,
        max_tokens: int = 8192,
        system_prompt: str | None = None,
        **arguments: Any,
    ) -> None:
        _must_be_async(client, "Async")
        self.model = model
        self._client: Any = client.with_options(max_retries=0)
        self._arguments = {"max_tokens": max_tokens, **arguments}
        if system_prompt is not None:
            self._arguments["system"] = system_prompt

    async def execute(self, prompt: Any, attempt: int, timeout: float, state: RetryState | None = None) -> Any:
        """Call the model once."""
        reply = await self._client.messages.create(
            model=self.model, messages=_messages(prompt, None), timeout=timeout, **self._arguments
        )
        text = "".join(block.text for block in reply.content if block.type == "text")
        calls = [_plain(block) for block in reply.content if block.type == "tool_use"]
        usage = reply.usage
        read = count(getattr(usage, "cache_read_input_tokens", None))
        written = count(getattr(usage, "cache_creation_input_tokens", None))
        # What was read from and written to the cache is not in `input_tokens`, by Anthropic's documentation.
        counts = _counts(count(usage.input_tokens) + read + written, count(usage.output_tokens), cached=read)
        if written:
            counts["cache_write_tokens"] = written
        return text, counts, _metadata(reply, finish_reason=reply.stop_reason, tool_calls=calls)


class GoogleClientStrategy(_Adapter[str]):
    """Uses a client of the google-genai SDK.

    Args:
        client: A ``genai.Client``; its async interface is used.
        model: The model's name.
        config: The SDK's configuration for each call, an object or a dict.

    For response parsers and safety ratings, see :class:`~batch_llm.GeminiStrategy`.
    """

    def __init__(self, client: genai.Client, model: str, *, config: Any = None) -> None:
        if not hasattr(getattr(client, "aio", None), "models"):
            raise TypeError(f"client must be a genai.Client, not {type(client).__name__}")
        self.model = model
        self._client: Any = client
        self._config = config

    def recommended_error_classifier(self) -> ErrorClassifier:
        """Return the classifier for the SDK's errors."""
        from .classifiers import GeminiErrorClassifier

        return GeminiErrorClassifier()

    async def execute(self, prompt: Any, attempt: int, timeout: float, state: RetryState | None = None) -> Any:
        """Call the model once."""
        reply = await self._client.aio.models.generate_content(model=self.model, contents=prompt, config=self._config)
        usage = reply.usage_metadata
        thought = count(getattr(usage, "thoughts_token_count", None))
        counts = _counts(
            count(getattr(usage, "prompt_token_count", None)),
            count(getattr(usage, "candidates_token_count", None)) + thought,
            cached=count(getattr(usage, "cached_content_token_count", None)),
            reasoning=thought,
        )
        reason = reply.candidates[0].finish_reason if reply.candidates else None
        metadata = {"model": reply.model_version, "finish_reason": getattr(reason, "name", reason)}
        return reply.text, counts, {name: value for name, value in metadata.items() if value is not None}


class LangChainStrategy(LLMCallStrategy[TOutput]):
    """Invokes a LangChain runnable: a chat model, or a chain of prompt, model and parser.

    The output is whatever the runnable returns; for a message, its text. Tokens are counted by LangChain's own
    callback, so they are known even for a chain that ends in a parser.

    Args:
        runnable: Anything with ``ainvoke()``.
        config: LangChain's configuration for each call.

    Raises:
        TypeError: If it is not a runnable.
    """

    def __init__(self, runnable: Runnable[Any, TOutput], *, config: RunnableConfig | None = None) -> None:
        if not callable(getattr(runnable, "ainvoke", None)):
            raise TypeError(f"runnable must be a LangChain runnable, not {type(runnable).__name__}")
        self._runnable: Any = runnable
        self._config: dict[str, Any] = dict(config or {})

    def check_prompt(self, prompt: Any) -> None:
        """Accept any prompt; the runnable decides which it takes."""

    async def execute(self, prompt: Any, attempt: int, timeout: float, state: RetryState | None = None) -> Any:
        """Invoke the runnable once."""
        from langchain_core.callbacks import UsageMetadataCallbackHandler
        from langchain_core.messages import BaseMessage

        counter = UsageMetadataCallbackHandler()
        before = self._config.get("callbacks") or []
        answer = await self._runnable.ainvoke(prompt, {**self._config, "callbacks": [*before, counter]})
        metadata: dict[str, Any] = {}
        if isinstance(answer, BaseMessage):
            metadata = {name: value for name, value in answer.response_metadata.items() if name == "finish_reason"}
            answer = answer.text if isinstance(answer.text, str) else answer.text()
        models = counter.usage_metadata
        if len(models) == 1:
            metadata["model"] = next(iter(models))
        usage: dict[str, int] = {}
        for counted in models.values():
            details = counted.get("input_token_details") or {}
            part = _counts(counted["input_tokens"], counted["output_tokens"], cached=count(details.get("cache_read")))
            usage = {name: usage.get(name, 0) + part.get(name, 0) for name in {*usage, *part}}
        return answer, usage, metadata


class LiteLLMStrategy(_Adapter[str]):
    """Calls litellm's ``acompletion()``.

    Args:
        model: The model name in litellm's format, ``"bedrock/anthropic.claude-..."``.
        system_prompt: Sent before each prompt.
        arguments: Further arguments of each call: ``api_base=...``, ``temperature=0``, ...

    Raises:
        ImportError: If litellm is not installed; the message says how to install it.
    """

    def __init__(self, model: str, *, system_prompt: str | None = None, **arguments: Any) -> None:
        try:
            import litellm
        except ImportError as error:
            raise ImportError(
                "litellm is required for LiteLLMStrategy. Install it: pip install 'batch-llm[litellm]'"
            ) from error
        self.model = model
        self._complete: Any = litellm.acompletion
        self._system_prompt = system_prompt
        self._arguments = arguments

    async def execute(self, prompt: Any, attempt: int, timeout: float, state: RetryState | None = None) -> Any:
        """Call the model once."""
        given = {"num_retries": 0, "max_retries": 0, "timeout": timeout, **self._arguments}
        reply = await self._complete(model=self.model, messages=_messages(prompt, self._system_prompt), **given)
        choice = reply.choices[0]
        calls = [_plain(call) for call in choice.message.tool_calls or ()]
        metadata = _metadata(reply, finish_reason=choice.finish_reason, tool_calls=calls)
        return choice.message.content, _openai_usage(getattr(reply, "usage", None)), metadata


def _must_be_async(client: Any, prefix: str) -> None:
    name = type(client).__name__
    if not (name.startswith(prefix) and hasattr(client, "with_options")):
        raise TypeError(f"client must be async: {prefix}{name.removeprefix(prefix)}(...), not {name}")


def _messages(prompt: Any, system_prompt: str | None) -> list[Any]:
    messages = list(prompt) if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    return messages if system_prompt is None else [{"role": "system", "content": system_prompt}, *messages]


def _openai_usage(usage: Any) -> dict[str, int]:
    """Token counts of Chat Completions, Responses or compatible servers; {} if there are none."""
    if usage is None:
        return {}
    inputs = getattr(usage, "prompt_tokens", None) or getattr(usage, "input_tokens", None)
    outputs = getattr(usage, "completion_tokens", None) or getattr(usage, "output_tokens", None)
    of_input = getattr(usage, "prompt_tokens_details", None) or getattr(usage, "input_tokens_details", None)
    of_output = getattr(usage, "completion_tokens_details", None) or getattr(usage, "output_tokens_details", None)
    return _counts(
        count(inputs),
        count(outputs),
        cached=count(getattr(of_input, "cached_tokens", None)),
        reasoning=count(getattr(of_output, "reasoning_tokens", None)),
    )


def _counts(inputs: int, outputs: int, *, cached: int = 0, reasoning: int = 0) -> dict[str, int]:
    counts = {"input_tokens": inputs, "output_tokens": outputs, "total_tokens": inputs + outputs}
    if cached:
        counts["cached_input_tokens"] = cached
    if reasoning:
        counts["reasoning_tokens"] = reasoning
    return counts


def _metadata(reply: Any, **more: Any) -> dict[str, Any]:
    metadata = {"model": getattr(reply, "model", None), "request_id": getattr(reply, "_request_id", None), **more}
    return {name: value for name, value in metadata.items() if value is not None and value != []}


def _plain(call: Any) -> Mapping[str, Any]:
    dumped: Mapping[str, Any] = call.model_dump()
    return dumped
