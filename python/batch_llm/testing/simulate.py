"""The simulated provider from the shell: ``python -m batch_llm.testing.simulate --port 8000``."""

from __future__ import annotations

import argparse
import signal
import sys
import threading

from .simulated import Fault, SimulatedProvider


def _fault(text: str) -> Fault:
    """``KIND:EVERY`` or ``KIND:FIRST-LAST``, and ``@SECONDS`` for a Retry-After."""
    kind, _, when = text.partition(":")
    when, _, wait = when.partition("@")
    first, dash, last = when.partition("-")
    try:
        name = int(kind) if kind.isdigit() else kind
        between = (int(first), int(last)) if dash else None
        return Fault(name, 0 if dash else int(first), (), float(wait) if wait else None, between)  # type: ignore[arg-type] # checked by the extension
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not KIND:EVERY or KIND:FIRST-LAST ({error})") from error


def main(arguments: list[str] | None = None) -> int:
    """Serve until interrupted, then print statistics."""
    parser = argparse.ArgumentParser(prog="python -m batch_llm.testing.simulate", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 picks a free port")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds")
    parser.add_argument("--latency-spread", type=float, default=0.0, help="seconds")
    parser.add_argument("--distribution", choices=["uniform", "exponential", "lognormal"], default="uniform")
    parser.add_argument("--latency-per-token", type=float, default=0.0, help="seconds")
    parser.add_argument("--requests-per-minute", type=float)
    parser.add_argument("--tokens-per-minute", type=float)
    parser.add_argument("--burst-seconds", type=float, default=10.0)
    parser.add_argument("--api-key", help="the only accepted key")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--fault",
        type=_fault,
        action="append",
        default=[],
        metavar="KIND:WHEN",
        help="429:100@0.5 (every 100th, Retry-After 0.5), reset:50, 500:200-300, html:1000, ...; repeatable",
    )
    options = vars(parser.parse_args(arguments))
    try:
        provider = SimulatedProvider(faults=options.pop("fault"), **options)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    stopped = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stopped.set())
    with provider:
        sys.stdout.write(
            f"OpenAI     {provider.base_url}\nAnthropic  {provider.url}\nGemini     {provider.gemini_url}\n"
            "Ctrl-C stops it.\n"
        )
        sys.stdout.flush()
        stopped.wait()
    stats = provider.stats
    sys.stdout.write(
        f"{stats.requests} requests, at most {stats.peak_concurrency} at a time, {len(stats.violations)} too early; "
        f"replies: {', '.join(f'{status}: {count}' for status, count in sorted(stats.statuses.items())) or 'none'}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
