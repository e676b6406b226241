"""What all native strategies have: requests are written, sent, read and checked in Rust, without Python.

The strategies themselves, and what makes one by its name, are in ``native``, through which everything here is used.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict, TypeVar

from ._attempt_timeout import attempt_timeout
from ._callers import ends_at_caller
from ._checks import check_known, check_options
from ._core import NativeClient, example
from ._follower import Follower
from ._json_values import name_of
from ._llm import (
    CORRECTION,
    ApiKey,
    LLMCallStrategy,
    Rebuildable,
    add,
    asks,
    attach_usage,
    endpoint,
    problem_of,
    row_of,
    shape_of,
    stores_arguments,
)
from ._secrets import quoted
from .conversations import RAW, Conversation, NoSteps, Rules, Steps, rules_of, whole
from .errors import ProviderError
from .tools import Toolbox
from .transport import Transport

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack
    from typing_extensions import TypeVar as TypeVarWithDefault

    from ._core import PoolPlace
    from ._types import RetryState, TokenUsage

    TOutput = TypeVarWithDefault("TOutput", default=str)
else:
    TOutput = TypeVar("TOutput")


class RequestOptions(TypedDict, total=False):
    """How requests are sent, and their further fields; see :class:`NativeStrategy`."""

    api_key_env: str | None
    extra_body: Mapping[str, Any] | None
    extra_headers: Mapping[str, str] | None
    transport: Transport | None


class NativeOptions(RequestOptions, total=False):
    """Options of every native strategy; see :class:`NativeStrategy`."""

    system_prompt: str | None
    temperature: float | None
    top_p: float | None
    max_tokens: int | None
    stop: Sequence[str] | str | None
    seed: int | None
    n: int | None
    logprobs: bool | int | None
    reasoning_effort: str | None
    tools: Sequence[Any] | None
    tool_choice: str | None
    rounds: int | None
    turn: Callable[..., Any] | None
    tool_timeout: float | None
    tool_errors: Literal["return", "raise"] | None
    reask: bool
    raw: bool
    stream: bool | Literal["auto"]
    cache_prompt: Literal["auto", "1h", False]
    api: Literal["chat", "responses", "converse", "messages"] | None
    provider: str


_PLAIN_OPTIONS = (
    "system_prompt", "temperature", "top_p", "max_tokens", "seed", "n", "reasoning_effort", "tool_choice",
)  # fmt: skip
_STREAM = {"auto": "auto", True: "always", False: "never"}
_CACHE_PROMPT = {"auto": "auto", "1h": "1h", False: "never"}
_BY_SAMPLE = ("finish_reason", "native_finish_reason", "tool_calls", "logprobs", "reasoning")


class NativeStrategy(Rebuildable, LLMCallStrategy[TOutput]):
    """Base class of native strategies.

    The prompt of an item is a string, a list of strings and media (see :mod:`batch_llm.content`), or a list of
    messages. A result has the answer in ``output`` and its tokens in ``token_usage``. Its ``metadata`` has
    ``finish_reason`` (``"stop"``, ``"length"``, ``"tool_calls"``, ``"content_filter"``, ``"refusal"``, ``"other"``),
    ``native_finish_reason`` (the provider's own value, if different), ``model``, ``request_id``, ``processing_ms`` (as
    reported by the provider), ``first_token_seconds`` (of streams), and, where available, ``tool_calls``, ``logprobs``,
    ``reasoning``, ``raw`` and the provider's extras. Token counts mean the same for every provider: see
    :class:`~batch_llm.TokenUsage`.

    Args:
        model: The model's name.
        api_key: The key; a list of keys, used in turn, one per request; or a function that returns a key for each
            request. By default the provider's environment variable. Fixed keys are held in the extension and appear in
            no repr, log or error.
        base_url: The provider's address, including the API version; by default the provider's own.
        response_model: The type of the answer: a pydantic model, a dataclass, a TypedDict, another type, or a JSON
            Schema. The output is then an object of that type (for a schema, plain JSON values). An answer that does not
            match is a failed attempt, and the retry shows it to the model with the validation errors (see ``reask``).
            Type checkers infer the output type from a model; with a schema, annotate it:
            ``OpenAIStrategy[dict[str, int]](...)``.
        response_parser: Converts the answer's text to the output. If it raises, the attempt fails.
        given: ``system_prompt``: sent before each prompt. ``temperature``, ``top_p``, ``stop``, ``seed``: sampling.
            ``max_tokens``: maximum length of an answer, tokens (Anthropic requires it: 8192 by default). ``n``: samples
            per prompt; the output is then a list. ``logprobs``: True, or the number of alternatives.
            ``reasoning_effort``: ``"low"``, ``"medium"``, ``"high"``, ... ``tools``: :class:`~batch_llm.Tool` objects,
            functions or dicts. ``tool_choice``: ``"auto"``, ``"none"``, ``"required"`` or a tool's name. ``rounds``:
            run the tools that a reply calls, and send their results back, until there is an answer; at most this many
            requests per item. ``turn``: a function, sync or async, of the :class:`~batch_llm.Conversation` and the
            :class:`~batch_llm.Reply`, called after each answer; it returns the user's next message (a string),
            messages, or ``None`` or :class:`~batch_llm.End` to end (``rounds`` is then 8 by default). ``tool_timeout``:
            seconds per tool call (60). ``tool_errors``: whether the model is shown an error of a tool (``"return"``,
            the default) or the item ends with it (``"raise"``). ``reask``: whether a retry shows the model its invalid
            answer (True). ``api_key_env``: the environment variable to read the key from, instead of the provider's;
            pickles contain its name. ``extra_body``: further fields of the request; nested objects are merged.
            ``extra_headers``: further headers. ``transport``: a :class:`~batch_llm.Transport`. ``raw``: whether
            ``metadata["raw"]`` has the whole reply. ``stream``: whether to receive replies as streams of server-sent
            events, which are assembled here; ``"auto"`` where an answer may take minutes: reasoning models, and
            ``max_tokens`` above 21,333. ``cache_prompt``: whether requests tell the provider's prompt cache which
            prefix they share: ``"auto"``, if the provider needs a marker and it pays off; ``"1h"``: entries live for
            an hour (Anthropic); or ``False``. ``api``: ``"responses"`` or ``"chat"``, for OpenAI;
            ``"converse"`` or ``"messages"``, for Bedrock. ``provider``: another
            provider; see :class:`OpenAIStrategy`.

    Raises:
        ValueError: If an argument cannot be used or a key is missing; the message names it and the remedy.
        TypeError: If an argument has the wrong type, or an option is unknown; the message suggests the closest match.
    """

    provider: str = ""
    # For the classification of failures: how many keys there are (None: a function gives them), and which variable has
    # it.
    _key_count: int | None = 0
    _key_from: str | None = None
    _stream_timeout: float | None = None
    _follower: Follower | None = None
    _rules: Rules | None = None
    _languages: ClassVar[tuple[str, ...]] = ()

    @ends_at_caller
    @stores_arguments
    def __init__(
        self,
        model: str,
        api_key: ApiKey | None = None,
        base_url: str | None = None,
        *,
        response_model: type[TOutput] | Mapping[str, Any] | None = None,
        response_parser: Callable[[str], TOutput] | None = None,
        **given: Unpack[NativeOptions],
    ) -> None:
        options: dict[str, Any] = dict(given)
        self._check(model, response_model, response_parser, options)
        self.model = model
        self.provider = options.pop("provider", self.provider)
        row = row_of(self.provider)
        transport = options.pop("transport", None)
        where = endpoint(row, base_url, api_key, model, transport, options.pop("api_key_env", None))
        self.base_url, self._fresh_key = where.url, where.fresh
        self._key_count, self._key_from = where.key_count, where.variable
        self.response_model = response_model
        self.response_parser = response_parser
        self.reask = bool(options.pop("reask", True))
        self._shape = None if response_model is None else shape_of(response_model)
        self._toolbox = Toolbox(options.pop("tools", None))
        self._rules = rules_of(options, self._toolbox, row.name)
        api = options.pop("api", None) or where.address.api
        if row.name == "bedrock":
            if api not in (None, "chat", "responses", "converse", "messages"):
                raise ValueError(f"api must be 'converse' or 'messages' (got {quoted(api)})")
        elif api not in (None, "chat", "responses"):
            raise ValueError(f"api must be 'chat' or 'responses' (got {quoted(api)})")
        # Where OpenAI itself answers, its newer API is used unless an option needs the older one.
        only_chat = any(options.get(name) is not None for name in ("n", "seed", "stop"))
        at_home = row.name == "openai" and where.address.is_own
        self._scope: Any = where.scope(row, model)
        spec = self._options(options)
        samples, longest = spec["n"] or 1, spec["max_tokens"]
        self._max_tokens = None if longest is None else longest * samples
        try:
            self._overhead = len(json.dumps([spec["system_prompt"], spec["tools"], spec["schema"]], default=str))
        except (RecursionError, ValueError) as error:
            raise ValueError(f"response_model or tools cannot be written as JSON: {error}") from None
        if spec["tools"] or spec["schema"]:
            self._overhead += 1024  # providers put other text around them
        headers = dict(options.pop("extra_headers", None) or {})
        body = dict(options.pop("extra_body", None) or {})
        stream = options.pop("stream", "auto")
        cache_prompt = _CACHE_PROMPT[options.pop("cache_prompt", "auto")]
        speaks_responses = api == "responses" or (api is None and at_home and not only_chat)
        self._asks = asks(where, spec, headers, body, response_model, response_parser)
        self._asks["responses"] = speaks_responses
        if api in ("converse", "messages"):
            self._asks["api"] = api
        if self._rules is not None:
            # Not the number of rounds: with more of them, a conversation goes on where it ended.
            self._asks["converses"] = True if self._rules.turn is None else _name_of(self._rules.turn)
        self._client = NativeClient(
            {
                "provider": row.name,
                "api": "responses" if speaks_responses else api if api in ("converse", "messages") else "usual",
                "base_url": self.base_url,
                "bearer": where.is_token,
                # Apart from what is asked: the answer is the same.
                "options": {**_given(spec), "stream": _STREAM[stream], "cache_prompt": cache_prompt},
                "headers": list(where.headers_with(headers).items()),
                "transport": where.connecting(transport),
                "raw": bool(options.pop("raw", False)),
                "at_home": where.is_at_home,
                "environment": where.credentials,
            },
            body,
            where.keys,
        )
        self._stream_timeout = self._client.stream_timeout(False)
        self._shown_url = where.address.shown

    _construct: ClassVar[Any] = __init__  # not that of a subclass

    def _check(self, model: Any, response_model: Any, response_parser: Any, options: dict[str, Any]) -> None:
        name = type(self).__name__
        if not isinstance(model, str) or not model.strip():
            raise ValueError(f"model must be a non-empty string, such as 'gpt-5-mini' (got {quoted(model)})")
        known = (*NativeOptions.__annotations__, "response_model", "response_parser", "api_key", "base_url")
        check_known(options, known, name)
        check_options(options)
        transport = options.get("transport")
        if transport is not None and not isinstance(transport, Transport):
            raise TypeError(f"transport must be a Transport, not {type(transport).__name__}")
        if response_parser is not None and not callable(response_parser):
            raise TypeError(f"response_parser must be callable, not {type(response_parser).__name__}")
        if response_parser is not None and response_model is not None:
            raise TypeError("response_model and response_parser cannot be combined; parse in the model's validators")
        provider = options.get("provider", self.provider)
        if provider != self.provider and self._languages and row_of(provider).name not in self._languages:
            raise ValueError(f"{name} does not support {quoted(provider)}; use llm('{provider}:{model}')")
        if options.get("stream", "auto") not in tuple(_STREAM):
            raise ValueError(f"stream must be True, False or 'auto' (got {quoted(options['stream'])})")
        if options.get("cache_prompt", "auto") not in tuple(_CACHE_PROMPT):
            raise ValueError(f"cache_prompt must be 'auto', '1h' or False (got {quoted(options['cache_prompt'])})")
        for field in ("model", "messages", "input", "contents", "stream"):
            if field in (options.get("extra_body") or {}):
                raise ValueError(f"extra_body cannot set {field!r}: the strategy sets it")

    def _options(self, options: dict[str, Any]) -> dict[str, Any]:
        """The request as the extension needs it."""
        stop = options.pop("stop", None)
        logprobs = options.pop("logprobs", None)
        spec = {
            "model": self.model,
            "stop": [stop] if isinstance(stop, str) else list(stop or ()),
            "logprobs": None if logprobs is None or logprobs is False else 0 if logprobs is True else logprobs,
            "tools": self._toolbox.spec,
            "keeps_turns": None if self._rules is None or self._rules.turn is None else True,
            "schema": None if self._shape is None else self._shape.spec,
        }
        for name in _PLAIN_OPTIONS:
            spec[name] = options.pop(name, None)
        for name in ("temperature", "top_p", "max_tokens", "n", "logprobs"):
            number = spec[name]
            if isinstance(number, int) and not -(2**63) <= number < 2**64:
                raise ValueError(f"{name} must be a number of at most 64 bits (got one of {number.bit_length()} bits)")
        if spec["n"] is not None and (not isinstance(spec["n"], int) or spec["n"] < 1):
            raise ValueError(f"n must be an integer >= 1 (got {quoted(spec['n'])})")
        return spec

    @property
    def quota_scope(self) -> Any:
        """The scope that shares limits: by default, the same for all strategies with this provider, key and model."""
        return self._scope

    @quota_scope.setter
    def quota_scope(self, scope: Any) -> None:
        self._scope = scope

    def _expect(self, prompt: Any) -> tuple[float, float | None, float]:
        """Tokens of a prompt by its length; no more than which, if that is known; and requests."""
        if type(prompt) is str:
            size, has_media = len(prompt) if prompt.isascii() else len(_encoded(prompt)), False
        else:
            try:
                size, has_media = self._client.measure(prompt)
            except UnicodeEncodeError as error:
                raise _halved() from error
        # No tokenizer makes more tokens than bytes; frames around messages are counted with every one of them.
        most = None if has_media else float(size + self._overhead + 64)
        return (size + self._overhead) / 4 + 4, most, 1.0

    def _longest_answer(self) -> float | None:
        """The most tokens that an attempt can answer, if that is set."""
        return None if self._max_tokens is None else float(self._max_tokens)

    def check_prompt(self, prompt: Any) -> None:
        """Accept strings, lists of parts and lists of messages."""
        self._client.check_prompt(prompt)

    async def execute(  # type: ignore[override] # the metadata is one more part of the answer
        self, prompt: Any, attempt: int, timeout: float, state: RetryState | None = None
    ) -> tuple[TOutput, TokenUsage, dict[str, Any]]:
        """Send one request. A processor does this without Python; call it directly only for single prompts.

        Raises:
            ProviderError: If the provider rejected the request, could not be reached, or sent an invalid reply.
            TimeoutError: After ``timeout`` seconds.
        """
        return await self._execute_at(prompt, attempt, timeout)

    async def _execute_at(
        self, prompt: Any, attempt: int, timeout: float, correction: Any = None, place: PoolPlace | None = None
    ) -> tuple[TOutput, TokenUsage, dict[str, Any]]:
        """The same, at a place of a pool. ``correction``: the last answer, and what was wrong with it."""
        timeout = attempt_timeout(timeout, self._stream_timeout)
        if self._rules is None:
            return await self._ask(attempt, timeout, prompt, correction if self.reask else None, place)
        ask = functools.partial(self._ask, attempt, timeout)
        return await whole(self._converse("single", prompt, None, NoSteps()), ask, add)

    async def _ask(
        self, attempt: int, timeout: float, prompt: Any, correction: Any = None, place: PoolPlace | None = None
    ) -> tuple[TOutput, TokenUsage, dict[str, Any]]:
        """Send one request, outside of a run."""
        key = self._key()
        try:
            listener = None if self._follower is None else self._follower.listener(attempt)
            success, answer = await self._client.complete(prompt, timeout, key, listener, correction, place)
        except UnicodeEncodeError as error:
            raise _halved() from error
        if not success:
            raise answer
        return self._read(answer)

    async def dry_run(self, prompt: Any) -> tuple[TOutput, TokenUsage]:
        """Return a mock answer without a call: a value that matches ``response_model``, otherwise a string."""
        if self._shape is None:
            return await super().dry_run(prompt if isinstance(prompt, str) else str(prompt))
        text = example(json.dumps(self._shape.schema))
        output = self._parse(text if self._shape.parse is not None else json.loads(text), False)
        return output, {"input_tokens": 100, "output_tokens": 50, "total_tokens": 150}

    def _key(self) -> str | None:
        """The key of one request, where a function gives them.

        Raises:
            TypeError: If it gives none.
        """
        if self._fresh_key is None:
            return None
        key: Any = self._fresh_key()
        if isinstance(key, str) and key.strip():
            return key.strip()
        if inspect.iscoroutine(key):
            key.close()
        raise TypeError(f"the api_key function must return a key as a string, not {type(key).__name__}")

    @property
    def _parses(self) -> bool:
        """Whether answers are processed in Python."""
        return self._shape is not None or self.response_parser is not None

    def _followed_by(self, follower: Follower) -> Self:
        """Return the same strategy, whose answers are streamed to a follower."""
        followed: Self = object.__new__(type(self))
        vars(followed).update(vars(self))
        followed._follower = follower
        followed._stream_timeout = self._client.stream_timeout(True)
        return followed

    def _launch(self, handle: Any, flight: Any, prompt: Any, client: NativeClient) -> None:
        """Send an attempt of a run with ``client``; its answer comes to :meth:`_read`."""
        correction = flight.correction if self.reask else None
        key = self._key()
        try:
            listener = None if self._follower is None else self._follower.listener(flight.attempt)
            handle.launch((flight.index, flight.attempt), client, prompt, correction, key, listener)
        except UnicodeEncodeError as error:
            raise _halved() from error

    def _converse(self, item_id: str, prompt: Any, context: Any, steps: Steps) -> Conversation:
        """A conversation that begins with a prompt. ``steps``: where it is recorded."""
        assert self._rules is not None
        return Conversation(self._rules, item_id, prompt, context, steps)

    def _read(self, answer: tuple[Any, Any, dict[str, Any]]) -> tuple[TOutput, TokenUsage, dict[str, Any]]:
        """Make the output of a native answer."""
        output: Any = answer[0]
        usage, metadata = answer[1:]
        if self._rules is not None:
            metadata[RAW] = {"output": output, "usage": usage, "metadata": {**metadata}}
        calls = metadata.get("tool_calls")
        if calls is None and not self._parses:
            return answer
        try:
            if calls is not None:
                many = self._rules is None and bool(calls) and isinstance(calls[0], list)
                read = self._toolbox.read if self._rules is None else self._toolbox.explain
                metadata["tool_calls"] = [[read(call) for call in one] if many else read(one) for one in calls]
            if not isinstance(output, list) or not self._parses:
                output = self._parse(output, calls is not None)
            else:
                output = self._parse_samples(output, metadata)
        except Exception as error:
            attach_usage(error, usage)
            if isinstance(error, ProviderError) and isinstance(metadata.get("finish_reason"), str):
                error.finish_reason = metadata["finish_reason"]
                error.native_finish_reason = metadata.get("native_finish_reason")
            if self._shape is not None and isinstance(output, str):
                error.__dict__[CORRECTION] = (output, problem_of(error))
            raise
        return output, usage, metadata

    def _parse_samples(self, outputs: list[Any], metadata: dict[str, Any]) -> list[Any]:
        """Parse the samples of an answer. Those that do not fit are left out, unless none fits."""
        calls = metadata.get("tool_calls") or [None] * len(outputs)
        parsed, kept = [], []
        problem: Exception | None = None
        for place, output in enumerate(outputs):
            try:
                parsed.append(self._parse(output, bool(calls[place])))
                kept.append(place)
            except Exception as error:
                problem = problem or error
        if problem is not None and not parsed:
            raise problem
        if len(kept) < len(outputs):
            for name in _BY_SAMPLE:
                if isinstance(metadata.get(name), list):
                    metadata[name] = [metadata[name][place] for place in kept]
        return parsed

    def _parse(self, output: Any, has_calls: bool) -> Any:
        if not has_calls:
            return self._parse_text(output)
        if output == "":
            return None  # no text, only tool calls
        try:
            return self._parse_text(output)
        except Exception:
            return output  # text beside a call need not match

    def _parse_text(self, output: Any) -> Any:
        if self.response_parser is not None:
            return self.response_parser(output)
        if self._shape is None:
            return output
        if self._shape.parse is not None:
            return self._shape.parse(output)
        return output["value"] if self._shape.wrapped else output

    # A processor may use the native path only if `execute` is not overridden.
    _native_execute = execute

    def __repr__(self) -> str:
        return f"{type(self).__name__}(model={quoted(self.model, 300)}, base_url={quoted(self._shown_url)})"


def _name_of(turn: Callable[..., Any]) -> str:
    """What identifies a function in a store, as far as that is possible."""
    return name_of(turn if hasattr(turn, "__qualname__") else type(turn))


def _given(spec: dict[str, Any]) -> dict[str, Any]:
    """The options of a request, without what only some strategies have."""
    if spec["keeps_turns"] is None:
        return {name: value for name, value in spec.items() if name != "keeps_turns"}
    return spec


def _encoded(prompt: str) -> bytes:
    try:
        return prompt.encode()
    except UnicodeEncodeError as error:
        raise _halved() from error


def _halved() -> ProviderError:
    """What is wrong with a text that ends in the middle of an emoji."""
    return ProviderError(
        "the prompt has an unpaired surrogate, which UTF-8 cannot encode; remove it",
        category="invalid_input",
        is_retryable=False,
        was_sent=False,
    )
