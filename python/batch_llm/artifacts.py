"""Stores, from which runs resume, and caches of answers: files on disk.

The simple form needs none of these classes: ``process_prompts(..., store="runs/tagging.db", cache="answers.db")``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict

from ._checks import check_known, check_number
from ._core import format_of
from ._json_values import JSONValue, to_json_value
from ._secrets import quoted
from ._version import version
from .errors import ArtifactIdentityError

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._results import WorkItemResult
    from .results import BatchResult

__all__ = [
    "ArtifactIdentity",
    "ArtifactStore",
    "JsonlArtifactStore",
    "ResponseCache",
    "ResumePolicy",
    "SegmentArtifactStore",
    "SqliteArtifactStore",
    "SqliteDurability",
    "StoreOptions",
]


@dataclass(frozen=True)
class ArtifactIdentity:
    """Identifies what produces the answers. Results stored under another identity are not reused.

    Native strategies are identified by their provider, model and parameters; these fields are added. For other
    strategies, these fields replace the default identity: name and parameters.

    Args:
        provider: The provider.
        model: The model.
        prompt_version: Change it when the text around the prompts changes.
        parser_version: Change it when the parsing of answers changes.
        application_version: Change it when anything else changes.
        extra: Further JSON values.
    """

    provider: str | None = None
    model: str | None = None
    prompt_version: str | None = None
    parser_version: str | None = None
    application_version: str | None = None
    extra: Mapping[str, JSONValue] = field(default_factory=dict)

    def _parts(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value is not None and value != {}}


class ResumePolicy(str, Enum):
    """Which results of earlier runs are reused."""

    NONE = "none"
    """No results: everything is requested again, and added to the store. ``"force"`` means the same."""
    REUSE_SUCCESSES = "reuse_successes"
    """Successes. Failed items are retried."""
    REUSE_ALL = "reuse_all"
    """Failures too, except those not caused by the request: wrong keys, budgets, interrupts, ..."""

    @classmethod
    def of(cls, given: Any) -> ResumePolicy:
        """Return the policy with this name.

        Raises:
            ValueError: If there is no such policy.
        """
        try:
            return cls.NONE if given == "force" else cls(given)
        except ValueError:
            names = ", ".join(repr(policy.value) for policy in cls)
            raise ValueError(f"resume must be one of {names} or 'force' (got {given!r})") from None


class SqliteDurability(str, Enum):
    """When a result counts as written."""

    BALANCED = "balanced"
    """Nothing is lost if the process is killed; a power failure may lose the last second."""
    FULL = "full"
    """Nothing is lost in a power failure either: every group of results waits for an fsync."""


def package_version() -> str:
    """The version of this package, for files."""
    return version()


class _File:
    """How a file is opened; what the extension reads."""

    def __init__(self, path: str | os.PathLike[str], format_: str) -> None:
        self.fsync = False
        self.busy_timeout = 5.0
        self.user_metadata: str | None = None
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"path must be a string or a path object, not {type(path).__name__} ({quoted(path)})")
        self.path = os.fspath(path)
        if not self.path:
            raise ValueError("path is empty; name a file, such as 'runs/tagging.db'")
        if "://" not in self.path:
            _check_home(self.path)
            _check_folder(self.path)
        self._format = format_

    @property
    def package_version(self) -> str:
        """The version of this package."""
        return package_version()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r})"


def _check_home(path: Any) -> None:
    """Reject ``~/...``, which would create a folder with that name here."""
    name = os.fsdecode(path)
    if name.startswith(("~/", "~" + os.sep)) and not os.path.isdir("~"):
        raise ValueError(f"{name!r}: only shells replace '~'; pass os.path.expanduser({name!r})")


def _check_folder(path: Any) -> None:
    """Reject a path with more than one missing folder: most likely it is mistyped."""
    folder = os.path.dirname(os.path.abspath(path))
    above = os.path.dirname(folder)
    try:
        os.stat(above)
    except FileNotFoundError:
        raise ValueError(
            f"{os.fspath(path)!r}: there is no folder {os.fsdecode(above)!r}; check the path, or create it with "
            f"os.makedirs({os.fsdecode(folder)!r})"
        ) from None
    except OSError:
        pass  # reported when the file is opened


class StoreOptions(TypedDict, total=False):
    """The options of every store; see :class:`ArtifactStore`."""

    identity: ArtifactIdentity | str | None
    user_metadata: Mapping[str, JSONValue] | None
    include_output: bool
    include_metadata: bool
    include_prompt: bool | Literal["failures"]
    include_context: bool
    context_in_identity: bool
    encoder: Callable[[Any], Any] | None
    output_decoder: Callable[[Any], Any] | None
    types: Sequence[Any]
    context_decoder: Callable[[Any], Any] | None
    context_fingerprinter: Callable[[Any], Any] | None
    cost_calculator: Callable[[WorkItemResult[Any, Any]], float | None] | None


class ArtifactStore(_File):
    """Base class of the stores.

    Any number of runs may use a store, one after the other; some kinds also serve several at once.
    A result is stored before it is returned. A store contains outputs, tokens, cost, times, errors, the prompts of
    failed items, and fingerprints of all prompts and contexts. All prompts, and contexts, are included only on request.
    Only the owner can read the files.

    Args:
        path: The file; it is created if missing, like its folder.
        identity: What produces the answers; by default, what is known about the strategy. See
            :class:`ArtifactIdentity`.
        user_metadata: JSON values to write into a new file.
        include_output: Whether outputs are stored (True by default). Without outputs, results cannot be reused.
        include_metadata: Whether the metadata of results is stored (True by default).
        include_prompt: Which prompts are stored: those of failed items (``"failures"``, the default), all (True), or
            none (False).
        include_context: Whether contexts are stored (False by default).
        context_in_identity: Whether a result is reused only for an equal context (True by default).
        encoder: Converts values that JSON does not support, in outputs, contexts and metadata.
        output_decoder: Converts stored JSON values back to outputs. By default, models, dataclasses and similar types
            are restored if the strategy declares them: in its ``response_model``, its annotations or its code.
        types: Further classes of outputs to restore. Only these, and those that the strategy declares, are ever
            instantiated.
        context_decoder: Converts stored JSON values back to contexts, in :meth:`read_results`.
        context_fingerprinter: Returns the part of a context that belongs to its identity, as JSON values.
        cost_calculator: Returns the cost of a result; by default, it is computed from tokens and ``batch_llm.prices``.

    Raises:
        TypeError: If an argument has the wrong type, or an option is unknown; the message suggests the closest match.
        ValueError: If an argument is invalid.
    """

    _kind = ""
    _arguments: ClassVar[tuple[str, ...]] = ("path",)
    include_output: bool = True
    include_metadata: bool = True
    include_prompt: bool | Literal["failures"] = "failures"
    include_context: bool = False
    context_in_identity: bool = True
    encoder: Callable[[Any], Any] | None = None
    output_decoder: Callable[[Any], Any] | None = None
    context_decoder: Callable[[Any], Any] | None = None
    context_fingerprinter: Callable[[Any], Any] | None = None
    cost_calculator: Callable[[WorkItemResult[Any, Any]], float | None] | None = None

    def __init__(self, path: str | os.PathLike[str], **options: Unpack[StoreOptions]) -> None:
        check_known(options, (*StoreOptions.__annotations__, *self._arguments), type(self).__name__)
        super().__init__(path, self._kind)
        vars(self).update(options)
        self.identity = stated(options.get("identity"), "identity")
        self.types = _types(options.get("types", ()))
        metadata = options.get("user_metadata")
        self.user_metadata = None if metadata is None else json.dumps(to_json_value(metadata, path="user_metadata"))
        for name in (
            "encoder", "output_decoder", "context_decoder", "context_fingerprinter", "cost_calculator",
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise TypeError(f"{name} must be a function, not {type(value).__name__}")

    def iter_results(self, *, successes_only: bool = False) -> Iterator[WorkItemResult[Any, Any]]:
        """Iterate over the last result of every item, even while a run is writing to the store.

        Args:
            successes_only: Whether to skip failed items.

        Raises:
            ArtifactError: If the file cannot be read, or is not a store.
            FileNotFoundError: If there is no file.
        """
        from .inspection import inspect

        view = inspect(self.path, output_decoder=self.output_decoder, context_decoder=self.context_decoder)
        return view.results(successes_only=successes_only)

    @classmethod
    def read_results(
        cls,
        path: str | os.PathLike[str],
        *,
        successes_only: bool = False,
        output_decoder: Callable[[Any], Any] | None = None,
        context_decoder: Callable[[Any], Any] | None = None,
    ) -> BatchResult[Any, Any]:
        """Read the last result of every item as a batch; see :func:`batch_llm.inspect`.

        Raises:
            ArtifactError: If the file cannot be read, or is not a store.
            FileNotFoundError: If there is no file.
        """
        from .inspection import inspect

        view = inspect(path, output_decoder=output_decoder, context_decoder=context_decoder)
        return view.batch(successes_only=successes_only)


class JsonlArtifactStore(ArtifactStore):
    """A store with one line of JSON per result, readable with any tool. One run at a time can write to it.

    Args:
        path: See :class:`ArtifactStore`.
        fsync: Whether a result counts as written only after an fsync. Without it, nothing is lost if the process is
            killed, but a power failure may lose the last second.
        options: See :class:`ArtifactStore`.
    """

    _kind = "jsonl"
    _arguments = ("path", "fsync")

    def __init__(self, path: str | os.PathLike[str], *, fsync: bool = False, **options: Unpack[StoreOptions]) -> None:
        super().__init__(path, **options)
        self.fsync = bool(fsync)


class SqliteArtifactStore(ArtifactStore):
    """A store in an SQLite database, for any number of results, and for several processes at once.

    Args:
        path: See :class:`ArtifactStore`.
        durability: When a result counts as written.
        busy_timeout_seconds: How long to wait for another process that is writing, > 0.
        options: See :class:`ArtifactStore`.
    """

    _kind = "sqlite"
    _arguments = ("path", "durability", "busy_timeout_seconds")

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: SqliteDurability | str = SqliteDurability.BALANCED,
        busy_timeout_seconds: float = 5.0,
        **options: Unpack[StoreOptions],
    ) -> None:
        super().__init__(path, **options)
        self.fsync = SqliteDurability(durability) is SqliteDurability.FULL
        check_number("busy_timeout_seconds", busy_timeout_seconds)
        if not busy_timeout_seconds > 0:
            raise ValueError(f"busy_timeout_seconds must be > 0 (got {busy_timeout_seconds!r})")
        self.busy_timeout = float(busy_timeout_seconds)


class SegmentArtifactStore(ArtifactStore):
    """A store in a folder or bucket, which processes on any number of hosts write and read at the same time.

    Each process writes at most one file (a segment) every quarter of a second, and reads the segments of the others
    when a run starts and every few seconds.

    Args:
        path: A folder, or a URL: ``s3://bucket/prefix``, ``gs://bucket/prefix``, ``az://container/prefix``,
            ``file:///folder``. Credentials are read from the environment.
        fsync: Whether a result in a folder counts as written only after an fsync. Without it, nothing is lost if the
            process is killed, but a power failure may lose the last second.
        options: See :class:`ArtifactStore`.
    """

    _kind = "segments"
    _arguments = ("path", "fsync")

    def __init__(self, path: str | os.PathLike[str], *, fsync: bool = False, **options: Unpack[StoreOptions]) -> None:
        super().__init__(path, **options)
        self.fsync = bool(fsync)


class ResponseCache(_File):
    """A cache of answers for all runs and programs, in an SQLite file that several processes may share.

    Only complete successes are cached: no failures, refusals or truncated answers. Identical requests in one run have
    separate answers.

    Args:
        path: The file; it is created if missing.
        ttl_seconds: How long an answer is valid, > 0; None = forever.
        max_bytes: Maximum size of the answers in bytes, > 0: the least recently used ones are evicted. None =
            unlimited.
        identity: See :class:`ArtifactIdentity`.
        encoder: As for :class:`ArtifactStore`.
        output_decoder: As for :class:`ArtifactStore`.
        types: As for :class:`ArtifactStore`.
        context_in_identity: As for :class:`ArtifactStore`. If the run also has a store, the store's setting applies.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is invalid.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        ttl_seconds: float | None = None,
        max_bytes: int | None = 1_000_000_000,
        identity: ArtifactIdentity | str | None = None,
        encoder: Callable[[Any], Any] | None = None,
        output_decoder: Callable[[Any], Any] | None = None,
        types: Sequence[Any] = (),
        context_in_identity: bool = True,
    ) -> None:
        super().__init__(path, "sqlite")
        for name, value in (("ttl_seconds", ttl_seconds), ("max_bytes", max_bytes)):
            if value is not None:
                check_number(name, value)
                if not value > 0:
                    raise ValueError(f"{name} must be > 0, or None for no limit (got {value!r})")
        self.ttl_seconds = None if ttl_seconds is None else float(ttl_seconds)
        self.max_bytes = None if max_bytes is None else int(max_bytes)
        self.identity = stated(identity, "identity")
        self.encoder, self.output_decoder, self.types = encoder, output_decoder, _types(types)
        self.context_in_identity = context_in_identity
        self.context_fingerprinter: Callable[[Any], Any] | None = None


def _types(given: Any) -> tuple[Any, ...]:
    if isinstance(given, (str, type)) or not isinstance(given, Iterable):
        raise TypeError(f"types must be a list of classes, such as [Invoice] (got {quoted(given)})")
    return tuple(given)


def stated(identity: Any, name: str) -> ArtifactIdentity | None:
    """Return an identity object; a text is the version of the application.

    Raises:
        ArtifactIdentityError: If it is something else, or contains what JSON does not have.
    """
    if isinstance(identity, str):
        identity = ArtifactIdentity(application_version=identity)
    if identity is None:
        return None
    if not isinstance(identity, ArtifactIdentity):
        raise ArtifactIdentityError(f"{name} must be an ArtifactIdentity or a string, not {type(identity).__name__}")
    try:
        to_json_value(identity._parts(), path=name)
    except ValueError as error:
        raise ArtifactIdentityError(f"{name}: {error}") from error
    return identity


@dataclass(frozen=True)
class Persistence:
    """What a run stores and reuses, checked."""

    store: ArtifactStore | None
    resume: ResumePolicy
    cache: ResponseCache | None
    dedupe: bool


def persistence_of(
    store: Any = None, artifact_store: Any = None, resume: Any = None, cache: Any = None, dedupe: Any = False
) -> Persistence | None:
    """Check what was given for these arguments; None when nothing was.

    Raises:
        TypeError: If one has the wrong type.
        ValueError: If one is invalid.
    """
    if store is not None and artifact_store is not None:
        raise ValueError("store and artifact_store are the same option; give only one of them")
    if store is None and artifact_store is None and resume is not None:
        raise ValueError("resume needs a store; give store='runs/tagging.db' too")
    usual = ResumePolicy.REUSE_SUCCESSES if store is not None else ResumePolicy.NONE
    policy = usual if resume is None else ResumePolicy.of(resume)
    store = store if store is not None else artifact_store
    if not isinstance(dedupe, bool):
        raise TypeError(f"dedupe must be True or False (got {dedupe!r})")
    if store is None and cache is None and not dedupe:
        return None
    return Persistence(None if store is None else store_at(store), policy, _cache(cache), dedupe)


def store_at(given: Any, **options: Unpack[StoreOptions]) -> ArtifactStore:
    """Return the store at a path, of the kind given by its name or content; or a store unchanged.

    Raises:
        TypeError: If it is neither.
        ValueError: If the name does not show its kind.
    """
    if isinstance(given, ArtifactStore):
        return given
    if not isinstance(given, (str, os.PathLike)) or not os.fspath(given):
        raise TypeError(f"store must be a path or an artifact store, not {type(given).__name__} ({quoted(given)})")
    kind = format_of(given)
    if kind is None:
        raise ValueError(
            f"store={quoted(os.fspath(given), 300)}: unknown kind of store; use a name that ends in .db (SQLite) or "
            ".jsonl; for several hosts, a folder that ends in / or a URL such as s3://bucket/prefix"
        )
    stores = {"jsonl": JsonlArtifactStore, "sqlite": SqliteArtifactStore, "segments": SegmentArtifactStore}
    store: ArtifactStore = stores[kind](given, **options)
    return store


def _cache(given: Any) -> ResponseCache | None:
    if given is None or isinstance(given, ResponseCache):
        return given
    if not isinstance(given, (str, os.PathLike)):
        raise TypeError(f"cache must be a path or a ResponseCache, not {type(given).__name__} ({quoted(given)})")
    return ResponseCache(given)
