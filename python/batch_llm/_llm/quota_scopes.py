"""Quota scopes by name: equal names share, in all runs of the process. Used by what is known of strategies."""

from __future__ import annotations

import os
import secrets
import threading
import weakref
from collections import deque
from collections.abc import Hashable
from typing import Any

from .._core import Scope
from .._forks import in_child
from ..errors import QuotaScopeError

_scopes: weakref.WeakValueDictionary[Hashable, Scope] = weakref.WeakValueDictionary()
_recent: deque[Scope] = deque(maxlen=64)
_lock = threading.Lock()


_holder = ""


def holder() -> str:
    """Return a name for this process, among those that share limits."""
    global _holder
    if not _holder:
        _holder = f"{os.getpid()}-{secrets.token_hex(4)}"
    return _holder


def _forget() -> None:
    """A child is another process. Scopes are new in it by themselves."""
    global _holder, _lock
    _holder, _lock = "", threading.Lock()


in_child(_forget)


def shared_name_of(strategy: Any) -> str:
    """Return the name of a strategy's scope in a file that processes share: equal in all of them, without keys."""
    scope: Any = strategy.quota_scope
    if type(scope) is tuple and scope[:1] == ("provider",):
        _, name, address, _, model = scope
        return f"{name} {address} {model}"
    return repr(scope)


def scope_of(strategy: Any) -> Scope | None:
    """Return the scope that a strategy names in its attribute ``quota_scope``; None: that of its run.

    A scope, with what it has learned about the provider, lives as long as it is referenced, and a while longer, so that
    the next run need not learn again.

    Raises:
        QuotaScopeError: If the attribute raises or cannot be hashed.
    """
    name = type(strategy).__name__
    try:
        scope: Any = getattr(strategy, "quota_scope", None)
        if scope is None or isinstance(scope, Scope):
            return scope
        hash(scope)
    except Exception as error:
        raise QuotaScopeError(
            f"{name}.quota_scope must be hashable (equal values share limits) or None: {type(error).__name__}: {error}"
        ) from error
    with _lock:
        known = _scopes.get(scope)
        if known is None:
            known = _scopes[scope] = Scope()
            _recent.append(known)
        return known
