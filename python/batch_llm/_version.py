"""The version of this package."""

from __future__ import annotations


def version() -> str:
    """Return the version that is installed."""
    from importlib import metadata

    try:
        return metadata.version("batch-llm")
    except metadata.PackageNotFoundError:
        return "0.0.0+dev"
