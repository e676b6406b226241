"""What the options of ``batch-llm run`` ask for: the strategy, the settings of the run, a simulated provider."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import click

from ..core.config import ProcessorConfig, RetryConfig
from ..core.guardrails import GuardrailConfig
from ..native import NativeStrategy, llm
from ..pools import PoolStrategy
from ..testing import SimulatedProvider
from .asking import Wanted
from .invalid_rows import InvalidRows
from .tools import tools_of

_CACHE_PROMPT: dict[str, Literal["auto", "1h", False]] = {"auto": "auto", "1h": "1h", "off": False}
"""Values of ``--cache-prompt``, as strategies take them."""


def wanted_of(model: str | None, path: str, invalid: InvalidRows, options: dict[str, Any]) -> Wanted:
    """Return how prompts are made from the rows of the file at ``path``."""
    given = {
        "system_prompt": options["system"],
        "temperature": options["temperature"],
        "max_tokens": options["max_tokens"],
        "response_model": options["schema"],
        "cache_prompt": _CACHE_PROMPT[options["cache_prompt"]],
        **tools_of(options["tools"], options["rounds"]),
    }
    common = {name: value for name, value in given.items() if value is not None}
    addresses, fallbacks = options["base_url"], options["fallback"]
    if (len(addresses) > 1 or fallbacks) and options["lane"] != "live":
        raise click.UsageError(f"--lane {options['lane']} needs one model: no --fallback, and at most one --base-url")

    def make(own: Any, **body: Any) -> NativeStrategy[Any]:
        name = model or (own if ":" in own else f"openai:{own}")
        return strategy(name, {**common, **body})

    def strategy(name: str, given: dict[str, Any]) -> NativeStrategy[Any]:
        if not options["dry_run"]:
            return _strategy(name, addresses, fallbacks, given)
        if options["sample"]:
            # The provider may have to count tokens; without a key it does not.
            with contextlib.suppress(ValueError):
                return _strategy(name, addresses, fallbacks, given)
        return _strategy(name, addresses, fallbacks, {**given, "api_key": _no_key})

    folder = Path() if path == "-" else Path(path).parent
    return Wanted(
        None if model is None else strategy(model, common),
        options["prompt"],
        options["image"],
        Path(options["image_root"] or folder),
        make,
        invalid.add,
    )


def _strategy(
    name: str, addresses: Sequence[str], fallbacks: Sequence[str], options: dict[str, Any]
) -> NativeStrategy[Any]:
    """Return a strategy; a pool, if there are several addresses or a fallback."""
    if not fallbacks and len(addresses) < 2:
        place: dict[str, Any] = {"base_url": addresses[0]} if addresses else {}
        return llm(name, **{**options, **place})
    if options.get("api_key") is _no_key:
        # A pool needs to know its keys at once, to send with them.
        options = {**options, "api_key": "none, because nothing is sent"}
    members = [llm(name, **options, base_url=address) for address in addresses] or [llm(name, **options)]
    return PoolStrategy(members, [llm(fallback, **options) for fallback in fallbacks])


def _no_key() -> str:
    """Asked for with each request, so a dry run, which answers none, needs no key."""
    raise ValueError("no API key is set")


class _Guardrails(GuardrailConfig):
    _fail_early_off = "--keep-going"


def config_of(options: dict[str, Any]) -> ProcessorConfig:
    """Return the settings of the run."""
    config = ProcessorConfig()
    if options["timeout"] is not None:
        config.timeout_per_item = options["timeout"]
    if options["retries"] is not None:
        config.retry = RetryConfig(max_attempts=options["retries"] + 1)
    config.max_requests_per_minute = options["rpm"]
    if options["tpm"] is not None:
        config.max_tokens_per_minute = options["tpm"]
    config.guardrails = _Guardrails(
        max_total_cost=options["budget"],
        batch_timeout=options["deadline"] if options["lane"] == "live" else None,
        fail_early=not options["keep_going"],
    )
    return config


@contextlib.contextmanager
def provider_of(options: dict[str, Any]) -> Iterator[None]:
    """Replace the real providers by a simulated one, if requested."""
    if not options["simulate"]:
        yield
        return
    if options["base_url"]:
        raise click.UsageError("--simulate and --base-url cannot be combined")
    with SimulatedProvider(latency=0.05, latency_spread=0.1) as provider:
        simulated = provider.environment
        before = {name: os.environ.get(name) for name in simulated}
        os.environ.update(simulated)
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value
