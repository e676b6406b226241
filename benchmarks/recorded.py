"""Record a reply of the simulated provider: ``python recorded.py DIALECT STREAM``; prints its body.

The answer is a text of 200 words, which a stream sends in about 200 chunks, as models do.
"""

from __future__ import annotations

import sys
import urllib.request
from typing import Any

from batch_llm.testing import SimulatedProvider

ANSWER = " ".join(f"w{number % 90:02d}" for number in range(200))


def request(dialect: str, url: str, stream: bool) -> tuple[str, dict[str, Any]]:
    root = url.removesuffix("/v1")
    said = [{"role": "user", "content": "Say it"}]
    if dialect == "anthropic":
        return f"{root}/v1/messages", {"model": "m", "max_tokens": 9999, "messages": said, "stream": stream}
    if dialect == "gemini":
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return f"{root}/v1beta/models/m:{method}", {"contents": [{"role": "user", "parts": [{"text": "Say it"}]}]}
    if dialect == "responses":
        return f"{url}/responses", {"model": "m", "input": "Say it", "stream": stream}
    more = {"stream_options": {"include_usage": True}} if stream else {}
    return f"{url}/chat/completions", {"model": "m", "messages": said, "stream": stream, **more}


def main(dialect: str, stream: bool) -> None:
    import json

    with SimulatedProvider(replies=[ANSWER]) as provider:
        url, body = request(dialect, provider.base_url, stream)
        asked = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
        with urllib.request.urlopen(asked) as reply:
            sys.stdout.buffer.write(reply.read())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] == "yes")
