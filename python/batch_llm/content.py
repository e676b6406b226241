"""Pictures, sounds and documents in prompts, for native strategies.

A prompt is a string, a list of strings and media (one message of the user), or a list of messages
``{"role": ..., "content": string or list of parts}``::

    logo = Image(Path("logo.png"))
    item = LLMWorkItem("1", strategy, ["What is in this picture?", logo])

Media are read and encoded once, when they are made: share one object between items.
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
        source: The bytes; a path; or a URL (``http``, ``https``, ``gs``, ``data``), which the provider fetches.
        media_type: The IANA media type. By default it is guessed from the name, else from the first bytes.
        name: A name that the model is told, for documents.

    Raises:
        ValueError: When the media type cannot be guessed, or is of another kind.
        OSError: When the file cannot be read.
        TypeError: When ``source`` is something else.
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
        elif isinstance(source, str) and urlsplit(source).scheme in ("http", "https", "gs", "data"):
            url = source
            media_type = media_type or _guess(urlsplit(source).path) or f"{self._kind}/*"
        elif isinstance(source, (str, os.PathLike)):
            path = Path(source)
            data = path.read_bytes()
            media_type = media_type or _guess(path.name)
            name = name or path.name
        else:
            kind = type(source).__name__  # type: ignore[unreachable] # whoever does not check types gets here
            raise TypeError(f"{type(self).__name__} takes bytes, a path or a URL, not {kind}")
        media_type = media_type or _sniff(data or b"")
        if media_type is None:
            raise ValueError(f"{type(self).__name__}: the media type cannot be guessed; pass media_type=...")
        if data is not None and not media_type.startswith(self._prefixes):
            raise ValueError(
                f"{type(self).__name__}: {media_type} is no {self._kind}; pass media_type=... if it is one"
            )
        self.media_type = media_type
        return Media(self._kind, media_type, data=data, url=url, name=name, detail=detail)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.media_type}, {self._media.size} bytes in a request)"


class Image(_Medium):
    """A picture.

    Args:
        source: The bytes, a path, or a URL.
        media_type: ``"image/png"`` and the like; by default guessed.
        detail: OpenAI's ``"low"``, ``"high"`` or ``"auto"``.
    """

    _kind = "image"
    _prefixes = ("image/",)

    def __init__(
        self, source: bytes | str | os.PathLike[str], *, media_type: str | None = None, detail: str | None = None
    ) -> None:
        self._media = self._make(source, media_type, None, detail)


class Audio(_Medium):
    """A sound."""

    _kind = "audio"
    _prefixes = ("audio/", "video/")


class File(_Medium):
    """A document: a PDF, a text."""

    _kind = "file"


def _guess(name: str) -> str | None:
    return mimetypes.guess_type(name)[0]


_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
)


def _sniff(data: bytes) -> str | None:
    """Tell the media type by the first bytes."""
    if data[:4] == b"RIFF":
        return {b"WEBP": "image/webp", b"WAVE": "audio/wav"}.get(data[8:12])
    return next((kind for signature, kind in _SIGNATURES if data.startswith(signature)), None)
