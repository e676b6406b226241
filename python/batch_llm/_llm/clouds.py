"""What clouds need of the environment: their credentials and their addresses. Used by the table of providers.

The credentials themselves are found, fetched and renewed in the extension (``src/providers/auth``).
"""

from __future__ import annotations

import os

from .._core import cloud_url, names_entra

_BEGINNINGS = (
    "AWS_", "AZURE_", "CLOUDSDK_", "GCE_", "GCLOUD_", "GOOGLE_", "IDENTITY_", "ANTHROPIC_VERTEX_", "CLOUD_ML_",
)  # fmt: skip
_OTHERS = ("APPDATA", "HOME", "NO_GCE_CHECK", "USERPROFILE")


def variables() -> dict[str, str]:
    """Return the variables of the environment that may name credentials, regions and projects."""
    found = {}
    for name, value in os.environ.items():
        if name.startswith(_BEGINNINGS) or name in _OTHERS:
            value = value.strip()
            # Files for Docker keep quotes as a part of the value.
            if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
                value = value[1:-1].strip()
            # Bytes that are no text are no credentials.
            if value and name.isascii() and not any("\ud800" <= letter <= "\udfff" for letter in value):
                found[name] = value
    return found


def address(provider: str, model: str, origin: str | None = None) -> str:
    """Return the base URL of a cloud for a model: at its own origin, or at another.

    Raises:
        ValueError: If the environment does not name the region or the project.
    """
    return cloud_url(provider, variables(), model, origin)


def credentials(provider: str) -> dict[str, str] | None:
    """Return the variables from which a cloud's credentials are read.

    None: there are none. Of Azure that is so unless the environment names an identity, for it takes keys, too; AWS and
    Google Cloud may give credentials to the machine itself.
    """
    found = variables()
    return None if provider == "azure" and not names_entra(found) else found
