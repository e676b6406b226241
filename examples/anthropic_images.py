"""Describe images with Claude, as typed output.

export ANTHROPIC_API_KEY=sk-ant-...
python examples/anthropic_images.py photo.jpg chart.png                (--simulate: no key, no cost)
"""

from __future__ import annotations

import os
import struct
import sys
import zlib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from batch_llm import Image, llm, run
from batch_llm.testing import SimulatedProvider


class Picture(BaseModel):
    """The description of an image."""

    kind: Literal["photo", "drawing", "chart", "text", "other"]
    caption: str
    colours: list[str]


def square(red: int, green: int, blue: int) -> bytes:
    """Return a PNG of one colour, to run without image files."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    lines = (b"\0" + bytes((red, green, blue)) * 8) * 8
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def main(paths: list[str]) -> None:
    """Describe all images."""
    pictures: dict[str, Path | bytes] = {path: Path(path) for path in paths}
    if not pictures:
        pictures = {"red": square(220, 30, 30), "blue": square(30, 30, 220)}
    strategy = llm("anthropic:claude-haiku-4-5", response_model=Picture, max_tokens=400)
    prompts = [(name, ["What does this picture show?", Image(picture)]) for name, picture in pictures.items()]
    for result in run(strategy, prompts, preserve_order=True):
        print(f"{result.item_id}: {result.output if result.success else result.error}")


if __name__ == "__main__":
    given = [argument for argument in sys.argv[1:] if argument != "--simulate"]
    if "--simulate" in sys.argv:
        with SimulatedProvider(latency=0.02) as provider:
            os.environ.update(provider.environment)
            main(given)
    elif any(os.environ.get(name) for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL")):
        main(given)
    else:
        sys.exit(
            "ANTHROPIC_API_KEY is not set. Get a key from Anthropic: export ANTHROPIC_API_KEY=sk-... (or --simulate)"
        )
