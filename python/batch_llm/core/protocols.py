"""Structural types of agents and their results, for annotations."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from pydantic import BaseModel

TOutput = TypeVar("TOutput", bound=BaseModel, covariant=True)


class UsageLike(Protocol):
    """Token counts of one agent run."""

    @property
    def request_tokens(self) -> int:
        """Tokens of the prompt."""
        ...

    @property
    def response_tokens(self) -> int:
        """Tokens of the answer."""
        ...

    @property
    def total_tokens(self) -> int:
        """Both together."""
        ...


class ResultLike(Protocol[TOutput]):
    """The result of an agent's run."""

    @property
    def output(self) -> TOutput:
        """The typed answer."""
        ...

    def usage(self) -> UsageLike | None:
        """Token counts, if the agent knows them."""
        ...

    def all_messages(self) -> list[Any]:
        """The conversation."""
        ...


class AgentLike(Protocol[TOutput]):
    """Anything with an async ``run(prompt)``, such as a pydantic-ai ``Agent``."""

    async def run(self, prompt: str, **kwargs: Any) -> ResultLike[TOutput]:
        """Answer one prompt."""
        ...
