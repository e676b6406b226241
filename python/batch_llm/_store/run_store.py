"""What a run stores on disk, and what it need not request again: its store, its cache, its equal requests.

Items are looked up before they are accepted (:meth:`RunStore.admit`); results are handed to the store, and are
published when they are written (:meth:`RunStore.keep`, :meth:`RunStore.written`). The pipeline and ``_run.Run`` are
its users.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Literal

from .._contexts import circular_place
from .._core import Cache, Journal, Timing, fingerprint
from .._json_values import to_json_value, to_plain, with_keys_of_text
from .._logs import Repeated, log_event, logger
from .._pool_members import Pooled
from .._results import WorkItemResult
from ..artifacts import ResumePolicy
from ..errors import ArtifactError, ArtifactIOError, ResultSerializationError
from ..prices import price_of
from . import codec as _codec
from .equal_requests import EqualRequests
from .identity import identity_here, identity_of
from .known_strategies import KnownStrategy
from .outcomes import NEVER, SERIALIZATION, fail_unstored, is_cached, is_unfinished, reuse_of, unprepared
from .steps import StoredSteps, Writes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .._core import Flight
    from .._items import LLMWorkItem
    from ..artifacts import Persistence
    from ..prices import Price

    Item = LLMWorkItem[Any, Any, Any]

Result = WorkItemResult[Any, Any]
Answer = Result | Literal["waiting"] | None
"""What exists for an item: its result, or an equal request in flight, or nothing."""

_REUSE = {ResumePolicy.NONE: 3, ResumePolicy.REUSE_SUCCESSES: 2, ResumePolicy.REUSE_ALL: 1}
MOST_UNWRITTEN = 5_000
"""Results that wait for a slow store while their workers continue; with more, workers wait too."""


class RunStore:
    """A run's store and cache, open.

    Args:
        persistence: The store and cache, with their options.
        prices: The user's own prices.

    Raises:
        ArtifactError: If a file cannot be used.
    """

    def __init__(self, persistence: Persistence, prices: Mapping[str, Price] | None) -> None:
        self._store, self.dedupe, self._prices = persistence.store, persistence.dedupe, prices
        self._rules: Any = persistence.store or persistence.cache
        self._journal: Journal | None = None
        self._cache: Cache | None = None
        self._codecs = persistence.cache
        self.failure: ArtifactIOError | None = None
        """Why nothing more can be stored."""
        self._waiting: deque[tuple[int, Flight, Result]] = deque()
        self._writes = Writes()
        self._known_strategies: dict[int, KnownStrategy] = {}
        self._samples: dict[int, int] = {}
        self._equal = EqualRequests()
        self._guessed: set[str] = set()
        self._unreadable: set[str] = set()
        self._log = Repeated()
        self.context_of: Callable[[Item], Any] = _context_of
        encoder = None if self._rules is None else self._rules.encoder
        self._to_plain = to_plain if encoder is None else functools.partial(to_plain, encoder=encoder)
        if persistence.store is not None:
            self._journal = Journal(
                persistence.store.path, persistence.store._format, persistence.store, _REUSE[persistence.resume]
            )
            self._log_repairs()
        if persistence.cache is not None:
            try:
                self._cache = Cache(
                    persistence.cache.path,
                    persistence.cache,
                    persistence.cache.ttl_seconds,
                    persistence.cache.max_bytes,
                )
            except BaseException:
                self.close()
                raise

    def _log_repairs(self) -> None:
        assert self._journal is not None
        assert self._store is not None
        torn, damaged = self._journal.repairs
        if torn:
            log_event(
                logging.WARNING,
                "store_repaired",
                "%s: the last line was incomplete (%d bytes) and was removed",
                self._store.path,
                torn,
                path=str(self._store.path),
            )
        if damaged:
            log_event(
                logging.WARNING,
                "store_repaired",
                "%s: %d records are damaged and are ignored",
                self._store.path,
                damaged,
                path=str(self._store.path),
            )
        log_ignored(self._store.path, self._journal.ignored)

    @property
    def path(self) -> str | None:
        """Where the store is."""
        return None if self._store is None else str(self._store.path)

    @property
    def frees_workers(self) -> bool:
        """Whether a worker continues while its result is written: a segment is written every quarter of a second."""
        return self._store is not None and self._store._format == "segments" and len(self._waiting) < MOST_UNWRITTEN

    def begin(self, attach: Callable[[Journal], None], log: Repeated) -> None:
        """Attach to a run: ``attach`` has a journal report to it."""
        self._log = log
        if self._journal is not None:
            attach(self._journal)

    def note(self, event: str) -> None:
        """Keep an event of the run, a JSON object: what was done to it from outside. From any thread."""
        self._hand_over(lambda journal: journal.note(event), "What was done to the run")

    def note_bound_over_time(self, text: str) -> None:
        """Keep what bounded the run over time, a JSON object, in place of the one before."""
        self._hand_over(lambda journal: journal.note_bound_over_time(text), "What bounded the run over time")

    def _hand_over(self, note: Callable[[Journal], int], what: str) -> None:
        if self._journal is not None and self.failure is None:
            try:
                note(self._journal)
            except (ArtifactError, ValueError) as error:
                self._log.event(logging.WARNING, "event_not_stored", "%s is not stored: %s", what, error)

    def close(self) -> None:
        """Write everything and close the files."""
        for file in (self._journal, self._cache):
            if file is not None:
                try:
                    file.close()
                except ArtifactError as error:
                    if self.failure is None:
                        log_event(logging.WARNING, "store_failed", "%s", error)

    # Before an item is accepted

    def admit(self, index: int, item: Item) -> Answer:
        """Look an item up.

        Returns:
            Its result, if there is one (or cannot be one); ``"waiting"`` if an equal request is in flight, whose
            answer it shares; None if it must be sent.
        """
        try:
            key = self._key(item)
            result = self._known(index, item, key)
        except ArtifactIOError:
            raise
        except Exception as error:
            return unprepared(index, item, self._with_remedy(item, error))
        if not self.dedupe:
            return result
        if result is not None:
            self._equal.add_result(key, result)
            return result
        found = self._equal.join(key, index, item)
        return self._shared(found, index, item) if isinstance(found, WorkItemResult) else found

    def _with_remedy(self, item: Item, error: Exception) -> Exception:
        """Return why an item has no fingerprint, with the remedy, if its prompt or context is the cause."""
        place = circular_place(item.prompt, "prompt") or circular_place(item.context, "context")
        if place is not None:
            problem = f"{place}: a circular reference cannot identify a request. Use ids in place of objects, or a "
            made: Exception = ValueError(f"{problem}context_fingerprinter, or context_in_identity=False")
        elif isinstance(error, ResultSerializationError):
            try:
                fingerprint(item.prompt, self._to_plain)
                problem = "the context cannot identify the request"
                remedy = "an encoder, a context_fingerprinter, or context_in_identity=False"
            except ResultSerializationError:
                problem, remedy = "the prompt cannot identify the request", "an encoder"
            made = ResultSerializationError(f"{problem}: {error}. Give the store {remedy}")
        else:
            return error
        made.__cause__ = error
        return made

    def _known(self, index: int, item: Item, key: bytes) -> Result | None:
        if self._journal is not None:
            assert self._store is not None
            while (found := self._journal.look_up(key, item.item_id)) is not None:
                result = self._read(self._store, item, *found)
                if result is None:
                    continue  # an equal request may have another record
                result.submission_index, result.reused = index, "store"
                self._log_guess(item)
                return result
        if self._cache is None:
            return None
        if self.dedupe and key in self._equal:
            return None  # it is not a separate sample
        sample, body = self._cache.look_up(key)
        assert self._codecs is not None
        result = None if body is None else self._read(self._codecs, item, body, True, None)
        if result is None:
            self._samples[index] = sample
            return None
        result.submission_index, result.reused = index, "cache"
        self._log_guess(item)
        self._note(index, item, key, result)
        return result

    def _read(self, file: Any, item: Item, body: str, success: bool, category: str | None) -> Result | None:
        """Make a result of a record; None if it cannot be read, which is logged once."""
        try:
            record = _codec.read(body)
            if success and "output" not in record:  # what is written without outputs is never looked up
                raise _codec.UnreadableRecordError("it is a success without an output")
            types = (
                self._known_of(item.strategy).types(item.strategy, file.types)
                if record.get("output_type") is not None
                else {}
            )
            return _codec.result_of(item, record, success, category, file.output_decoder, types)
        except _codec.UnreadableRecordError as error:
            if file.path not in self._unreadable:
                self._unreadable.add(file.path)
                log_event(
                    logging.WARNING,
                    "record_unreadable",
                    "%s: the record of item %s cannot be read and is ignored: %s (further ones are not reported)",
                    file.path,
                    item.item_id,
                    error,
                    path=str(file.path),
                    item_id=item.item_id,
                )
            return None

    def _log_guess(self, item: Item) -> None:
        name = self._known_of(item.strategy).identity.guessed
        if name is not None and name not in self._guessed:
            self._guessed.add(name)
            log_event(
                logging.WARNING,
                "reused_by_name",
                "Results of %s are reused. It is identified by its name and parameters only: if you have changed what "
                "it does, set an identity, such as ArtifactIdentity(application_version='2')",
                name,
            )

    def _key(self, item: Item) -> bytes:
        """The fingerprint of a request."""
        parts: tuple[Any, ...] = (item.prompt, getattr(item, "sample", 0))
        context = self.context_of(item)
        if context is not None and self._rules is not None and self._rules.context_in_identity:
            make = self._rules.context_fingerprinter
            parts = (*parts, context if make is None else make(context))
        digest = self._known_of(item.strategy).identity.digest
        try:
            return fingerprint(parts, self._to_plain, digest)
        except TypeError:  # keys that are not text, somewhere: too seldom to check first
            to_plain = self._to_plain
            return fingerprint(with_keys_of_text(parts), lambda value: with_keys_of_text(to_plain(value)), digest)

    def _known_of(self, strategy: Any) -> KnownStrategy:
        known = self._known_strategies.get(id(strategy))
        if known is None:
            identity = identity_here(strategy) if self._rules is None else identity_of(strategy, self._rules.identity)
            model = getattr(strategy, "model", None)
            price = price_of(model, self._prices) if isinstance(model, str) else None
            of_members = None
            if isinstance(strategy, Pooled):
                price, of_members = strategy._price(self._prices), strategy._prices(self._prices)
            known = self._known_strategies[id(strategy)] = KnownStrategy(identity, price, of_members)
            known.lives_with(strategy, self._known_strategies)
            if self._journal is not None:
                self._journal.identify(identity.number, identity.text)
        return known

    def place(self, number: int, index: int) -> None:
        """Set the index of an item that was admitted under a temporary number."""
        if number in self._samples:
            self._samples[index] = self._samples.pop(number)
        self._equal.place(number, index)

    def steps(self, index: int, item: Item, failed: Callable[[str], None]) -> StoredSteps | None:
        """The steps of an item's conversation; None: they are not stored. ``failed``: see :class:`StoredSteps`."""
        if self._journal is None or self.failure is not None or self._store is None or not self._store.include_output:
            return None
        known = self._known_of(item.strategy)
        place = (known.number, item.item_id, index)
        key = self._key_again(item)
        return StoredSteps(self._journal, self._writes, key, place, known.price, self._to_plain, failed)

    # When an item has its result

    def keep(self, flight: Flight, result: Result) -> bool:
        """Give a result to the store; return whether it is published only once it is written.

        Raises:
            ArtifactIOError: If nothing more can be stored.
        """
        item, index = flight.item, flight.index
        if is_unfinished(result):
            return False
        if self._cache is not None:
            self._cache_answer(index, item, result)
        if self._journal is None or self.failure is not None:
            return False
        # What failed attempts have cost is there already.
        number = self._append(index, item, self._key_again(item), result, flight.usage)
        self._waiting.append((number, flight, result))
        return True

    def _key_again(self, item: Item) -> bytes:
        try:
            return self._key(item)
        except Exception:
            return bytes(16)  # its prompt or context has changed meanwhile: it cannot be looked up

    def _append(self, index: int, item: Item, key: bytes, result: Result, earlier: Any) -> int:
        try:
            return self._write(index, item, key, result, earlier, self._body(item, result))
        except ArtifactIOError:
            raise
        except Exception as error:
            fail_unstored(result, error)
            self._log.event(
                logging.ERROR,
                "item_failed",
                "%s",
                result.exception,
                item_id=result.item_id,
                error_category=SERIALIZATION,
                error_type=type(result.exception).__name__,
            )
            body = {"error": result.error, **self._prompt(item, result)}
            return self._write(index, item, key, result, earlier, body)

    def _write(self, index: int, item: Item, key: bytes, result: Result, earlier: Any, body: Any) -> int:
        assert self._journal is not None
        assert self._store is not None
        reuse = reuse_of(result, self._store.include_output)
        known = self._known_of(item.strategy)
        calculator = self._store.cost_calculator
        # What was there before has been paid for then.
        cost = None if calculator is None or result.reused is not None else calculator(result)
        cost = None if cost is None else float(cost)
        timing: Any = result._timing
        request = (key, known.number, item.item_id, index)
        outcome = (result.success, result.error_category, reuse)
        spending = (result.token_usage, earlier, None if calculator is not None else known.price_of(result), cost)
        timing = timing if isinstance(timing, Timing) else None
        return self._journal.append((1, request, outcome, spending, body, timing), self._to_plain)

    def _note(self, index: int, item: Item, key: bytes, result: Result) -> None:
        """Store a result that came from elsewhere, and has cost nothing."""
        if self._journal is not None and self.failure is None:
            with contextlib.suppress(ArtifactIOError):  # the run learns it by itself
                self._append(index, item, key, result, result.token_usage)

    def attempt_failed(self, flight: Flight, usage: Any, category: str | None) -> None:
        """Store the cost of a failed attempt."""
        if self._journal is None or self.failure is not None or not any((usage or {}).values()):
            return
        item = flight.item
        try:
            known = self._known_of(item.strategy)
            request = (self._key_again(item), known.number, item.item_id, flight.index)
            outcome, spending = (False, category, NEVER), (usage, None, known.price, None)
            self._journal.append((0, request, outcome, spending, None, None), self._to_plain)
        except ArtifactError:
            pass  # the run learns it by itself, or with the item

    def _body(self, item: Item, result: Result) -> dict[str, Any]:
        """Return a result as JSON values, without the record's other fields."""
        store = self._store
        assert store is not None
        body = _codec.record_of(result, store.include_output, store.include_metadata, store.encoder, item.strategy)
        body.update(self._prompt(item, result))
        if store.include_context:
            body["context"] = to_json_value(self.context_of(item), store.encoder, path="$.context")
        return body

    def _prompt(self, item: Item, result: Result) -> dict[str, Any]:
        """The prompt as a field of a record, if the store is to have it."""
        store = self._store
        assert store is not None
        if not store.include_prompt or (result.success and store.include_prompt is not True):
            return {}
        try:
            return {"prompt": to_json_value(item.prompt, store.encoder or _described, path="$.prompt")}
        except Exception:
            if result.success:
                raise
            return {}  # why the item failed is worth more

    def _cache_answer(self, index: int, item: Item, result: Result) -> None:
        assert self._cache is not None
        assert self._codecs is not None
        sample = self._samples.pop(index, 0)
        if not is_cached(result):
            return
        try:
            body = _codec.record_of(result, True, True, self._codecs.encoder, item.strategy)
            self._cache.keep(self._key(item), sample, body, self._to_plain)
        except Exception as error:
            logger.debug("Item %s: its answer is not cached: %s", item.item_id, error)

    # When the store has spoken

    def written(self, count: int) -> list[tuple[Flight, Result]]:
        """Return results that are stored and not yet published."""
        ready = []
        self._writes.written(count)
        while self._waiting and self._waiting[0][0] <= count:
            ready.append(self._waiting.popleft()[1:])
        return ready

    def fail(self, problem: str) -> list[tuple[Flight, Result]]:
        """Store nothing more. Returns the results that are only in memory now."""
        if self.failure is None:
            self.failure = ArtifactIOError(
                f"{problem}. The run ends; every result that was returned is stored, and a second run resumes "
                "from there"
            )
        self._writes.end()
        unwritten = [(flight, result) for _, flight, result in self._waiting]
        self._waiting.clear()
        return unwritten

    def flush(self) -> list[tuple[Flight, Result]]:
        """Wait until everything is written, and return the unpublished results."""
        if self._journal is None:
            return []
        self._journal.flush()
        return self.written(self._journal.written) + [(flight, result) for _, flight, result in self._waiting]

    def answered(self, index: int, result: Result) -> list[Result]:
        """Results of the items that have waited for this one."""
        waiting = self._equal.ended(index, None if is_unfinished(result) else result)
        return [self._shared(result, *one) for one in waiting]

    def _shared(self, result: Result, index: int, item: Item) -> Result:
        shared = copy.copy(result)
        shared.item_id, shared.context, shared.submission_index = item.item_id, item.context, index
        shared.token_usage, shared.reused = {**(result.token_usage or {})}, "duplicate"
        shared.prompt = None if result.prompt is None else item.prompt
        if not is_unfinished(result):
            self._note(index, item, self._key_again(item), shared)
        return shared

    def unanswered(self) -> list[tuple[int, Item]]:
        """Items that wait for others' results."""
        return self._equal.waiting()


def log_ignored(path: str, ignored: tuple[int, str] | None) -> None:
    """Warn about files of a folder or bucket that are not read."""
    if ignored is not None:
        log_event(
            logging.WARNING,
            "segments_ignored",
            "%s: %d files are ignored, or read only as far as they are intact; for example: %.200s",
            path,
            *ignored,
            path=path,
        )


def _context_of(item: Item) -> Any:
    return item.context


def _described(value: Any) -> Any:
    return repr(value)


__all__ = ["RunStore", "log_ignored"]
