"""The messages of a conversation: made of prompts, of replies, and of what the user's functions return.

Used by ``conversations``, and by stores, which keep what came after a prompt.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ._core import Messages
from ._json_values import to_json_value
from ._secrets import quoted

if TYPE_CHECKING:
    from .tools import ToolCall


def as_messages(prompt: Any) -> list[dict[str, Any]]:
    """A prompt as messages.

    Raises:
        TypeError: If it mixes messages and something else.
    """
    if isinstance(prompt, (list, tuple)) and any(isinstance(part, Mapping) and "role" in part for part in prompt):
        for number, message in enumerate(prompt):
            if not isinstance(message, Mapping):
                raise TypeError(f"message {number} is not a message with a role, but {quoted(message)}")
        return [dict(message) for message in prompt]
    return [{"role": "user", "content": list(prompt) if isinstance(prompt, tuple) else prompt}]


def of_reply(output: Any, calls: Sequence[ToolCall], state: Any) -> dict[str, Any]:
    """A reply of the model as a message.

    Args:
        output: The answer: a text, or another value.
        calls: The tools that it calls.
        state: What the provider wants to have again with the message.
    """
    message: dict[str, Any] = {"role": "assistant"}
    if output or not calls:  # nothing is said beside most calls
        message["content"] = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
    if calls:
        message["tool_calls"] = [_plain(call) for call in calls]
    if state is not None:
        message["state"] = state
    return message


def _plain(call: ToolCall) -> dict[str, Any]:
    """A call as a message has it."""
    plain = {"id": call.id, "name": call.name, "arguments": call.arguments}
    if call.state is not None:
        plain["state"] = call.state
    return plain


def of_turn(returned: Any) -> list[dict[str, Any]]:
    """What a ``turn`` function returned, as messages."""
    if isinstance(returned, str):
        returned = [{"role": "user", "content": returned}]
    elif isinstance(returned, Mapping):
        returned = [returned]
    if not isinstance(returned, (list, tuple)) or not returned:
        raise TypeError(f"turn must return a string, messages, End(output) or None, not {quoted(returned)}")
    added = as_messages(returned)
    for message in added:
        if isinstance(message.get("content"), (list, tuple)):
            message["content"] = [_written(part) for part in message["content"]]
    Messages(added)  # raises for what cannot be sent
    return added


def content_of(returned: Any) -> Any:
    """What a tool returned, as the content of a message: a text; or a list of parts, if there are media."""
    if isinstance(returned, str):
        return _whole(returned)
    parts = returned if isinstance(returned, (list, tuple)) else [returned]
    if any(hasattr(part, "_media") for part in parts):
        return [_written(part) for part in parts]
    return _whole(json.dumps(to_json_value(returned, None, path="$", redact=False), ensure_ascii=False))


def _whole(text: str) -> str:
    """A text without halves of characters, such as names of files may have."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _written(part: Any) -> Any:
    """A part of a message as JSON can say it: media as the APIs write them."""
    medium = getattr(part, "_media", None)
    if medium is None:
        return _whole(part) if isinstance(part, str) else part
    (kind, _), given = medium.__getnewargs_ex__()
    if kind == "image":
        return {"type": "image_url", "image_url": {"url": given["url"], **_set(detail=given["detail"])}}
    if kind == "audio":
        return {"type": "audio_url", "audio_url": {"url": given["url"]}}
    where = "file_data" if medium.travels else "file_url"
    return {"type": "input_file", where: given["url"], **_set(filename=given["name"])}


def _set(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def length(content: Any) -> int:
    """Characters of a content, to estimate its tokens by."""
    if isinstance(content, str):
        return len(content)
    return sum(length(part) for part in content) if isinstance(content, list) else 0
