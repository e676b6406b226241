"""Pickles and copies of native strategies. Used by ``native`` and ``embeddings``.

A pickle has the arguments of the constructor, and the other process calls it again. A copy shares the connections, the
key and the limits.
"""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, TypeVar

from .._pickles import copied
from .._secrets import is_credential, mask

if TYPE_CHECKING:
    from typing_extensions import ParamSpec, Self
else:
    from typing import ParamSpec

P = ParamSpec("P")
TMade = TypeVar("TMade", bound="Rebuildable")

_SECRET_PLACES = ("base_url", "extra_headers", "extra_body")
"""Arguments that may contain a credential, beside ``api_key``."""


@dataclass(frozen=True)
class _Origin:
    """How a strategy was made.

    Args:
        arguments: The arguments of its constructor, without fixed keys.
        has_key: Whether there was a fixed key.
        attributes: What the constructor has set. What differs later was set by the user.
    """

    arguments: Mapping[str, Any]
    has_key: bool
    attributes: Mapping[str, Any]


class Rebuildable:
    """Is pickled as the arguments of its constructor, and copied with what that has made."""

    _origin: _Origin
    _construct: ClassVar[Any]

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled.

        Raises:
            pickle.PicklingError: If an argument contains a secret; names the remedy.
        """
        origin = self._origin
        _check_portable(type(self).__name__, origin)
        # Type checkers alone read the type arguments.
        more = {name: value for name, value in self._set_later().items() if name != "__orig_class__"}
        return {"arguments": origin.arguments, "attributes": more}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self._construct(**state["arguments"])
        vars(self).update(state["attributes"])

    def __copy__(self) -> Self:
        made = object.__new__(type(self))
        vars(made).update(vars(self))
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        made = memo[id(self)] = copy.copy(self)
        vars(made).update({name: copied(value, memo) for name, value in self._set_later().items()})
        return made

    def _set_later(self) -> dict[str, Any]:
        """Return the attributes that a subclass or the user has set."""
        made = {**self._origin.attributes, "_origin": self._origin}
        return {name: value for name, value in vars(self).items() if name not in made or made[name] is not value}


def stores_arguments(construct: Callable[Concatenate[TMade, P], None]) -> Callable[Concatenate[TMade, P], None]:
    """Keep the arguments of a constructor for pickles, but no fixed key: the extension alone has that."""
    code: Any = getattr(construct, "__code__")  # noqa: B009 - callables need not have one, but functions do
    names = code.co_varnames[1 : code.co_argcount]

    @functools.wraps(construct)
    def constructing(self: TMade, *args: P.args, **kwargs: P.kwargs) -> None:
        before = set(vars(self))
        construct(self, *args, **kwargs)
        given: dict[str, Any] = {**dict(zip(names, args, strict=False)), **kwargs}
        # A fixed key is none if it is blank.
        has_key = given.get("api_key") is not None and not callable(given["api_key"])
        if has_key:
            del given["api_key"]
        self._origin = _Origin(
            # The caller may change them afterwards.
            {name: copy.copy(value) if isinstance(value, (dict, list)) else value for name, value in given.items()},
            has_key,
            {name: value for name, value in vars(self).items() if name not in before},
        )

    made: Any = constructing
    checked: Callable[Concatenate[TMade, P], None] = made
    return checked


def _check_portable(name: str, origin: _Origin) -> None:
    if origin.has_key:
        raise pickle.PicklingError(
            f"{name} has a fixed api_key, which a pickle would reveal. Remove api_key= to read the provider's "
            "environment variable in each process, or pass another variable's name, api_key_env='MY_KEY', or a "
            "function, api_key=read_key"
        )
    for place in _SECRET_PLACES:
        if _has_credential(origin.arguments.get(place)):
            raise pickle.PicklingError(
                f"the {place} of {name} contains a secret, which a pickle would reveal. Create the strategy in each "
                "process, for example with a function that reads the secret there"
            )


def _has_credential(value: Any) -> bool:
    if isinstance(value, str):
        return mask(value) != value
    if isinstance(value, Mapping):
        return any(is_credential(str(name)) or _has_credential(part) for name, part in value.items())
    return isinstance(value, (list, tuple)) and any(map(_has_credential, value))
