"""Files made for OpenAI's Batch API: bodies in, replies out, with any provider.

A body is data: of it only fields that requests are known to have are passed on.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from .._guesses import nearest
from .._json_values import to_json_value
from .._results import WorkItemResult
from ..native import NativeStrategy
from ..transport import Transport
from . import texts
from .reading import Row

_BOTH = {
    "max_tokens", "metadata", "model", "parallel_tool_calls", "prompt_cache_key", "prompt_cache_retention",
    "reasoning_effort", "safety_identifier", "service_tier", "store", "stream", "stream_options", "temperature",
    "tool_choice", "tools", "top_logprobs", "top_p", "user", "verbosity",
}  # fmt: skip
_FIELDS = {
    "messages": _BOTH | {
        "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs", "max_completion_tokens",
        "messages", "min_p", "modalities", "n", "prediction", "presence_penalty", "reasoning", "repetition_penalty",
        "response_format", "seed", "stop", "top_k", "web_search_options",
    },
    "input": _BOTH | {
        "include", "input", "instructions", "max_output_tokens", "max_tool_calls", "reasoning", "text", "truncation",
    },
}  # fmt: skip
"""The fields of a body, by the one that holds the prompt."""
_OPTIONS = {
    "instructions": "system_prompt", "max_completion_tokens": "max_tokens", "max_output_tokens": "max_tokens",
    "max_tokens": "max_tokens", "n": "n", "reasoning_effort": "reasoning_effort", "seed": "seed",
    "temperature": "temperature", "top_p": "top_p",
}  # fmt: skip
"""Fields that every provider has, by our names."""
_LEFT_OUT = ("model", "messages", "input", "stream", "stream_options")
_URLS = {"/v1/chat/completions": "messages", "/v1/responses": "input"}
KEPT = 256
"""Number of strategies cached for later bodies."""


class BadRequestError(Exception):
    """A line is not a valid request."""


class Strategies:
    """Strategies for bodies. Those for the same server share their connections.

    Args:
        make: Makes one of a model and its options.
        has_model: Whether it does not need the body's model.
    """

    def __init__(self, make: Callable[..., NativeStrategy[Any]], *, has_model: bool) -> None:
        self._make, self._has_model = make, has_model
        self._transport = Transport()
        self._made: OrderedDict[str, NativeStrategy[Any]] = OrderedDict()

    def of(self, row: Row) -> tuple[NativeStrategy[Any], Any]:
        """The strategy for a line, and its prompt.

        Raises:
            BadRequestError: If the line is not a valid request; names the field.
        """
        body = row["body"]
        if not isinstance(body, dict):
            raise BadRequestError(f"invalid row: its body must be an object, not {type(body).__name__}")
        holder = _holder(row, body)
        for name in body:
            if name not in _FIELDS[holder]:
                guess = nearest(name, _FIELDS[holder])
                raise BadRequestError(f"invalid row: its body has a field {name!r}, which is not supported{guess}")
        prompt = body.get(holder)
        if not prompt:
            raise BadRequestError("invalid row: its body has no messages and no input")
        model = body.get("model")
        if not self._has_model and not (isinstance(model, str) and model.strip()):
            raise BadRequestError("invalid row: its body names no model; set one with --model")
        rest = {name: value for name, value in body.items() if name not in _LEFT_OUT and value is not None}
        key = json.dumps([model, holder, rest], sort_keys=True)
        strategy = self._made.get(key)
        if strategy is None:
            strategy = self._made[key] = self._strategy(model, holder, rest)
            if len(self._made) > KEPT:
                self._made.popitem(last=False)
        else:
            self._made.move_to_end(key)
        return strategy, prompt

    def _strategy(self, model: Any, holder: str, body: dict[str, Any]) -> NativeStrategy[Any]:
        options: dict[str, Any] = {"raw": True, "transport": self._transport}
        if holder == "messages":
            options["api"] = "chat"  # whose fields these are
        extra = {}
        for name, value in body.items():
            if name in _OPTIONS:
                options[_OPTIONS[name]] = value
            else:
                extra[name] = value
        if extra:
            options["extra_body"] = extra
        try:
            return self._make(model, **options)
        except (TypeError, ValueError) as error:
            raise BadRequestError(f"invalid row: {error}") from error


def lacking(row: Row) -> str:
    """Why a row of a file of requests is none."""
    missing = [name for name in ("custom_id", "body") if name not in row]
    if missing:
        return f"it has no {' and no '.join(map(repr, missing))}, which a request of the Batch API needs"
    return f"its body must be an object, not {type(row['body']).__name__}"


def _holder(row: Row, body: dict[str, Any]) -> str:
    """The field of a body that holds the prompt."""
    url = row.get("url")
    if url is None:
        return "messages" if body.get("messages") or not body.get("input") else "input"
    if url not in _URLS:
        raise BadRequestError(f"invalid row: its url is {str(url)[:80]!r}; use {' or '.join(_URLS)}")
    return _URLS[url]


def refusal(row: Row) -> dict[str, Any]:
    """Return the output line of an invalid row."""
    return {
        "id": f"batch_req_{row.item_id}",
        "custom_id": texts.read(row.texts().get("custom_id", "null")),
        "response": None,
        "error": {"code": "invalid_input", "message": row.problem},
    }


def reply(result: WorkItemResult[Any, Any]) -> dict[str, Any]:
    """A line of the output file of OpenAI's Batch API."""
    metadata = result.metadata or {}
    named = (result.context or {}).get("custom_id", result.item_id)
    line: dict[str, Any] = {
        "id": f"batch_req_{result.item_id}", "custom_id": named, "response": None, "error": None
    }  # fmt: skip
    if not result.success:
        line["error"] = {"code": result.error_category or "unknown", "message": result.error}
        status = getattr(result.exception, "status_code", None)
        if status is not None:
            failed = {"error": {"message": result.error, "code": result.error_category}}
            line["response"] = {"status_code": status, "request_id": metadata.get("request_id"), "body": failed}
        return line
    body: Any = metadata.get("raw")
    if not isinstance(body, dict) or not ("choices" in body or "output" in body):
        body = _completion(result, metadata)
    line["response"] = {"status_code": 200, "request_id": metadata.get("request_id"), "body": body}
    return line


def _completion(result: WorkItemResult[Any, Any], metadata: dict[str, Any]) -> dict[str, Any]:
    """An answer of another provider, or from the store, as a chat completion."""
    usage: Any = result.token_usage or {}
    outputs = result.output if isinstance(result.output, list) else [result.output]
    shown = [one if isinstance(one, str) or one is None else json.dumps(to_json_value(one)) for one in outputs]
    reason = metadata.get("finish_reason") or "stop"
    return {
        "id": metadata.get("request_id") or f"chatcmpl-{result.item_id}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": metadata.get("model"),
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": text},
                "finish_reason": reason[index] if isinstance(reason, list) else reason,
            }
            for index, text in enumerate(shown)
        ],
        "usage": {
            "prompt_tokens": usage.get("input_tokens", 0),
            "completion_tokens": usage.get("output_tokens", 0),
            "total_tokens": usage.get("total_tokens", 0),
        },
    }
