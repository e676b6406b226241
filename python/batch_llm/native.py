"""Native strategies: requests are written, sent, read and checked in Rust, without Python.

``llm("openai:gpt-5-mini")`` makes one by name. **Share one strategy between all items**: they share its connections.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ._callers import ends_at_caller
from ._llm import ApiKey, is_model, row_of, table, without_provider
from ._native import NativeOptions, NativeStrategy, RequestOptions, TOutput
from ._secrets import quoted

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "AnthropicStrategy",
    "BedrockStrategy",
    "GoogleStrategy",
    "NativeOptions",
    "NativeStrategy",
    "OpenAIStrategy",
    "RequestOptions",
    "VertexStrategy",
    "llm",
]

T = TypeVar("T")


class OpenAIStrategy(NativeStrategy[TOutput]):
    """Calls OpenAI (Responses or Chat Completions), or any server that speaks Chat Completions.

    OpenAI itself is called through Responses, every other ``base_url`` through Chat Completions; ``api=`` overrides
    this. ``provider=`` selects another provider (``"azure"``, ``"openrouter"``, ``"deepseek"``, ``"groq"``,
    ``"together"``, ``"mistral"``, ``"xai"``, ``"vllm"``, ``"sglang"``, ``"ollama"``), with its address, environment
    variable and quirks; so does ``llm("groq:...")``. Takes the arguments of :class:`NativeStrategy`.
    """

    provider = "openai"
    _languages = (
        "openai", "azure", "openrouter", "deepseek", "groq", "together", "mistral", "xai", "vllm", "sglang", "ollama",
        "openai-compatible",
    )  # fmt: skip


class AnthropicStrategy(NativeStrategy[TOutput]):
    """Calls Anthropic's Messages API. Takes the arguments of :class:`NativeStrategy`."""

    provider = "anthropic"
    _languages = ("anthropic",)


class GoogleStrategy(NativeStrategy[TOutput]):
    """Calls Google's Gemini API without its SDK. Takes the arguments of :class:`NativeStrategy`.

    To use a client of the google-genai SDK instead, see ``GeminiStrategy`` and ``GeminiCachedStrategy``.
    """

    provider = "gemini"
    _languages = ("gemini",)


class BedrockStrategy(NativeStrategy[TOutput]):
    """Calls models on Amazon Bedrock. Takes the arguments of :class:`NativeStrategy`.

    ``model`` is the id of a model or an inference profile, or an ARN. Claude is called through InvokeModel, every other
    model through Converse; ``api="messages"`` or ``api="converse"`` overrides this. The region is that of the ARN, else
    ``AWS_REGION``, else that of the profile.

    Without ``api_key`` and ``AWS_BEARER_TOKEN_BEDROCK``, requests are signed with AWS's credentials, from the
    environment, the profile ``AWS_PROFILE``, a web identity, the container or the instance. They are renewed before
    they expire.
    """

    provider = "bedrock"
    _languages = ("bedrock",)


class VertexStrategy(NativeStrategy[TOutput]):
    """Calls Gemini and Claude on Google's Vertex AI. Takes the arguments of :class:`NativeStrategy`.

    The project is ``GOOGLE_CLOUD_PROJECT``, else that of the credentials; the location is ``GOOGLE_CLOUD_LOCATION``,
    else ``global``.

    Without ``api_key``, tokens are fetched as Application Default Credentials describe it: from the file
    ``GOOGLE_APPLICATION_CREDENTIALS``, from that of ``gcloud auth application-default login``, or from the machine's
    metadata server. They are renewed before they expire. An ``api_key`` is an access token here.
    """

    provider = "vertex"
    _languages = ("vertex",)


_CLASSES: dict[str, type[NativeStrategy[Any]]] = {
    "anthropic": AnthropicStrategy,
    "bedrock": BedrockStrategy,
    "gemini": GoogleStrategy,
    "vertex": VertexStrategy,
}


@overload
def llm(
    name: str,
    *,
    api_key: ApiKey | None = None,
    base_url: str | None = None,
    response_model: None = None,
    response_parser: None = None,
    **options: Unpack[NativeOptions],
) -> NativeStrategy[str]: ...
@overload
def llm(
    name: str,
    *,
    api_key: ApiKey | None = None,
    base_url: str | None = None,
    response_model: type[T],
    response_parser: None = None,
    **options: Unpack[NativeOptions],
) -> NativeStrategy[T]: ...
@overload
def llm(
    name: str,
    *,
    api_key: ApiKey | None = None,
    base_url: str | None = None,
    response_model: None = None,
    response_parser: Callable[[str], T],
    **options: Unpack[NativeOptions],
) -> NativeStrategy[T]: ...
@overload
def llm(
    name: str,
    *,
    api_key: ApiKey | None = None,
    base_url: str | None = None,
    response_model: Any,
    response_parser: None = None,
    **options: Unpack[NativeOptions],
) -> NativeStrategy[Any]: ...
@ends_at_caller
def llm(name: str, **arguments: Any) -> NativeStrategy[Any]:
    """Create a native strategy by name: ``llm("openai:gpt-5-mini", temperature=0, response_model=Invoice)``.

    Args:
        name: ``"provider:model"``; the providers are openai, anthropic, gemini, azure, bedrock, vertex, openrouter,
            deepseek, groq, together, mistral, xai, vllm, sglang, ollama, and openai-compatible (with ``base_url=``).
        arguments: The arguments of :class:`NativeStrategy`.

    Returns:
        The strategy. Share it between items.

    Raises:
        ValueError: If the provider is unknown, or an argument is invalid; the message names the closest match or the
            remedy.
        TypeError: If an option is unknown; the message suggests the closest match.
    """
    return _made(name, arguments)


def _made(name: Any, arguments: dict[str, Any]) -> NativeStrategy[Any]:
    if not isinstance(name, str):
        raise TypeError(f"llm() takes a name such as 'openai:gpt-5-mini', not {type(name).__name__}")
    provider, colon, model = name.partition(":")
    if not colon or (provider not in table() and is_model(provider)):
        raise ValueError(without_provider(name))
    if not model.strip():
        raise ValueError(f"{quoted(name)} names no model; write 'provider:model'")
    row = row_of(provider)
    return _CLASSES.get(row.name, OpenAIStrategy)(model, provider=row.name, **arguments)
