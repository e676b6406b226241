"""Run the benchmarks of real requests, and print their tables: ``python real.py [SECTION ...]``. Called by ``run.py``.

Sections: ``typed``, ``shared``, ``vectors``, ``streams``, ``foreign``, ``peers``. ``QUICK=1`` measures each once, with
fewer requests.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from measuring import HERE, environment, example, measure
from shapes import answer, message, reply, vectors

QUICK = bool(os.environ.get("QUICK"))
REPEAT = 1 if QUICK else 3
JSON = "application/json"
EVENTS = "text/event-stream"
# Each in an environment of its own, at its best setting.
OPENAI = ("openai[aiohttp]==3.57.0", "pydantic")
PEERS = {
    "aiohttp": ("aiohttp==3.14.5", "pydantic"),
    "openai": OPENAI,
    # It does not take the newest SDK.
    "instructor": ("instructor==1.17.0", "openai[aiohttp]", "pydantic"),
    "litellm": ("litellm==1.110.2", "pydantic"),
    # It takes no authority of one's own.
    "flexllm": ("flexllm==0.17.10", "pydantic"),
}


@contextlib.contextmanager
def serving(body: bytes, kind: str = JSON, pause_ms: int = 0, ca_file: str | None = None) -> Iterator[str]:
    """Answer every request with this body, in a process of its own, over TLS with ``ca_file``; yields the URL."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        command = [example("fixed_server"), file.name, kind, str(pause_ms), *([ca_file] if ca_file else [])]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            yield process.stdout.readline().strip()
            process.stdin.close()
            process.stdout.read()


@contextlib.contextmanager
def simulated(*arguments: str) -> Iterator[str]:
    """Run ``provider.py`` in a process of its own; yields its URL."""
    command = [sys.executable, str(HERE / "provider.py"), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield process.stdout.readline().strip()
        process.stdin.close()
        process.stdout.read()


def some(count: int) -> int:
    """So many requests, or fewer where it is to be quick."""
    return count // 4 if QUICK else count


def row(name: str, *numbers: str) -> None:
    """Print a row of a table."""
    print(f"| {name} | {' | '.join(numbers)} |", flush=True)


def typed() -> None:
    """Print how many prompts of 4 KB with typed answers of 2 KB pass, over TLS and without it, against both servers."""
    print("\n## Real requests: prompts of 4 KB, answers of 2 KB of JSON\n")
    print("| server | answers | in flight | requests/s | client CPU, µs each |\n| --- | --- | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        ca = {name: str(Path(folder) / name) for name in ("simulated", "fixed")}
        servers = (
            ("simulated, TLS, HTTP/2", stack.enter_context(simulated("0", answer(), ca["simulated"])), ca["simulated"]),
            ("fixed, TLS, HTTP/2", stack.enter_context(serving(reply(), ca_file=ca["fixed"])), ca["fixed"]),
            ("fixed, plaintext, HTTP/2", stack.enter_context(serving(reply())), "-"),
        )
        for server, url, authority in servers:
            for name, peer in (("typed", "batch-llm"), ("text", "batch-llm-text")):
                for flight in (100, 1000, 4000):
                    own = peer if authority != "-" else f"{peer}-http2"
                    rate, cpu = measure("typed.py", own, url, flight, some(30_000), authority, repeat=REPEAT)
                    row(server, name, str(flight), f"{rate:,.0f}", f"{cpu:.0f}")


def peers() -> None:
    """Print the same of other packages."""
    print("\n## Real requests, other packages, the fixed server over TLS, 100 in flight\n")
    print("| client | requests/s | client CPU, µs each | times slower |\n| --- | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        authority = f"{folder}/ca"
        with serving(reply(), ca_file=authority) as url, serving(reply()) as plain:
            best = 0.0
            for peer, count in (
                ("batch-llm", 30_000), ("aiohttp", 8_000), ("openai", 1_500), ("instructor", 800), ("litellm", 400),
                ("flexllm", 1_500),
            ):  # fmt: skip
                python = environment(*PEERS[peer]) if peer in PEERS else sys.executable
                at = (plain, "-") if peer == "flexllm" else (url, authority)
                rate, cpu = measure("typed.py", peer, at[0], 100, some(count), at[1], python=python, repeat=REPEAT)
                best = best or rate
                row(peer, f"{rate:,.0f}", f"{cpu:.0f}", f"{best / rate:.1f}")
        with serving(message(), ca_file=authority) as url:
            best = 0.0
            for peer, count in (
                ("batch-llm-messages", 30_000), ("litellm-messages", 400), ("litellm-messages-rust", 400),
            ):  # fmt: skip
                python = environment(*PEERS["litellm"]) if peer.startswith("litellm") else sys.executable
                rate, cpu = measure("typed.py", peer, url, 100, some(count), authority, python=python, repeat=REPEAT)
                best = best or rate
                row(peer, f"{rate:,.0f}", f"{cpu:.0f}", f"{best / rate:.1f}")


def shared() -> None:
    """Print what it takes to send a long prefix, or an image, with every item.

    The last column is the memory that requests with the shared part take beyond those without, in terms of what has to
    be held: ``(unique + growth) / unique``, where what is unique is the shared part once, and what each request in
    flight has of its own.
    """
    print("\n## Parts that all requests share, the fixed server\n")
    print(
        "| shared | HTTP | in flight | GB/s | requests/s | client CPU, µs each | growth, MB | beyond short, MB | "
        "times what is unique |"
    )
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    cases = {
        "prompt": ("a system prompt of 400 KB", 10_000),
        "image": ("an image of 1 MB", 1_000),
        "message": ("a message of 400 KB", 2_000),
    }
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        authority = f"{folder}/ca"
        plain = stack.enter_context(serving(reply("yes")))
        encrypted = stack.enter_context(serving(reply("yes"), ca_file=authority))
        for words, http2, url, ca, flights, kinds in (
            ("1.1", "never", plain, "-", (100, 1000), list(cases)),
            ("2", "always", plain, "-", (100, 1000), list(cases)),
            ("2, TLS", "auto", encrypted, authority, (100,), ["prompt"]),
        ):
            for flight in flights:
                own = ("none", url, some(10_000), flight, http2, ca)
                *_, least = measure("shared_parts.py", *own, repeat=REPEAT)
                for kind in kinds:
                    name, items = cases[kind]
                    arguments = (kind, url, max(some(items), flight), flight, http2, ca)
                    rate, each, cpu, unique, growth = measure("shared_parts.py", *arguments, repeat=REPEAT)
                    more = max(growth - least, 0.0)
                    row(
                        name,
                        words,
                        str(flight),
                        f"{rate:.2f}",
                        f"{each:,.0f}",
                        f"{cpu:.0f}",
                        f"{growth:.1f}",
                        f"{more:.1f}",
                        f"{(unique + more) / unique:.2f}",
                    )


def embeddings() -> None:
    """Print vectors of 1,536 numbers per second, ours and the SDK's."""
    print("\n## Embeddings of 1,536 numbers, 256 per request, the fixed server\n")
    print(
        "| client | encoding | texts/s | client CPU, µs per text | times slower |\n| --- | --- | ---: | ---: | ---: |"
    )
    theirs = environment(*OPENAI, "numpy")
    for encoding in ("base64", "json"):
        with serving(vectors(256, 1536, encoding)) as url:
            best, cpu = measure("vectors.py", "batch-llm", url, some(65_536), encoding, repeat=REPEAT)
            row("batch-llm", encoding, f"{best:,.0f}", f"{cpu:.1f}", "1.0")
            rate, cpu = measure("vectors.py", "openai", url, some(8_192), encoding, python=theirs, repeat=REPEAT)
            row("openai SDK with numpy", encoding, f"{rate:,.0f}", f"{cpu:.1f}", f"{best / rate:.1f}")


def streams() -> None:
    """Print what streams cost beside plain replies."""
    print("\n## Streams of 200 chunks, the fixed server, 100 in flight\n")
    print("| dialect | plain, CPU µs | stream, CPU µs | times | stream, a chunk each 5 ms, CPU µs |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for dialect in ("chat", "responses", "anthropic", "gemini"):
        found = []
        for stream, kind, pause in (("no", JSON, 0), ("yes", EVENTS, 0), ("yes", EVENTS, 5)):
            command = [sys.executable, str(HERE / "recorded.py"), dialect, stream]
            body = subprocess.run(command, check=True, capture_output=True).stdout
            with serving(body, kind, pause) as url:
                count = some(4_000 if pause else 20_000)
                _, cpu = measure("streams.py", dialect, url, stream, count, 400 if pause else 100, repeat=REPEAT)
            found.append(cpu)
        row(dialect, f"{found[0]:.0f}", f"{found[1]:.0f}", f"{found[1] / found[0]:.1f}", f"{found[2]:.0f}")


def foreign() -> None:
    """Print short requests against the fixed server, beside a hand-written loop."""
    print("\n## A foreign server, short requests\n")
    print(
        "| client | in flight | requests/s | client CPU, µs each | times slower |\n| --- | ---: | ---: | ---: | ---: |"
    )
    loop = environment("aiohttp==3.14.5")
    with serving(reply("a short answer")) as url:
        for flight in (100, 1000):
            best = 0.0
            for peer, count, python in (
                ("batch-llm", 60_000, sys.executable),
                ("batch-llm-http2", 60_000, sys.executable),
                ("aiohttp", 10_000, loop),
            ):
                rate, cpu = measure("wire.py", peer, url, flight, some(count), python=python, repeat=REPEAT)
                best = best or rate
                row(peer, str(flight), f"{rate:,.0f}", f"{cpu:.0f}", f"{best / rate:.1f}")


SECTIONS: dict[str, Callable[[], None]] = {
    "typed": typed, "peers": peers, "shared": shared, "vectors": embeddings, "streams": streams, "foreign": foreign,
}  # fmt: skip


def main(*names: str) -> None:
    """Run these sections, or all."""
    for name in names or SECTIONS:
        SECTIONS[name]()


if __name__ == "__main__":
    main(*sys.argv[1:])
