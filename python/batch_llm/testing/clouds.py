"""Clouds of a simulated provider: the credentials that they give and check. Used by ``simulated``."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

CloudSource = Literal[
    "aws", "aws_machine", "aws_container",
    "google_machine",
    "azure", "azure_machine",
]  # fmt: skip
"""Who has credentials: a person or program with keys, or a machine that its cloud gives them to."""

ACCESS_KEY, SECRET_KEY = "AKIASIMULATEDSIMULAT", "simulated/secret+key/of+nobody0000000000"
"""The fixed keys of the simulated AWS; those of ``src/simulator/clouds/mod.rs``."""


@dataclass(frozen=True)
class SimulatedClouds:
    """How the clouds of a :class:`SimulatedProvider` behave.

    Bedrock accepts signatures (version 4) with keys that the simulated AWS knows or has issued; Vertex AI and Azure
    accept tokens that they have issued. Expired and unknown ones are rejected in the cloud's own words.

    Args:
        token_life: How long issued tokens and session keys are valid, seconds.
        clock_ahead: How many seconds the clouds' clock is ahead of this machine's: signatures are valid for five
            minutes by their clock, which error replies tell in ``Date``.
        busy: How many requests for credentials get a 429 before the first succeeds.

    Raises:
        ValueError: If ``token_life`` or ``busy`` is invalid.
    """

    token_life: float = 3600.0
    clock_ahead: int = 0
    busy: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.token_life < math.inf:
            raise ValueError(f"token_life must be a number of seconds > 0 (got {self.token_life!r})")
        if self.busy < 0:
            raise ValueError(f"busy must be >= 0 (got {self.busy!r})")

    @property
    def _settings(self) -> tuple[float, int, int]:
        return self.token_life, self.clock_ahead, self.busy


@dataclass(frozen=True)
class CloudStats:
    """What the clouds of a simulated provider have issued and checked.

    Args:
        issued: Tokens and session keys issued, by who requested them, such as ``"google_machine"``.
        refused: Requests for credentials that were turned away.
        admitted: Requests with valid credentials.
        rejected: Requests without, by the reason: ``"missing"``, ``"unknown"``, ``"expired"``, ``"skewed"`` or
            ``"signature"``.
    """

    issued: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    admitted: int = 0
    rejected: dict[str, int] = field(default_factory=dict)


def settings_of(given: Any) -> tuple[float, int, int] | None:
    """Return what the extension needs of ``clouds=``.

    Raises:
        TypeError: If it is neither a flag nor a :class:`SimulatedClouds`.
    """
    if not isinstance(given, (bool, SimulatedClouds)):
        raise TypeError(f"clouds must be True, False or a SimulatedClouds, not {type(given).__name__}")
    if given is False:
        return None
    return (SimulatedClouds() if given is True else given)._settings


def stats_of(counts: dict[str, Any] | None) -> CloudStats | None:
    """Return the statistics that the extension has counted."""
    return None if counts is None else CloudStats(**counts)


def variables(source: str, url: str) -> dict[str, str]:
    """Return the environment variables of who has credentials, for a provider at ``url``.

    Raises:
        ValueError: If there is no such source.
    """
    bedrock = {
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": url,
        "AWS_ENDPOINT_URL_STS": f"{url}/aws/sts",
    }
    entra = {"AZURE_OPENAI_ENDPOINT": url, "AZURE_CLIENT_ID": "simulated-client"}
    known = {
        "aws": {**bedrock, "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY},
        "aws_machine": {**bedrock, "AWS_EC2_METADATA_SERVICE_ENDPOINT": url},
        "aws_container": {**bedrock, "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{url}/aws/container"},
        "google_machine": {
            "GOOGLE_CLOUD_PROJECT": "simulated",
            "GOOGLE_VERTEX_BASE_URL": url,
            "GCE_METADATA_HOST": url.partition("://")[2],
        },
        "azure": {
            **entra,
            "AZURE_TENANT_ID": "simulated-tenant",
            "AZURE_CLIENT_SECRET": "simulated-client-secret-0",
            "AZURE_AUTHORITY_HOST": url,
        },
        "azure_machine": {
            **entra,
            "AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredential",
            "AZURE_POD_IDENTITY_AUTHORITY_HOST": url,
        },
    }
    if source not in known:
        raise ValueError(f"there are no simulated credentials of {source!r:.80} (known: {', '.join(known)})")
    return known[source]
