"""What benchmarks share: environments of peers, repeated measurements, a provider in a process of its own."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
CACHE = HERE.parent / ".cache" / "bench"
OLD = {"async-batch-llm 0.5.0": "async-batch-llm==0.5.0", "async-batch-llm 0.28.0": "async-batch-llm==0.28.0"}
WIRE = {"aiohttp": "aiohttp==3.14.5", "openai": "openai==3.57.0", "litellm": "litellm==1.110.2"}


def environment(*requirements: str) -> str:
    """Make a virtual environment with these packages; return its interpreter."""
    home = CACHE / "+".join(requirements).replace("==", "-")
    python = home / "bin" / "python"
    if not (home / ".made").exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], check=True)
        (home / ".made").touch()
    return str(python)


def measure(script: str, *arguments: object, python: str | None = sys.executable, repeat: int = 3) -> list[float]:
    """Run a script (or, without ``python``, a program) some times; return the median of each number that it prints."""
    runs = []
    for _ in range(repeat):
        command = [python, str(HERE / script)] if python else [script]
        command += map(str, arguments)
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        runs.append([float(number) for number in output.split()])
    return [statistics.median(column) for column in zip(*runs, strict=True)]


@contextlib.contextmanager
def provider(latency: float = 0.0) -> Iterator[tuple[str, list[float]]]:
    """Serve in a process of its own; yields the URL, and a list that gets the CPU us per request at the end."""
    command = [sys.executable, str(HERE / "provider.py"), str(latency)]
    cost: list[float] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield process.stdout.readline().strip(), cost
        process.stdin.close()
        cost.append(float(process.stdout.read()))


def example(name: str) -> str:
    """Build a program in Rust (``benchmarks/NAME.rs``) for release; return its path."""
    flags = ["--quiet", "--release", "--no-default-features", "--example", name]
    subprocess.run(["cargo", "build", *flags], check=True, cwd=HERE.parent)
    target = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target"))
    return str(target / "release" / "examples" / name)
