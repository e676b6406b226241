"""Configuration, and the structural types of agents. Public; read by processors and plans, never changed by them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .config import ProcessorConfig, RateLimitConfig, RetryConfig, StartupRampConfig
from .guardrails import AbortMode, AttemptUsage, GuardrailConfig
from .quotas import Quota

if TYPE_CHECKING:
    from .protocols import AgentLike, ResultLike, TOutput, UsageLike

__all__ = [
    "AbortMode",
    "AgentLike",
    "AttemptUsage",
    "GuardrailConfig",
    "ProcessorConfig",
    "Quota",
    "RateLimitConfig",
    "ResultLike",
    "RetryConfig",
    "StartupRampConfig",
    "TOutput",
    "UsageLike",
]


def __getattr__(name: str) -> Any:
    # The protocols are bound to pydantic's BaseModel: pydantic is imported on first use.
    if name in ("AgentLike", "ResultLike", "TOutput", "UsageLike", "protocols"):
        protocols = importlib.import_module(f"{__name__}.protocols")
        return protocols if name == "protocols" else getattr(protocols, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
