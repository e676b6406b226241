"""Images, audio and documents in prompts, for native strategies.

A prompt is a string, a list of strings and media (one message of the user), or a list of messages
``{"role": ..., "content": string or list of parts}``::

    logo = Image(Path("logo.png"))
    item = LLMWorkItem("1", strategy, ["What is in this picture?", logo])

Media are read and encoded once, when they are created, so share one object between items.
"""

from __future__ import annotations

import mimetypes
import os
from pathlib import Path
from urllib.parse import urlsplit

from ._core import Media

__all__ = ["Audio", "File", "Image"]


class _Medium:
    """Bytes, the file at a path, or a URL.

    Args:
        source: The bytes; a path; a ``data:`` URL, which is its bytes; or another URL (``http``, ``https``, ``gs``),
            which the provider fetches.
        media_type: The IANA media type. By default it is guessed from the name, else from the first bytes.
        name: A name for documents, which OpenAI and Anthropic show to the model.

    Raises:
        ValueError: If it has no bytes, or the media type cannot be guessed, or is of another kind.
        OSError: If the file cannot be read.
        TypeError: If ``source`` is something else.
    """

    _kind = ""
    _prefixes: tuple[str, ...] = ("",)

    def __init__(
        self, source: bytes | str | os.PathLike[str], *, media_type: str | None = None, name: str | None = None
    ) -> None:
        self._media = self._make(source, media_type, name, None)

    def _make(
        self, source: bytes | str | os.PathLike[str], media_type: str | None, name: str | None, detail: str | None
    ) -> Media:
        data: bytes | None = None
        url: str | None = None
        if isinstance(source, (bytes, bytearray, memoryview)):
            data = bytes(source)
        elif isinstance(source, str) and urlsplit(source.strip()).scheme in ("http", "https", "gs", "data"):
            url = source
        elif isinstance(source, (str, os.PathLike)):
            path = Path(source)
            data = path.read_bytes()
            media_type = media_type or mimetypes.guess_type(path.name)[0]
            name = name or path.name
        else:
            kind = type(source).__name__  # type: ignore[unreachable] # reached without type checks
            raise TypeError(f"{type(self).__name__} takes bytes, a path or a URL, not {kind}")
        if data == b"":
            raise ValueError(f"{type(self).__name__}: the source is empty")
        try:
            media = Media(self._kind, media_type, data=data, url=url, name=name, detail=detail)
        except ValueError as error:
            raise ValueError(f"{type(self).__name__}: {error}") from None
        if media.travels and not media.media_type.startswith(self._prefixes):
            raise ValueError(
                f"{type(self).__name__}: the media type {media.media_type} is not of type {self._kind}; "
                "pass media_type=... if that is wrong"
            )
        self.media_type = media.media_type or f"{self._kind}/*"
        return media

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.media_type}, {self._media.size} bytes in a request)"


class Image(_Medium):
    """An image.

    Args:
        source: The bytes, a path, or a URL.
        media_type: The media type, such as ``"image/png"``; guessed by default.
        detail: OpenAI's ``"low"``, ``"high"`` or ``"auto"``; other providers support only ``"auto"``.
    """

    _kind = "image"
    _prefixes = ("image/",)

    def __init__(
        self, source: bytes | str | os.PathLike[str], *, media_type: str | None = None, detail: str | None = None
    ) -> None:
        self._media = self._make(source, media_type, None, detail)


class Audio(_Medium):
    """An audio clip."""

    _kind = "audio"
    _prefixes = ("audio/", "video/")


class File(_Medium):
    """A document, such as a PDF or a text file."""

    _kind = "file"
