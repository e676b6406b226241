"""Print what the package and an extra of it need, without building it: ``requirements.py engines``."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import tomllib

PROJECT = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]


def needed(extra: str) -> Iterator[str]:
    """Yield the requirements of an extra, and of those that it names."""
    for requirement in PROJECT["optional-dependencies"][extra]:
        own = re.fullmatch(re.escape(PROJECT["name"]) + r"\[(.+)\]", requirement)
        if own is None:
            yield requirement
        else:
            for name in own[1].split(","):
                yield from needed(name.strip())


print("\n".join(sorted({*PROJECT["dependencies"], *needed(sys.argv[1])})))
