"""What looks like a secret: by its name, by its shape, or because the environment or a strategy has it.

Used wherever text is shown or stored. Secrets of native strategies are masked in the extension
(``src/providers/redact.rs``), those in other strategies by ``_held_secrets``.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ._core import is_secret_name as _is_secret_name

REDACTED = "[REDACTED]"

_DEPTH = 32
_LONGEST = 100_000
"""Longer texts are looked through up to here, characters."""

is_credential = functools.lru_cache(maxsize=4096)(functools.partial(_is_secret_name, only=True))
"""Whether what has this name is a credential and nothing else."""
may_be_secret = functools.lru_cache(maxsize=4096)(functools.partial(_is_secret_name, only=False))
"""Whether what has this name may be a secret: of headers and the like, where a mistake costs nothing."""

_SHAPES = re.compile(
    r"""
      -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----.*?(?:-----END\ [A-Z ]*PRIVATE\ KEY-----|\Z)
    | \beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?                             # JSON web tokens
    | \b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{16}\b                            # Amazon
    | \bAIza[\w-]{30,} | \bya29\.[\w.-]{16,} | \bGOCSPX-[\w-]{16,}       # Google
    | \b(?:sk|rk|pk)[-_](?=[\w-]*\d)[\w-]{16,}                           # OpenAI, Anthropic, DeepSeek, Stripe, ...
    | \b(?:gsk_|xai-|pplx-|hf_|r8_|nvapi-|tgp_v1_|fw_|csk-|dapi|co-)(?=[\w-]*\d)[\w-]{16,}
    | \bgh[pousr]_\w{20,} | \bgithub_pat_\w{20,} | \bglpat-[\w-]{16,}
    | \bxox[abeoprs]-[\w-]{10,} | \bxapp-[\w-]{16,}                     # Slack
    | \bnpm_\w{30,} | \bpypi-[\w-]{50,} | \bdckr_pat_[\w-]{20,}         # registries of packages
    | \bSG\.[\w-]{16,}\.[\w-]{16,}                                      # SendGrid
    | \bdop_v1_\w{40,} | \bshp(?:at|ca|pa|ss)_\w{24,} | \blin_api_\w{30,} | \bglsa_\w{30,}
    """,
    re.VERBOSE | re.DOTALL,
)
_SCHEME = re.compile(r"\b(bearer|basic)(\s+)(?=[^\s'\",;<>]*[\d=])([^\s'\",;<>]{8,})", re.IGNORECASE)
_USER = re.compile(r"(?<=://)([^\s/?#@'\"<>]*):([^\s/?#'\"<>]+)@")
_QUERY = re.compile(r"([?&;])([\w.-]{1,64})=([^\s&#'\"<>;]{4,})")
_NAMED = re.compile(
    r"""(?<![\w-])((?:[\w-]{0,40}[_-])?(?:api|access|auth|client|secret|session|private)?"""
    r"""(?:key|token|secret|authorization|password|passwd|credentials?|cookie))"""
    r"""(['"]?\s*[:=]\s*['"]?)(?=[^\s'",;}&\[]*\d)(?=[^\s'",;}&\[]*[A-Za-z])([^\s'",;}&\[]{8,})""",
    re.IGNORECASE,
)
_AUTHORIZATION = re.compile(
    r"""(\b(?:proxy-)?authorization['"]?\s*[:=]\s*['"]?)([A-Za-z][\w-]*\s+)?(?=[^\s'",;}\]]*\d|[^\s'",;}\]]{20})"""
    r"""([^\s'",;}\]]{6,})""",
    re.IGNORECASE,
)
_COOKIES = re.compile(r"""(\b(?:set-)?cookie['"]?\s*[:=]\s*['"]?)(?=[\w.-]{1,64}=)([^'"\r\n]+)""", re.IGNORECASE)
_WEBHOOK = re.compile(
    r"(\bhooks\.slack\.com/(?:services|workflows|triggers)/|\bdiscord(?:app)?\.com/api/webhooks/"
    r"|\.webhook\.office\.com/webhookb2/)([\w./@%-]+)",
    re.IGNORECASE,
)
_HINTS = re.compile(
    r"://|[=:?]|npm_|pypi-|dckr_|SG\.|dop_v1|shp[acps]|lin_api|glsa_|xapp-|hooks\.|discord|webhook|eyJ|A(?:KIA|SIA|ROA|IDA|Iza)|ya29|GOCSPX|[srp]k[-_]|gsk_|xai-|pplx-|hf_|r8_|nvapi|tgp_|fw_|csk-|dapi|co-"
    r"|gh[pousr]_|github_|glpat|xox|bearer|basic|BEGIN",
    re.IGNORECASE,
)


def mask(text: str, instead: str = REDACTED) -> str:
    """Return a text without what looks like a secret, and without the secrets of the environment."""
    if len(text) > _LONGEST:
        return mask(text[:_LONGEST], instead) + text[_LONGEST:]
    if _held is not None:
        text = _held.sub(instead, text)
    return _mask_known(text, instead)


def quoted(value: Any, most: int = 80) -> str:
    """Return a value as an error shows it: its repr, truncated, without secrets, which end up in wrong arguments."""
    try:
        return mask(repr(public(value)))[:most]
    except Exception:
        return f"<{type(value).__name__}>"


_held: re.Pattern[str] | None = None


def hold(pattern: re.Pattern[str] | None) -> None:
    """Mask what this pattern finds in every text from now on."""
    global _held
    _held = pattern


def _mask_known(text: str, instead: str = REDACTED) -> str:
    """Do the same without secrets in strategies: a failure must not change the identity of a request."""
    for value in _of_environment():
        if value in text:
            text = text.replace(value, instead)
    if _HINTS.search(text) is None:
        return text
    text = _SHAPES.sub(instead, text)
    text = _AUTHORIZATION.sub(rf"\1\2{instead}", text)
    text = _COOKIES.sub(rf"\1{instead}", text)
    text = _WEBHOOK.sub(rf"\1{instead}", text)
    text = _SCHEME.sub(rf"\1\2{instead}", text)
    text = _USER.sub(rf"\1:{instead}@", text)
    text = _QUERY.sub(lambda found: f"{found[1]}{found[2]}={instead}" if _is_query(found) else found[0], text)
    return _NAMED.sub(rf"\1\2{instead}", text)


def _is_query(found: re.Match[str]) -> bool:
    name = found[2].lower()
    return name in ("sig", "code") or may_be_secret(name)


def parts_of(text: str) -> Iterator[str]:
    """The secrets within a text, such as an address or a header, by their shape."""
    if _HINTS.search(text) is None:
        return
    yield from (found[0] for found in _SHAPES.finditer(text))
    for pattern, group in ((_AUTHORIZATION, 3), (_COOKIES, 2), (_WEBHOOK, 2), (_SCHEME, 3), (_USER, 2), (_NAMED, 3)):
        yield from (found[group] for found in pattern.finditer(text))
    yield from (found[3] for found in _QUERY.finditer(text) if _is_query(found))


def _of_environment() -> list[str]:
    """The values of the environment's variables that are called as credentials are; the longest first."""
    found = {value.strip() for name, value in os.environ.items() if is_credential(name)}
    return sorted((value for value in found if len(value) >= 16 and is_opaque(value)), key=len, reverse=True)


def is_opaque(text: str) -> bool:
    """Whether a text is neither a word nor a sentence."""
    return (
        len(text) >= 8
        and not any(letter.isspace() for letter in text)
        and any(letter.isdigit() for letter in text)
        and any(letter.isalpha() for letter in text)
    )


_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_SECRET_WORDS = frozenset({
    "key", "keys", "token", "secret", "secrets", "auth", "password", "passwd", "passphrase", "pwd", "credential",
    "credentials", "cookie", "cookies", "session", "signature", "sig", "bearer", "jwt",
})  # fmt: skip


_WHOLE = re.compile(r"(?:cookies?|cookie_?jar|webhooks?(?:_?ur[il]s?)?)$", re.IGNORECASE)
"""Names of values that are secret whatever they look like, if they are or contain texts."""
_PASSWORDS = re.compile(r"pass(?:w|phrase)|pwd", re.IGNORECASE)


def is_named_secret(name: str) -> bool:
    """Whether what has this name, or lies below it, is a secret."""
    return is_credential(name) or _WHOLE.search(name) is not None


def is_password(name: str) -> bool:
    """Whether what has this name may be any word."""
    return _PASSWORDS.search(name) is not None


def is_pair(name: str, value: Any) -> bool:
    """Whether a value is a user and a password, as HTTP clients take them."""
    return (
        "auth" in {word.lower() for word in _WORDS.findall(name)}
        and isinstance(value, (list, tuple))
        and len(value) == 2
        and all(isinstance(part, str) for part in value)
    )


def is_secret_field(name: str, value: Any) -> bool:
    """Whether a field contains a credential: by its name, or by its name and value."""
    if is_credential(name) or is_pair(name, value):
        return True
    if _WHOLE.search(name) is not None:
        return isinstance(value, (str, bytes, Mapping, list, tuple)) or hasattr(value, "get_dict")
    if not may_be_secret(name) and not {"pwd", "jwt", "bearer", "sig"} & {one.lower() for one in _WORDS.findall(name)}:
        return False
    words = {word.lower() for word in _WORDS.findall(name)}
    values = value if isinstance(value, (list, tuple, set, frozenset)) else [value]
    return bool(words & _SECRET_WORDS) and any(isinstance(one, (str, bytes)) and _opaque(one) for one in values)


def _opaque(value: str | bytes) -> bool:
    return is_opaque(value.decode("latin-1") if isinstance(value, bytes) else value)


def public(value: Any) -> Any:
    """Return a value without its credentials, however deep: what makes two requests the same does not have them.

    Fields with a credential are left out, secrets in texts are replaced. A value without any is returned unchanged.
    """
    return _public(value, {}, 0)


def _public(value: Any, seen: dict[int, Any], depth: int) -> Any:
    if isinstance(value, str):
        masked = _mask_known(value[:_LONGEST]) + value[_LONGEST:]
        return value if masked == value else masked
    if value is None or isinstance(value, (bool, int, float)) or depth > _DEPTH or id(value) in seen:
        return value
    seen[id(value)] = value  # referenced, so that its id stays its own
    if hasattr(value, "get_secret_value"):
        return None
    if isinstance(value, Mapping):
        return _public_fields(value, seen, depth)
    if isinstance(value, (list, tuple)) and not hasattr(value, "_asdict"):
        parts = [_public(part, seen, depth + 1) for part in value]
        return parts if any(new is not old for new, old in zip(parts, value, strict=True)) else value
    fields = fields_of(value)
    if fields is None:
        return value
    kept = _public_fields(fields, seen, depth)
    return value if kept is fields else kept


def _public_fields(fields: Mapping[Any, Any], seen: dict[int, Any], depth: int) -> Mapping[Any, Any]:
    kept = {
        name: _public(part, seen, depth + 1)
        for name, part in fields.items()
        if not (isinstance(name, str) and is_secret_field(name, part)) and not hasattr(part, "get_secret_value")
    }
    is_same = len(kept) == len(fields) and all(kept[name] is part for name, part in fields.items())
    return fields if is_same else kept


def fields_of(value: Any) -> dict[str, Any] | None:
    """The fields of an object that is a record of values."""
    if isinstance(value, type):
        return None
    if dataclasses.is_dataclass(value):
        return {one.name: getattr(value, one.name, None) for one in dataclasses.fields(value) if one.name[0] != "_"}
    if hasattr(type(value), "model_fields") and callable(getattr(value, "model_dump", None)):
        try:
            return dict(value.model_dump(mode="json"))
        except Exception:
            return None  # perhaps an agent, whose fields are not data
    as_dict: Any = getattr(value, "_asdict", None) if isinstance(value, tuple) else None
    return None if as_dict is None else dict(as_dict())
