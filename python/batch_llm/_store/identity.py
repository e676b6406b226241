"""Who answers an item, and how: the part of a request's fingerprint that its strategy is. Used by ``run_store``."""

from __future__ import annotations

import inspect
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._core import fingerprint
from .._json_values import name_of, to_plain
from .._llm import SIMULATED, SIMULATED_MARK, environment
from .._pool_members import name_of_doubt
from .._secrets import public
from ..artifacts import ArtifactIdentity, stated
from ..callable_strategy import CallableStrategy
from ..errors import ArtifactIdentityError
from ..pools import MixedPoolStrategy

SHOWN = frozenset({
    "provider", "model", "responses", "temperature", "top_p", "max_tokens", "seed", "n", "logprobs", "reasoning_effort",
    "tool_choice", "dimensions", "response_model", "response_parser", "strategy", "function", "prompt_version",
    "parser_version", "application_version", SIMULATED_MARK,
})  # fmt: skip
"""Fields of an identity that files contain in plain text."""
_SCALARS = frozenset({str, int, float, bool})

_numbers = itertools.count()

DEPTH = 8
"""How deep parameters that are objects are looked into."""


@dataclass(frozen=True)
class Identity:
    """A strategy's identity.

    Args:
        digest: Its fingerprint.
        text: What may be read of it, as JSON: what is on the list of :data:`SHOWN`, and the digest of all of it.
        guessed: The name by which the strategy is known, if its name and parameters are all that is known.
    """

    digest: bytes
    text: str
    guessed: str | None

    @property
    def number(self) -> int:
        """What stands for it in records."""
        return int.from_bytes(self.digest[:8], "big", signed=True)


def identity_of(strategy: Any, given: ArtifactIdentity | None) -> Identity:
    """Return the identity of a strategy.

    Args:
        strategy: The strategy.
        given: The identity given with the store; otherwise the strategy's own ``artifact_identity`` is used.

    Raises:
        ArtifactIdentityError: If it has no identity that another process could recognise.
    """
    own = getattr(strategy, "artifact_identity", None)
    given = given or stated(own, f"{type(strategy).__name__}.artifact_identity")
    asks = getattr(strategy, "_asks", None)
    guessed = None
    if isinstance(asks, Mapping):
        parts = {**asks, **({} if given is None else {"stated": given._parts()})}
    elif given is not None:
        parts = given._parts()
    elif isinstance(strategy, MixedPoolStrategy):
        parts, guessed = _of_pool(strategy)
    else:
        parts, guessed = _guess(strategy)
    if not isinstance(asks, Mapping) and environment(SIMULATED) is not None:
        # Whatever client it uses is likely to use the simulated provider.
        parts = {**parts, SIMULATED_MARK: True}
    parts = public(parts)
    digest = fingerprint(parts, to_plain)
    return Identity(digest, _shown(parts, digest), guessed)


def _shown(parts: Mapping[str, Any], digest: bytes) -> str:
    """Return what a file contains of an identity. Prompts, headers, own fields may be secret: only their digest."""
    shown = {name: value for name, value in parts.items() if name in SHOWN and type(value) in _SCALARS}
    others = sorted(name for name in parts if name not in shown)
    stated = parts.get("stated")
    if isinstance(stated, Mapping):
        shown["stated"] = {name: value for name, value in stated.items() if name in SHOWN}
    return json.dumps({**shown, "digest": digest.hex(), "digest_of": others}, sort_keys=True, ensure_ascii=False)


def identity_here(strategy: Any) -> Identity:
    """Return what distinguishes a strategy from others without a store.

    Native ones are identified by their requests, others are all different; so it is called once per strategy. Addresses
    would not do: there may be another strategy at one later.
    """
    if isinstance(getattr(strategy, "_asks", None), Mapping):
        return identity_of(strategy, None)
    return Identity(fingerprint(["here", next(_numbers)], to_plain), "", None)


def _guess(strategy: Any) -> tuple[dict[str, Any], str]:
    kind = type(strategy)
    parts: dict[str, Any] = {"strategy": name_of(kind)}
    shown = kind.__qualname__
    if isinstance(strategy, CallableStrategy):
        function = strategy._invoke
        name = name_of(function) if hasattr(function, "__qualname__") else name_of(type(function))
        if name.endswith("<lambda>"):
            raise ArtifactIdentityError(
                "a lambda has no name by which its stored results could be looked up: use a named function, or set an "
                "identity: SqliteArtifactStore(path, identity='my tagger, version 1')"
            )
        parts["function"], shown = name, name.rpartition(":")[2]
    model = getattr(strategy, "model", None)
    if isinstance(model, str):
        parts["model"] = model
    parameters = {}
    for name, value in _parameters(strategy).items():
        known = _UNKNOWN if hasattr(value, "get_secret_value") else _plain(public(value))
        if known is not _UNKNOWN and known is not None:
            parameters[name] = known
    parts["parameters"] = parameters
    return parts, shown


def _of_pool(strategy: MixedPoolStrategy[Any]) -> tuple[dict[str, Any], str | None]:
    """Whoever of a pool answers: its members, in no order."""
    known = [identity_of(one, None) for one in strategy.strategies]
    guessed = [one.guessed for one in known if one.guessed is not None]
    parts = {"strategy": "pool", "pool": sorted({one.digest.hex() for one in known})}
    if strategy.escalate_if is not None:
        parts["escalate_if"] = name_of_doubt(strategy.escalate_if)
    return parts, guessed[0] if guessed else None


def _parameters(strategy: Any) -> dict[str, Any]:
    """What the constructor was given, as far as the strategy has it under these names."""
    if isinstance(strategy, CallableStrategy):
        return {}
    try:
        names = list(inspect.signature(type(strategy).__init__).parameters)[1:]
    except (TypeError, ValueError):
        return {}
    found = {}
    for name in names:
        for attribute in (name, f"_{name}"):
            value = getattr(strategy, attribute, _UNKNOWN)
            if value is not _UNKNOWN:
                found[name] = value
                break
    return found


_UNKNOWN = object()
_JSON = frozenset({str, int, float, bool, type(None), dict})


_TELLING = (
    "model", "model_name", "model_settings", "system_prompt", "_system_prompts", "instructions", "_instructions",
    "output_type", "temperature", "max_tokens", "top_p", "template", "prompt", "messages", "first", "middle", "last",
    "bound", "kwargs",
)  # fmt: skip
"""Attributes of agents, chains and clients of other libraries that define their requests."""


def _plain(value: Any, depth: int = 0) -> Any:
    """Return a parameter as JSON values, as far as possible."""
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return name_of(value)
    kind = type(value)
    known = _UNKNOWN if kind in _JSON or depth >= DEPTH else _described(value, depth)
    if known is not _UNKNOWN and not hasattr(kind, "model_fields"):
        # What is a dataclass may be an agent, whose fields are the least of it, or change while it is at work.
        return known
    try:
        fingerprint(value, to_plain)
    except Exception:
        return known
    return value if known is _UNKNOWN else {"value": value, "described": known}


def _described(value: Any, depth: int) -> Any:
    if isinstance(value, (list, tuple)):
        found = [_plain(part, depth + 1) for part in value]
        return [part for part in found if part is not _UNKNOWN]
    parts = {}
    for name in _TELLING:
        part = getattr(value, name, None)
        if part is not None and (known := _plain(part, depth + 1)) is not _UNKNOWN:
            parts[name] = known
    return {"kind": name_of(type(value)), **parts} if parts else _UNKNOWN
