"""How long an attempt may take. Used by the configuration, runs and native strategies."""

from __future__ import annotations


class _Default(float):
    """A default that is told apart from the same number of a user, also after pickling."""


DEFAULT_TIMEOUT: float = _Default(120.0)
"""How long an attempt may take by default, seconds."""


def attempt_timeout(seconds: float, stream_timeout: float | None) -> float:
    """Return how long an attempt may take, seconds.

    Args:
        seconds: ``timeout_per_item``.
        stream_timeout: The strategy's own limit, if its replies come as streams: the clocks of a stream end what is
            dead, so the default does not apply.
    """
    return stream_timeout if stream_timeout is not None and isinstance(seconds, _Default) else seconds
