"""The simulated provider from the shell: ``python -m batch_llm.testing.simulate --port 8000``."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from .simulated import Fault, SimulatedProvider

LOOK_SECONDS = 0.2
"""How often it is seen whether a signal came."""


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
        raise argparse.ArgumentTypeError(
            f"{text!r} is not KIND:WHEN, such as 429:100@0.5 or 500:200-300 ({error})"
        ) from error


def _write_ca(provider: SimulatedProvider, file: Path) -> None:
    try:
        file.write_text(provider.ca or "", encoding="ascii")
    except OSError:
        provider.stop()
        raise


def main(arguments: list[str] | None = None, prog: str = "python -m batch_llm.testing.simulate") -> int:
    """Serve until interrupted, then print statistics."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Start a simulated provider on this machine. It speaks the APIs of OpenAI, Anthropic and Gemini.",
    )
    parser.add_argument("--port", type=int, metavar="N", default=0, help="port to listen on; by default, a free one")
    parser.add_argument("--latency", type=float, metavar="SECONDS", default=0.0, help="minimum latency; 0 by default")
    parser.add_argument(
        "--latency-spread", type=float, metavar="SECONDS", default=0.0, help="random latency added to it; 0 by default"
    )
    parser.add_argument(
        "--distribution",
        choices=["uniform", "exponential", "lognormal"],
        default="uniform",
        help="distribution of the added latency; uniform by default",
    )
    parser.add_argument(
        "--latency-per-token", type=float, metavar="SECONDS", default=0.0, help="latency added per output token"
    )
    parser.add_argument("--requests-per-minute", type=float, metavar="N", help="quota of requests; none by default")
    parser.add_argument("--tokens-per-minute", type=float, metavar="N", help="quota of tokens; none by default")
    parser.add_argument(
        "--burst-seconds",
        type=float,
        metavar="SECONDS",
        default=10.0,
        help="seconds' worth of a quota allowed at once; 10 by default",
    )
    parser.add_argument("--api-key", metavar="KEY", help="reject every other key")
    parser.add_argument("--seed", type=int, metavar="N", default=0, help="seed for answers and latencies; 0 by default")
    parser.add_argument(
        "--fault",
        type=_fault,
        action="append",
        default=[],
        metavar="KIND:WHEN",
        help="fail some requests: 429:100@0.5 (every 100th, with a Retry-After of 0.5), reset:50, 500:200-300, "
        "html:1000, ...; repeatable",
    )
    parser.add_argument("--tls", action="store_true", help="serve TLS 1.3, with HTTP/1.1 and HTTP/2")
    parser.add_argument(
        "--write-ca",
        type=Path,
        metavar="FILE",
        help="with --tls, write to FILE (PEM) the CA certificate that clients must trust; each start creates a new one",
    )
    options = vars(parser.parse_args(arguments))
    ca_file = options.pop("write_ca")
    if ca_file is not None and not options["tls"]:
        parser.error("--write-ca requires --tls")
    try:
        provider = SimulatedProvider(faults=options.pop("fault"), **options)
        if ca_file is not None:
            _write_ca(provider, ca_file)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    stopped = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stopped.set())
    with provider:
        sys.stdout.write(
            f"OpenAI     {provider.base_url}\nAnthropic  {provider.url}\nGemini     {provider.gemini_url}\n"
            + (f"CA         {ca_file}\n" if ca_file is not None else "")
            + "Press Ctrl-C to stop.\n"
        )
        sys.stdout.flush()
        while not stopped.wait(LOOK_SECONDS):  # without a timeout, a signal just before the wait would not end it
            pass
    stats = provider.stats
    sys.stdout.write(
        f"{stats.requests} requests, at most {stats.peak_concurrency} at a time, {len(stats.violations)} too early for "
        "the quota; "
        f"replies: {', '.join(f'{status}: {count}' for status, count in sorted(stats.statuses.items())) or 'none'}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
