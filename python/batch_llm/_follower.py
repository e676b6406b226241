"""Whoever follows an answer while it comes: the events, and their way from the extension's threads to the event loop.

Native strategies send to a ``Follower``; ``call_result()`` and ``stream_tokens()`` make one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ._core import TokenListener


@dataclass(frozen=True)
class TokenEvent:
    """A part of an answer, yielded as it arrives.

    Args:
        kind: ``"text"`` or ``"reasoning"``: a new part of the answer, or of the model's thoughts. ``"retry"``: the
            attempt failed, and the answer starts over. ``"result"``: the answer is complete (only from
            :func:`~batch_llm.stream_tokens`).
        text: The new text.
        result: With ``"result"``, the item's result.
    """

    kind: Literal["text", "reasoning", "retry", "result"]
    text: str = ""
    result: Any = None


class Follower:
    """Passes the parts of one item's answers to a function, on the event loop.

    Args:
        on_token: The function. If it returns True, the answer ends there; if it raises, too, and ``error`` is set.
    """

    def __init__(self, on_token: Callable[[TokenEvent], object]) -> None:
        if not callable(on_token):
            raise TypeError(f"on_token must be a function of a TokenEvent, not {on_token!r}")
        self._on_token = on_token
        self.error: BaseException | None = None

    def listener(self, attempt: int) -> TokenListener:
        """Return what an attempt sends its parts to."""
        loop = asyncio.get_running_loop()

        def hear(kind: Literal["text", "reasoning"], text: str) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._pass_on, TokenEvent(kind, text), listener)

        listener = TokenListener(hear)
        if attempt > 1:
            self._pass_on(TokenEvent("retry"), listener)
        return listener

    def _pass_on(self, event: TokenEvent, listener: TokenListener) -> None:
        if self.error is not None:
            return
        try:
            is_enough = self._on_token(event) is True
        except BaseException as error:
            self.error, is_enough = error, True
        if is_enough:
            listener.stop()
