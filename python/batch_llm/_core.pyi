"""The Rust extension. Private: nothing here is stable; its users are the modules with a leading underscore.

The file is long because the extension is one module, and stubtest compares one module with one stub. It goes from runs
and attempts over strategies and the simulator to stores and batches; at its end is what Rust calls in Python.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias, final

__all__ = [
    "Address",
    "BatchLane",
    "Board",
    "Cache",
    "EndingCoroutine",
    "EndsAtCaller",
    "Flight",
    "Journal",
    "JournalView",
    "LimitServerHandle",
    "LimitTable",
    "Media",
    "Messages",
    "NativeClient",
    "NativePool",
    "PlainAttempts",
    "PoolPlace",
    "PoolTrial",
    "RunHandle",
    "Runner",
    "SchemaCheck",
    "Scope",
    "Shelf",
    "SimulatorHandle",
    "Timing",
    "TokenListener",
    "after_fork_in_child",
    "after_fork_in_parent",
    "batches_of",
    "before_exit",
    "before_fork",
    "classify_error",
    "cloud_url",
    "example",
    "fingerprint",
    "format_of",
    "is_cheaper_live",
    "is_secret_name",
    "leave_behind",
    "names_entra",
    "plan_batches",
    "providers",
    "sums",
]

class _Settings(Protocol):
    max_workers: int
    max_queue_size: int
    attempt_timeout: float | None
    abandon_after: float
    max_attempts: int
    max_rate_limit_retries: int
    initial_wait: float
    max_wait: float
    exponential_base: float
    jitter: bool
    @property
    def limits(self) -> Sequence[tuple[str, float, float]]: ...
    burst: float | None
    adaptive: tuple[bool, bool]
    ramp: tuple[int, int, float] | None
    item_timeout: float | None
    run_timeout: float | None
    cancel_on_stop: bool
    max_tokens: float | None
    max_cost: float | None
    outage_patience: float | None
    outage_ends_run: bool

class _Fault(Protocol):
    @property
    def kind(self) -> str: ...
    @property
    def every(self) -> int: ...
    @property
    def on(self) -> Sequence[int]: ...
    @property
    def between(self) -> tuple[int, int] | None: ...
    @property
    def retry_after(self) -> float | None: ...

class _BatchFault(Protocol):
    @property
    def kind(self) -> str: ...
    @property
    def every(self) -> int: ...
    @property
    def on(self) -> Sequence[int]: ...
    @property
    def lines(self) -> int: ...

class _Batches(Protocol):
    @property
    def delay(self) -> float: ...
    @property
    def distribution(self) -> str: ...
    @property
    def faults(self) -> Sequence[_BatchFault]: ...
    @property
    def queue_tokens(self) -> int | None: ...
    @property
    def azure_at_once(self) -> bool: ...
    @property
    def max_open(self) -> int | None: ...
    @property
    def list_lag(self) -> float: ...
    @property
    def time_scale(self) -> float: ...
    @property
    def poll_interval(self) -> float | None: ...
    @property
    def max_lines(self) -> int | None: ...
    @property
    def max_bytes(self) -> int | None: ...

class _Latency(Protocol):
    @property
    def fixed(self) -> float: ...
    @property
    def spread(self) -> float: ...
    @property
    def distribution(self) -> str: ...
    @property
    def per_token(self) -> float: ...

# Requests, input and output tokens expected, most input and most output tokens (None: unknown), kind of the item.
_Estimate: TypeAlias = tuple[float, float, float | None, float | None, float | None, int]

class _Behaviour(Protocol):
    @property
    def latency(self) -> _Latency: ...
    @property
    def faults(self) -> Sequence[_Fault]: ...
    @property
    def replies(self) -> Sequence[str]: ...
    @property
    def api_key(self) -> str | None: ...
    @property
    def limits(self) -> tuple[float | None, float | None, float]: ...
    @property
    def seed(self) -> int: ...
    @property
    def counts_questions(self) -> bool: ...
    @property
    def tls(self) -> bool: ...
    @property
    def prompt_caches(self) -> tuple[float, float, float] | None: ...
    @property
    def batches(self) -> _Batches: ...
    @property
    def clouds(self) -> tuple[float, int, int] | None: ...
    @property
    def queued(self) -> int | None: ...

def leave_behind(loop: object) -> None:
    """Keep an event loop of the parent process for ever, in a forked child."""

def before_fork() -> None:
    """Keep SQLite still. Registered with ``os.register_at_fork``, as its companions are."""

def after_fork_in_parent() -> None:
    """Let SQLite continue."""

def after_fork_in_child() -> None:
    """Invalidate all objects of the parent process. Registered with ``os.register_at_fork``."""

def before_exit() -> None:
    """End what the runtime's threads might still want from the interpreter. Registered with ``atexit``."""

def sums(results: list[Any]) -> tuple[int, int, int, int] | None:
    """Return how many results are successes, and their tokens (input, output, cached); None if a count is odd."""

@final
class RunHandle:
    """One run of the engine, as the event loop's thread sees it. Twin of ``_run.Run``."""

    def __new__(cls, settings: _Settings, descriptor: bool) -> RunHandle: ...
    def fileno(self) -> int | None:
        """Return the descriptor that is readable when there are messages; None: use :meth:`wait`."""

    def wait(self, longest: float) -> bool:
        """Block a helper thread until there are messages, at most ``longest`` seconds."""

    def ring(self) -> None:
        """Wake the waiting thread."""

    def rest(self) -> None:
        """Report that no message is left; poll once more afterwards."""

    def hush(self) -> None:
        """Say that no message is left, and that they are looked for again before long, so that none has to wake."""

    def take(self, limit: int) -> list[tuple[int, int, int, Any]]:
        """Take up to ``limit`` messages ``(code, item, attempt, value)``; see ``_run.messages``."""

    def queue(self, scope: Scope) -> int:
        """Return the number of the queue for items that share this scope; 0 is that of the run's own."""

    def unbounded_queue(self) -> int:
        """Return the number of a new queue for attempts that nothing bounds."""

    def transfer(
        self,
        item: int,
        queue: int,
        estimate: _Estimate | None,
    ) -> tuple[str, str] | None:
        """Send an item in another queue, whose attempt had no effect. Like :meth:`next_round`."""

    def requeue(self, item: int, priority: int) -> None:
        """Start a deferred item anew, which was not answered."""

    def share(self, queue: int, board: Board, scope: str, holder: str, is_known: bool) -> None:
        """Share a queue's limits with other processes that use the same board and scope.

        Args:
            queue: Its number.
            board: The board.
            scope: The same words in all processes.
            holder: A unique name of this process, or of its run.
            is_known: Whether this process has used the board before: then it may be away, and is waited for.

        Raises:
            OSError: If the board cannot be used, and is not known.
        """

    def share_member(self, member: Scope, board: Board, scope: str, holder: str, is_known: bool) -> None:
        """Share the limits of a pool's member with other processes; as :meth:`share`."""

    def reprice(self, item: int, price: tuple[float, float, float, float, float, float]) -> None:
        """Say what the tokens of an item's present attempt cost, where that is not what its kind's do."""

    def kind(self, output: float, price: tuple[float, float, float, float, float, float] | None) -> int:
        """Return the number of a new kind of items: the answer to expect before any came, tokens; prices per token."""

    def accept(self, groups: Sequence[tuple[int, int, int]]) -> None:
        """Accept items as ``(queue, priority, count)``, whatever the bound."""

    def skip(self, count: int) -> None:
        """Accept items whose results come from elsewhere."""

    def record_reused(self, succeeded: int, failed: int) -> None:
        """Count results of items that were skipped."""

    def offer(self, queue: int, priority: int, bounded: bool) -> int | None:
        """Accept one item and return its index; None when the queue is full."""

    def expect(
        self,
        estimates: Sequence[tuple[int, _Estimate | None]],
    ) -> None:
        """Answer ESTIMATE, by item; None: it is not to be sent."""

    def executing(self, item: int) -> bool:
        """Report that an attempt is about to be sent, after an await since its start; its timeout restarts.

        False: a cooldown has started meanwhile; wait for RESUME and call again.
        """

    def extend(self, item: int, left: float) -> None:
        """Report that an attempt, reported as timed out, has this many seconds left."""

    def not_sent(self, item: int) -> None:
        """Return what an attempt has taken from limits."""

    def failed(
        self,
        item: int,
        kind: int,
        at_least: float,
        has_retry_after: bool,
        usage: Any,
        sign: int = 0,
        together: int = 1,
    ) -> tuple[bool, str | None]:
        """Report a failed attempt, the item's usage so far, and what that shows about whether the provider is up.

        ``together``: how many items share a request, and so its failure.

        Returns:
            Whether the engine will start another one; if not, the category of the guardrail that forbids it.
        """

    def end_round(self, item: int, usage: Any) -> None:
        """Report that an item's request was answered, and that it goes on with another one later.

        Args:
            item: The item.
            usage: Tokens of all its requests so far; None if nothing was sent.
        """

    def next_round(
        self,
        item: int,
        estimate: _Estimate | None,
        takes_start: bool,
    ) -> tuple[tuple[str, str] | None, tuple[int, Timing] | None]:
        """Report that an item's next request is ready.

        Args:
            item: The item.
            estimate: As in ``expect()``; None: as much as the last one.
            takes_start: Whether the caller sends the request if it may start at once; no message tells of it then.

        Returns:
            What forbids to send it: None, or a category and details, or two empty texts if a message says so. And the
            number of the attempt and how it started, if it is the caller's.
        """

    def decide_cooldown(self, queue: int, pause: float, delays: Sequence[float], more: bool) -> float:
        """Answer ASK_COOLDOWN; return the planned cooldown in seconds."""

    def extend_slow_start(self, queue: int, delays: Sequence[float], more: bool) -> None:
        """Answer ASK_SLOW_START."""

    def stop(self, cancel: bool, why: str = "batch_aborted") -> None:
        """End the run early: nothing more starts; attempts in flight may finish, or are cancelled.

        A run that was stopped without ``cancel`` can be stopped once more with it.
        """

    def keep_open(self, is_open: bool) -> None:
        """Set whether more items may come: while they may, the run is not drained."""

    def set_full(self, is_full: bool) -> None:
        """Set whether nothing new may start because results are not taken."""

    def pause(self, paused: bool) -> None:
        """Start nothing until called with False."""

    def set_workers(self, workers: int) -> None:
        """Change the maximum number of items in flight."""

    def set_limits(self, limits: Sequence[tuple[str, float, float]]) -> None:
        """Change the limits of the run's scopes: what is counted, how much of it, in how many seconds."""

    def set_cost_cap(self, cost: float | None) -> None:
        """Change the cost cap of the whole run; None: no cap."""

    def set_time_left(self, left: float | None) -> None:
        """End the run this many seconds from now; None: no deadline."""

    def steering(self) -> tuple[bool, int, float | None, float | None, bool]:
        """Return whether it is paused, its workers, its cost cap, the seconds left, whether nothing more starts."""

    def cancel(self, item: int) -> None:
        """End an item: rejected if it waits, cancelled if it is in flight."""

    def gauges(self) -> tuple[int, int, int, float, float | None, tuple[str, float | None] | None]:
        """Return items not started, attempts in flight, items waiting for a retry, rest of the cooldown (s).

        Then how long the provider has been down (s), if it is; and why the run is stalled, with the seconds left if
        known.
        """

    def allow(self, cost: float, is_final: bool) -> None:
        """Set what may be spent of a cap that several runs have together; until it is final, attempts wait for more."""

    def claims(self) -> tuple[float, float, float]:
        """Return the cost spent, that reserved, and that of the last attempt that could not be afforded."""

    def spend(self, cost: float) -> None:
        """Count a cost from the user's cost function."""

    def record_rejected(self, count: int, error: str) -> None:
        """Count items that never started, after REFUSE_FRESH."""

    def answered(self, item: int, success: bool, usage: Any, frees: bool) -> None:
        """Reconcile an item's estimate with its usage; ``record`` or ``finish`` follows once its result is written.

        Args:
            item: The item.
            success: Whether it succeeded.
            usage: Its tokens.
            frees: Whether its worker starts the next item meanwhile.
        """

    def record(self, item: int, success: bool, error: str | None, usage: Any) -> None:
        """Count an item's result."""

    def release(self, item: int) -> None:
        """Report that an item is done."""

    def finish(self, item: int, success: bool, error: str | None, usage: Any) -> None:
        """``record`` and ``release`` in one."""

    def finish_all(self, ended: Sequence[tuple[int, bool, str | None, Any]]) -> None:
        """Do :meth:`finish` for many, ``(item, success, error, usage)``."""

    def tell_finished(self) -> None:
        """Report the successes of plain attempts to the engine."""

    def close(self) -> list[int]:
        """Start nothing more; drop native requests. Return the items in flight that were not adopted."""

    def is_drained(self) -> bool:
        """Whether every accepted item is done."""

    def stats(self) -> dict[str, Any]:
        """Return the counters."""

    def samples(self) -> tuple[list[_SampleRow], tuple[float, int, int]]:
        """Return finished items, evenly spaced over the run; and the run now.

        A row has: seconds since the start of the run, items done, items in work, input, output and cached input tokens
        of all that is done, what was spent of the budget; the seconds that this item took, and its tokens. The run now
        has the first three.
        """

    def launch(
        self,
        place: tuple[int, int],
        client: NativeClient,
        given: Any,
        correction: tuple[str, str] | None = None,
        key: str | None = None,
        listener: TokenListener | None = None,
    ) -> None:
        """Send a native attempt; its answer comes as ANSWERED or FAILED.

        ``place``: the item's index, and the number of the attempt.
        """

    def room(self, most: int) -> int:
        """Return how many more requests may be staged, with a maximum of ``most``."""

    def stage(self, first: int, items: list[Any], strategy: Any, client: NativeClient, whole: bool | None) -> int:
        """Stage the requests of the items with this strategy, for attempts that start without Python.

        Args:
            first: The number of the first of ``items``.
            items: Items of the run in their order; None is skipped.
            strategy: The strategy of the staged items.
            client: Its client.
            whole: Whether a success is a result without Python, and is counted at once. None: Python starts their
                attempts; what their requests begin with alike is read, for the provider's prompt cache, and no more.

        Returns:
            How many items were processed before the staging area was full.
        """

    def unstage(self, first: int, count: int = 1) -> None:
        """Report that items start the usual way, or never."""

    def begin(self, item: int, client: NativeClient, given: Any, timing: Timing) -> None:
        """Send the first attempt of an item that has started before it was staged, as if it had been.

        Raises:
            TypeError: If it is no prompt.
            ValueError: If something in the prompt cannot be used.
        """

    def adopt(self, item: int, work: Any) -> Flight | None:
        """Take over an attempt that started without Python, if it is in flight; ANSWERED or FAILED follows."""

    def in_direct_flight(self) -> int:
        """Return how many attempts in flight started without Python and were not adopted."""

    def abort(self, item: int) -> None:
        """Drop an item's native request, if there is one."""

class _Demand(Protocol):
    @property
    def part(self) -> float | None: ...
    @property
    def pace(self) -> float | None: ...
    @property
    def refused(self) -> int: ...
    @property
    def held(self) -> float: ...

class _Report(Protocol):
    @property
    def counters(self) -> Mapping[str, float]: ...
    @property
    def spent(self) -> float: ...
    @property
    def reserved(self) -> float: ...
    @property
    def wanted(self) -> float: ...
    @property
    def least(self) -> float: ...
    @property
    def max_cost(self) -> float | None: ...
    @property
    def timeout(self) -> float | None: ...
    @property
    def stop(self) -> str | None: ...

class _ObjectBoard(Protocol):
    def renew(self, scope: str, holder: str, demand: Any, /) -> Any:
        """Renew a lease; called by runs with a ``Demand``, on other threads."""

    def leave(self, scope: str, holder: str, /) -> None:
        """Give a share back; called by runs, on other threads."""

@final
class Board:
    """A board of shared limits; ``renew()`` returns a ``batch_llm.Share``."""

    @staticmethod
    def memory() -> Board:
        """Return a new one in this process' memory."""

    @staticmethod
    def file(path: str | os.PathLike[str]) -> Board:
        """Return that in a file."""

    @staticmethod
    def tcp(host: str, port: int, token: str) -> Board:
        """Return that behind a server."""

    @staticmethod
    def object(board: _ObjectBoard, /) -> Board:
        """Return one that calls an object."""

    def renew(self, scope: str, holder: str, demand: _Demand) -> Any:
        """Renew a lease, or take it.

        Raises:
            OSError: If the board cannot be used.
        """

    def report(self, job: str, holder: str, report: _Report) -> Any:
        """Take the report of a process that works on a job; returns a ``JobVerdict``.

        Raises:
            OSError: If the board cannot be used, or is an object without this method.
        """

    def leave(self, scope: str, holder: str) -> None:
        """Give a share back.

        Raises:
            OSError: If the board cannot be used.
        """

@final
class LimitTable:
    """The table of a board, with the time as an argument: for tests of other boards."""

    def __new__(cls) -> LimitTable: ...
    def renew(self, scope: str, holder: str, demand: _Demand, now: int) -> Any:
        """Renew a lease, or take it. ``now``: milliseconds."""

    def report(self, job: str, holder: str, report: _Report, now: int) -> Any:
        """Take the report of a process that works on a job."""

    def leave(self, scope: str, holder: str) -> None:
        """Give a share back."""

@final
class LimitServerHandle:
    """A TCP server over a board.

    Raises:
        OSError: If the address cannot be had.
    """

    def __new__(cls, host: str, port: int, token: str, board: Board) -> LimitServerHandle: ...
    @property
    def port(self) -> int:
        """Where it listens."""

    def stop(self) -> None:
        """Stop, and close all connections. Idempotent."""

@final
class Scope:
    """A quota scope: shared by all requests to the same provider with the same key for the same model."""

    def __new__(cls) -> Scope: ...
    def limits(self) -> list[dict[str, Any]]:
        """Return the limits in force: ``measure``, ``amount``, ``per``, ``learned``, ``left``."""

class _Classes(Protocol):
    @property
    def succeeded(self) -> Callable[..., Any]:
        """Makes the result of a success: see ``_pipeline/success.py``."""

    @property
    def state(self) -> type: ...
    @property
    def coroutine(self) -> type: ...
    @property
    def special(self) -> type: ...

@final
class EndsAtCaller:
    """A function, or a coroutine function, whose own frames are taken from the errors for wrong arguments."""

    def __new__(cls, function: Callable[..., Any], is_ours: Callable[[Any], bool], is_coroutine: bool) -> EndsAtCaller:
        """``is_ours`` receives a traceback and returns whether the error was raised in this package."""

    def __call__(self, *arguments: Any, **keywords: Any) -> Any: ...
    def __get__(self, instance: Any, _class: Any = None, /) -> Any: ...
    def __reduce__(self) -> str: ...

@final
class EndingCoroutine(Coroutine[Any, Any, Any]):
    """A coroutine that does so."""

    def __await__(self) -> EndingCoroutine: ...
    def __iter__(self) -> EndingCoroutine: ...
    def __next__(self) -> Any: ...
    def send(self, value: Any) -> Any: ...
    def throw(self, *error: Any) -> Any: ...
    def close(self) -> None: ...

@final
class PlainAttempts:
    """The shared state of all plain attempts of a run: those that involve only their strategies."""

    def __new__(
        cls,
        *,
        pipeline: _AttemptPipeline,
        run: _AttemptRun,
        timeout: float,
        classes: _Classes,
        quiet: bool,
        keep_prompts: bool,
    ) -> PlainAttempts: ...
    def remember(self, strategy: Any, must_clean_up: bool) -> None:
        """Say that attempts with this strategy are plain from now on."""

    def read_answers_of(self, strategy: Any, read: Callable[[Any], tuple[Any, Any, dict[str, Any]]]) -> None:
        """Say that answers of this strategy are results once ``read`` has read them."""

    def begin(self, index: int, item: Any, attempt: int, timing: Timing, goes_on: bool) -> Runner | None:
        """Begin the first attempt of an item, if it is known to be a plain one.

        ``goes_on``: whether the task that runs the return value may continue with other items.
        """

    def retry(self, flight: Flight, strategy: Any, must_clean_up: bool) -> Runner:
        """Begin a further attempt of an item, or its first if that is not known to be a plain one by its strategy."""

    def take_results(self, most: int) -> tuple[int, int, str | None]:
        """Take messages as long as they are of items that began without Python and have an answer; add their results.

        Returns how many messages there were, ``most`` at most, how many results, and the id of the last item.
        """

@final
class Flight:
    """An item in work, from its first attempt to its result."""

    usage: Any
    """Tokens of failed attempts, and of earlier rounds."""
    used: list[Any] | None
    """Strategies that middlewares have put in place of the item's own."""
    task: asyncio.Task[None] | None
    gate: asyncio.Future[None] | None
    """Waits for the end of a cooldown."""
    native: asyncio.Future[Any] | None
    """Waits for a native answer."""
    correction: tuple[str, str] | None
    """The answer that did not fit, and what was wrong with it."""
    conversation: Any
    """The item's ``Conversation``, if it has several rounds."""
    executing: bool
    timed_out: bool
    abandoned: bool
    """Another flight continues with the item."""
    recorded: bool
    unreadable: bool
    """A reply to this item could not be read: the next such reply ends it."""

    def __new__(cls, index: int, item: Any, attempt: int, timing: Timing) -> Flight: ...
    @property
    def index(self) -> int: ...
    @property
    def item(self) -> Any: ...
    @property
    def attempt(self) -> int: ...
    @property
    def worker(self) -> int: ...
    @property
    def timing(self) -> Timing: ...
    @property
    def notes(self) -> Any:
        """The item's ``RetryState``; None before it is needed."""

    def elapsed(self) -> float:
        """Return the seconds since ``execute()`` was called."""

    def next_attempt(self, attempt: int, timing: Timing) -> None:
        """Go on with the next attempt of the item."""

    def attempt_failed(self, error: str, category: str | None, message: str | None = None) -> None:
        """Take note of the class of an attempt's error, of what it means, and of the beginning of its message."""

    def round_ended(self) -> None:
        """Take note that the attempt was answered, and that the item goes on with another request."""

    def begin_execution(self, notes: Any) -> None:
        """Take note that ``execute()`` is about to be called."""

    def returned(self) -> bool:
        """Take note that ``execute()`` has returned; whether the item's way was a usual one so far."""

    def successor(self) -> Flight:
        """Return a flight that continues with the item while this one's strategy does not react."""

@final
class Runner(Coroutine[Any, Any, None]):
    """The coroutine of a task that makes plain attempts, one item after another."""

    @property
    def flights(self) -> dict[int, Flight]:
        """The flights of its run."""

    @property
    def flight(self) -> Flight | None:
        """The present item."""

    @property
    def task(self) -> asyncio.Task[None] | None: ...
    @task.setter
    def task(self, task: asyncio.Task[None]) -> None: ...
    def send(self, value: Any) -> Any: ...
    def throw(self, error: Any, value: Any = None, _traceback: Any = None) -> Any: ...
    def close(self) -> None: ...
    def __await__(self) -> Generator[Any, Any]: ...
    def __iter__(self) -> Runner: ...
    def __next__(self) -> Any: ...

_Times: TypeAlias = tuple[float, float, float, float, float, float, float]

@final
class Timing:
    """Where the time of an item went.

    Times are, in seconds: the start since the beginning of the run; the waits before it for queue, quota, admission,
    cooldown and backoff; the execution.
    """

    def __new__(cls) -> Timing: ...
    def __deepcopy__(self, _memo: Any) -> Timing: ...
    def attempts(
        self, success: bool
    ) -> list[tuple[_Times, str | None, str | None] | tuple[_Times, str, str | None, str]]:
        """Return for each attempt its times, its error's class, category and message (if it has one)."""

    def last(self) -> _Times:
        """Return the times of the last attempt."""

@final
class TokenListener:
    """Passes the parts of an answer to a function, in a thread of the extension."""

    def __new__(cls, hear: Callable[[Literal["text", "reasoning"], str], object]) -> TokenListener: ...
    def stop(self) -> None:
        """End the answer: what has come is all of it."""

@final
class NativeClient:
    """A client for one model at one provider."""

    def __new__(cls, spec: dict[str, Any], extra_body: dict[str, Any], keys: Sequence[str]) -> NativeClient: ...
    def stream_timeout(self, is_followed: bool) -> float | None:
        """Return how long an attempt may take if its reply is streamed, seconds; None: it is not."""

    @staticmethod
    def measure(given: Any) -> tuple[int, bool]:
        """Return the bytes of a prompt's text, and whether there is more in it than text."""

    @staticmethod
    def check_prompt(given: Any) -> None:
        """Raise TypeError or ValueError when a prompt cannot be used."""

    @property
    def has_heads(self) -> bool:
        """Whether the provider is known to cache what prompts begin with alike."""

    def heads(self, given: Sequence[Any]) -> list[tuple[int, int, float, bool, bool] | None]:
        """Return what each of these prompts begins with, as far as the provider caches it.

        Its key, its length in tokens, the life of an entry in seconds, whether it can be read once the reply that
        writes it has begun (else once it has ended), and whether its end is marked.
        """

    def open_caches(self) -> None:
        """Report that a run sends its prompts with this client: caches may be created for them at the provider."""

    def release_caches(self) -> Awaitable[None]:
        """Report that the run has ended: after the last one, these caches are deleted."""

    def marked(self, lane: str, why: str | None = None) -> NativeClient:
        """Return the same client, whose replies say which lane they took, and why."""

    def in_tier(self, tier: str, late: NativeClient | None = None, after: float | None = None) -> NativeClient:
        """Return the same client in a tier of its provider; ``late`` takes its place after so many seconds.

        Raises:
            ValueError: If there is no such tier for its requests.
        """

    @property
    def counts(self) -> bool:
        """Whether the provider counts the tokens of prompts."""

    def count(self, given: Any, timeout: float, key: str | None = None) -> Awaitable[tuple[bool, Any]] | None:
        """Have the provider count the tokens of a prompt; None: it cannot.

        Resolves to ``(True, tokens)`` or ``(False, exception)``.
        """

    def complete(
        self,
        given: Any,
        timeout: float,
        key: str | None = None,
        listener: TokenListener | None = None,
        correction: tuple[str, str] | None = None,
        place: PoolPlace | None = None,
    ) -> Awaitable[tuple[bool, Any]]:
        """Send one request, outside of a run. ``place`` notes what the reply says about limits.

        Resolves to ``(True, (output, usage, metadata))`` or ``(False, exception)``.
        """

class _PoolMember(Protocol):
    @property
    def client(self) -> NativeClient | None:
        """None: a strategy in Python. Where others are, it only tells how much its server has to do."""

    @property
    def scope(self) -> Scope: ...
    @property
    def label(self) -> str: ...
    @property
    def weight(self) -> float: ...
    @property
    def tier(self) -> int: ...
    @property
    def reasons(self) -> Sequence[str]: ...
    @property
    def endpoint(self) -> int: ...
    @property
    def is_own_server(self) -> bool: ...

@final
class NativePool:
    """Several clients as one; ``is_mixed``: Python asks them, with :meth:`trial`."""

    def __new__(
        cls,
        members: Sequence[_PoolMember],
        hedge: Literal["tail", "always", "never"],
        is_mixed: bool,
        hear: Callable[[Literal["ejected", "back", "dropped"], str, str], object],
        doubt: Callable[[Any], object] | None = None,
    ) -> NativePool: ...
    def client(self) -> NativeClient:
        """Return the client that sends to all of them."""

    def scope(self) -> Scope:
        """Return what their requests share."""

    def trial(self, prompt: Any) -> PoolTrial:
        """Return an attempt of an item with this prompt, for a pool with members in Python."""

    def dropped(self) -> list[str]:
        """Return the labels of the members that were dropped."""

class _PoolFailure(Protocol):
    @property
    def category(self) -> str: ...
    @property
    def is_retryable(self) -> bool: ...
    @property
    def is_rate_limit(self) -> bool: ...
    @property
    def wait(self) -> float | None: ...
    @property
    def status(self) -> int | None: ...
    @property
    def code(self) -> str | None: ...
    @property
    def message(self) -> str: ...
    @property
    def was_invalid(self) -> bool: ...

@final
class PoolPlace:
    """A request to a member of a pool. If it is dropped without a report, it counts as cancelled."""

    @property
    def member(self) -> int:
        """The member's number."""

    def answered(self, usage: Any) -> None:
        """Report an answer, with its token counts."""

    def failed(self, failure: _PoolFailure, usage: Any) -> bool:
        """Report a failure; return whether it was an answer that is invalid."""

    def cancelled(self) -> None:
        """Report that the request was cancelled."""

_Step: TypeAlias = PoolPlace | float | Literal["later", "nowhere"]
"""The member to call; or the seconds to wait before ``next()``; or the attempt has failed: ``"later"``, as after a rate
limit, because the other members are at their limits; ``"nowhere"``, because no member is left."""

@final
class PoolTrial:
    """An attempt of an item with a pool: decides which member is called."""

    @property
    def reason(self) -> str | None:
        """Why a fallback is called; None for a member."""

    def next(self) -> _Step:
        """Return what to do first, and after a wait."""

    def after(self, place: PoolPlace) -> _Step:
        """Return what to do after a failure."""

    def may_escalate(self, place: PoolPlace) -> bool:
        """Return whether there is a fallback for a doubtful answer of this member."""

    def doubtful(self, place: PoolPlace) -> _Step:
        """Return what to do with a doubtful answer."""

    def hedges_after(self) -> float | None:
        """Return after how many seconds a second request may be sent; None: never."""

    def hedge(self, place: PoolPlace) -> PoolPlace | None:
        """Return a second place beside one that takes long, if there may be one now."""

@final
class SchemaCheck:
    """A JSON Schema that values are checked against."""

    def __new__(cls, schema: Any, name: str = "schema") -> SchemaCheck: ...
    def problem(self, text: str) -> str | None:
        """Return what is wrong with a value, given as JSON text; None: nothing."""

_SampleRow: TypeAlias = tuple[float, int, int, tuple[int, int, int], float, float, tuple[int, int, int]]

@final
class Address:
    """A base URL, read by the parser that the transport uses, and completed."""

    def __new__(cls, provider: str, base_url: str, model: str) -> Address: ...
    @property
    def url(self) -> str:
        """The base URL, with its user, password and query."""

    @property
    def shown(self) -> str:
        """The base URL without user, password and query."""

    @property
    def origin(self) -> str:
        """Scheme, host and port."""

    @property
    def label(self) -> str:
        """The provider's name, with the host if that is not the provider's own."""

    @property
    def is_own(self) -> bool:
        """Whether the origin is the provider's own."""

    @property
    def has_own_host(self) -> bool:
        """Whether the host is the provider's own, with any scheme and port."""

    @property
    def is_encrypted(self) -> bool:
        """Whether the scheme is https."""

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this machine."""

    @property
    def problem(self) -> str | None:
        """Why nothing may be sent there, if it may not: other parsers read the text differently."""

    @property
    def api(self) -> str | None:
        """``"chat"`` or ``"responses"`` where the text was the whole address of that endpoint."""

def example(schema: str) -> str:
    """Return a value that fits a JSON Schema, both as JSON text."""

def providers() -> list[dict[str, Any]]:
    """Return the table of providers."""

def cloud_url(provider: str, variables: dict[str, str], model: str, origin: str | None = None) -> str:
    """Return the base URL of a cloud's provider for a model: at its own origin, or at ``origin``."""

def names_entra(variables: dict[str, str]) -> bool:
    """Whether variables name an identity at Microsoft Entra."""

def is_secret_name(name: str, only: bool) -> bool:
    """Whether something of this name may be a secret; with ``only``: whether it is a credential and nothing else."""

def classify_error(status: int, codes: Sequence[str]) -> tuple[str, bool]:
    """Return what an HTTP status with these codes means: its category, and whether another attempt may help."""

@final
class Messages:
    """The messages of a conversation, each read once; a prompt like a list of them.

    Raises:
        TypeError: If they are no prompt.
        ValueError: If a message cannot be sent; the message says which and why.
    """

    def __new__(cls, given: Any) -> Messages: ...
    def extend(self, given: Any) -> None:
        """Add the messages of another prompt at the end."""

@final
class Media:
    """An image, a sound or a document, encoded once."""

    def __new__(
        cls,
        kind: str,
        media_type: str | None = None,
        *,
        data: bytes | None = None,
        url: str | None = None,
        name: str | None = None,
        detail: str | None = None,
    ) -> Media: ...
    def __getnewargs_ex__(self) -> tuple[tuple[str, str], dict[str, str | None]]:
        """What makes it again, from a pickle."""

    def __deepcopy__(self, memo: Any) -> Media:
        """It never changes."""

    @property
    def media_type(self) -> str:
        """Its IANA media type; empty if unknown, for a URL."""

    @property
    def travels(self) -> bool:
        """Whether its bytes travel with each request."""

    @property
    def size(self) -> int:
        """Bytes that it adds to a request."""

@final
class SimulatorHandle:
    """A simulated provider on a loopback port."""

    def __new__(cls, port: int, behaviour: _Behaviour) -> SimulatorHandle: ...
    def set_limits(self, limits: tuple[float | None, float | None, float]) -> None:
        """Change ``(requests per minute, tokens per minute, seconds' worth at once)``."""

    @property
    def port(self) -> int:
        """The port it listens on."""

    @property
    def ca(self) -> str | None:
        """The certificate of the authority that clients must trust, PEM; None without TLS."""

    def counts(self) -> dict[str, Any] | None:
        """Return what it has seen; None after :meth:`stop`."""

    def batches(self) -> dict[str, Any] | None:
        """Return its batches and what was paid for; None after :meth:`stop`."""

    def advance(self, seconds: float) -> None:
        """Advance the clock of batches."""

    def stop(self) -> dict[str, Any] | None:
        """Stop, and return the last counts."""

class _Options(Protocol):
    @property
    def fsync(self) -> bool: ...
    @property
    def busy_timeout(self) -> float: ...
    @property
    def package_version(self) -> str: ...
    @property
    def user_metadata(self) -> str | None: ...

# Fingerprint of the request, number of the strategy's identity, id of the item, its place in the run.
_Request: TypeAlias = tuple[bytes, int, str, int]
# Whether it is a success, the error category if not, and reuse: 0 never, 1 with failures, 2 with successes.
_Outcome: TypeAlias = tuple[bool, str | None, int]
# Tokens of all attempts so far, what of them is in earlier records, the price per token (input, cached, written into
# the cache, for an hour, output), the cost if it is not that by the price.
_Spending: TypeAlias = tuple[Any, Any, tuple[float, float, float, float, float, float] | None, float | None]
# 1: an item's result, 0: the cost of a failed attempt, 2: a step of a conversation; then the above, the rest as JSON
# values, the timing.
_Record: TypeAlias = tuple[int, _Request, _Outcome, _Spending, Any, Timing | None]

def format_of(path: str | os.PathLike[str]) -> str | None:
    """Return ``"sqlite"``, ``"jsonl"`` or ``"segments"``: what a path is, or by its name is to be; None: none of them.

    Raises:
        ArtifactIOError: If it is there but cannot be read.
    """

def fingerprint(value: Any, to_json_value: Callable[[Any], Any], within: bytes | None = None) -> bytes:
    """Return the fingerprint of JSON values, 16 bytes; of a request with that of its strategy in ``within``.

    Args:
        value: The value.
        to_json_value: Called for what JSON does not have.
        within: Another fingerprint.

    Raises:
        Exception: What ``to_json_value`` raises; ``TypeError`` or ``ValueError`` for what JSON does not have.
    """

@final
class Journal:
    """A journal that is written to.

    Args:
        path: The file, folder or URL.
        kind: ``"sqlite"``, ``"jsonl"`` or ``"segments"``.
        options: How it is opened.
        reuse: What may be used again: 1: successes and failures, 2: successes, 3: nothing.

    Raises:
        ArtifactError: If it cannot be used.
    """

    def __new__(cls, path: str, kind: str, options: _Options, reuse: int) -> Journal: ...
    def attach(self, handle: RunHandle) -> None:
        """Set the run that is notified, by WRITTEN and UNWRITTEN."""

    @property
    def repairs(self) -> tuple[int, int]:
        """Bytes of a torn last line that were cut off, and damaged records that were passed over."""

    @property
    def ignored(self) -> tuple[int, str] | None:
        """How many files of a folder or bucket are not segments or cannot be read, and what is wrong with one."""

    @property
    def found(self) -> int:
        """How many records may be used again."""

    def look_up(self, key: bytes, item_id: str, request: bytes | None = None) -> tuple[str, bool, str | None] | None:
        """Take a record that answers a request: its JSON, whether it is a success, its category if not.

        Args:
            key: The fingerprint.
            item_id: Whose record is preferred.
            request: For a step of a conversation, the fingerprint of the request that it began with.

        Raises:
            ArtifactError: If it cannot be read any more.
        """

    def note(self, event: str) -> int:
        """Hand over an event, a JSON object; from any thread."""

    def note_bound_over_time(self, text: str) -> int:
        """Hand over what bounded the run over time, a JSON object, in place of the one before."""

    def identify(self, number: int, identity: str) -> None:
        """Say what an identity is, before the first record that has it."""

    def append(self, record: _Record, to_json_value: Callable[[Any], Any]) -> int:
        """Append a record; return the number by which its writing is reported.

        Raises:
            ArtifactIOError: If writing has failed before.
            Exception: If the body cannot be made JSON.
        """

    @property
    def written(self) -> int:
        """How many records are written."""

    def flush(self) -> None:
        """Wait until everything is written, or cannot be."""

    def close(self) -> None:
        """Write everything and close the file.

        Raises:
            ArtifactIOError: What writing has failed with.
        """

@final
class Shelf:
    """Bytes by item, in a file without a name.

    Args:
        path: A file; the shelf is on the same disk.

    Raises:
        OSError: If there can be no file, or it cannot be written or read; the methods raise it too.
    """

    def __new__(cls, path: str) -> Shelf: ...
    def put(self, item: int, data: bytes) -> None:
        """Store the bytes of an item."""

    def take(self, item: int) -> bytes | None:
        """Take the bytes of an item out; None: there are none."""

    def items(self) -> list[int]:
        """Return the items that have bytes here."""

@final
class BatchLane:
    """The batches of one run, in the ledger of its store.

    Args:
        path: The store.
        kind: ``"sqlite"`` or ``"jsonl"``.
        options: How it is opened.
        how: How batches are made: ``size``; ``linger``, ``first_poll``, ``longest_poll``, ``list_delays`` and
            ``queue_wait`` in seconds; ``probe``; and ``auto``, a dict with ``deadline``, ``rate``, ``concurrency`` and
            ``cancel_time``.

    Raises:
        ArtifactError: If the ledger cannot be used, such as while another process has it open.
    """

    def __new__(cls, path: str, kind: str, options: _Options, how: dict[str, Any]) -> BatchLane: ...
    def live_client(self, client: NativeClient, why: str) -> NativeClient:
        """Return the same client for questions that were meant for batches; its replies say why they were not."""

    def look_at_time(self) -> Awaitable[None]:
        """Cancel batches if what is in them could not be sent otherwise before the deadline any more."""

    def expect(self, requests: int) -> None:
        """Say how many requests there will be, as far as is known."""

    def reasons(self) -> list[tuple[str, int]]:
        """Return how many requests went by themselves, by reason."""

    def client(
        self, client: NativeClient, is_cheaper: bool | None = None, rates: tuple[_Rates, _Rates] | None = None
    ) -> NativeClient:
        """Return the same client, whose questions wait in batches.

        Args:
            client: Whose questions they are.
            is_cheaper: Whether they cost less there.
            rates: What tokens cost by themselves and in batches: of prompts, of those that are read from the cache, and
                of answers.

        Raises:
            ValueError: If its provider has no batches, or batches in the ledger are another account's.
        """

    def proven(self) -> None:
        """Say that such questions are known to be answered: none needs to go by itself before the first batch."""

    def flush(self) -> None:
        """Send all batches that are being filled."""

    def submitted(self) -> Awaitable[None]:
        """Resolve when all requests are in batches at the provider, or cannot be."""

    def cancel(self) -> Awaitable[None]:
        """Ask providers to cancel all batches; what is done by then is collected as usual."""

    def at_rest(self) -> Awaitable[None]:
        """Resolve when the batches whose results are here are collected, or after ten seconds."""

    def close(self, is_complete: bool) -> None:
        """Release everything.

        Args:
            is_complete: Whether all replies that were taken are stored elsewhere now; then they are forgotten.

        Raises:
            ArtifactError: If the ledger cannot be written.
        """

    def take_notes(self) -> list[str]:
        """Return the notes for the user since the last call."""

    def counts(self) -> tuple[int, int, int, int, int, int]:
        """Return counts of requests, except for the batches.

        Requests that wait for their batch, that are being sent, that are in batches; the batches; replies that have
        come; requests that an attempt waits for.
        """

    def progress(self) -> tuple[int, int, int, int]:
        """Return how far the requests are that somebody waits for, and how many replies were collected.

        Requests that no provider works on yet, that one works on, and whose results are being written or fetched; and
        those that were collected.
        """

# Costs of tokens: of a prompt, of those read from the cache, of an answer.
_Rates: TypeAlias = tuple[float, float, float]

def plan_batches(
    client: NativeClient,
    requests: int,
    left: float | None,
    rate: float,
    is_cheaper: bool | None = None,
    store: tuple[str, str] | None = None,
) -> tuple[int, str | None, float]:
    """How many requests would go into batches, why the rest would not, and when half of such batches have ended.

    Args:
        client: Whose requests they are.
        requests: How many there are.
        left: Seconds to the deadline; None: there is none.
        rate: Requests per second that can be sent one by one.
        is_cheaper: Whether batches cost less; None: as the provider's price list has it.
        store: The path and the kind of a store whose earlier batches tell how long they take.

    Raises:
        ValueError: If the provider has no batches for such requests.
        ArtifactError: If the store cannot be read.
    """

def is_cheaper_live(
    rates: tuple[_Rates, _Rates], size: tuple[float, float, float], is_marked: bool, reads: tuple[float, float]
) -> bool:
    """Whether a request costs less by itself than in a batch, once the provider's prompt cache has its beginning.

    Args:
        rates: As for :meth:`BatchLane.client`.
        size: Tokens of its prompt; of these, what others begin with too; and of its answer.
        is_marked: Whether requests have to mark what is to be cached.
        reads: Tokens of prompts in earlier batches, and of these, what was read from the cache.
    """

def batches_of(path: str, kind: str) -> list[dict[str, Any]] | None:
    """The batches in the ledger of a store, in order; None: it has none.

    Raises:
        ArtifactError: If it cannot be read.
    """

@final
class Cache:
    """A cache of answers that is open; ``ttl`` in seconds.

    Raises:
        ArtifactError: If it cannot be used.
    """

    def __new__(cls, path: str, options: _Options, ttl: float | None, max_bytes: int | None) -> Cache: ...
    def look_up(self, key: bytes) -> tuple[int, str | None]:
        """Return the number of this request among equal ones, and its answer as JSON, if there is one."""

    def keep(self, key: bytes, sample: int, body: Any, to_json_value: Callable[[Any], Any]) -> None:
        """Store an answer."""

    @property
    def problem(self) -> str | None:
        """Why nothing more is stored, if so."""

    def close(self) -> None:
        """Write everything and close the file.

        Raises:
            ArtifactIOError: What writing has failed with.
        """

@final
class JournalView:
    """A journal that is inspected.

    Raises:
        ArtifactError: If it cannot be read, or is none.
    """

    def __new__(cls, path: str, kind: str) -> JournalView: ...
    def sums(self) -> dict[str, Any]:
        """Return the sums of the whole journal."""

    @property
    def ignored(self) -> tuple[int, str] | None:
        """How many files of a folder or bucket are not segments or cannot be read, and what is wrong with one."""

    def compact(self, target: str, options: _Options, remove: bool) -> tuple[int, int]:
        """Copy all segments into a new SQLite store.

        Returns:
            How many records it has, and how many segments were removed.

        Raises:
            ArtifactError: If it is there, cannot be written, or a segment cannot be removed.
            ValueError: If this is not a view of segments.
        """

    def page(
        self, after: int | None, limit: int
    ) -> list[tuple[int, str, int, bool, str | None, str, tuple[int, float, float | None]]]:
        """Return last records of items, after a place.

        Each is ``(place, item id, index, success, category, JSON, (run, time, cost))``.
        """

# Python methods that the extension calls by name: type checkers compare these with the classes that are given to it.

class _AttemptPipeline(Protocol):
    """What plain attempts call when there is more to do than to call their strategy."""

    def as_coroutine(self, call: Any, strategy: Any) -> Coroutine[Any, Any, Any]:
        """Wrap what ``execute()`` returned."""

    def look_at(self, flight: Flight, strategy: Any, answer: Any) -> Coroutine[Any, Any, None]:
        """Process an answer of an unusual shape."""

    def complete(self, flight: Flight, result: Any) -> Coroutine[Any, Any, None]:
        """Clean up after an item and record its result."""

    def record_result(self, flight: Flight, result: Any) -> bool:
        """Record a result; whether that is all."""

    def post_process(self, flight: Flight, result: Any) -> Coroutine[Any, Any, None]:
        """Call the post-processor."""

    def tell_soon(self) -> None:
        """Schedule the report of successes to the engine."""

    def take_over(self, flight: Flight, value: Any) -> None:
        """Process an answer of an attempt that started without the loop."""

    def unread(self, flight: Flight, error: BaseException) -> None:
        """Fail an attempt whose answer could not be read."""

    def failed_somehow(self, flight: Flight, error: BaseException) -> Coroutine[Any, Any, None]:
        """Classify an attempt's exception, and do what follows."""

    def break_run(self, error: BaseException) -> None:
        """End the run because of an exception that ends more than one item."""

class _Backlog(Protocol):
    @property
    def first(self) -> list[Any]:
        """The items that a run began with."""

class _AttemptRun(Protocol):
    """What plain attempts need of their run."""

    @property
    def handle(self) -> RunHandle:
        """The engine."""

    @property
    def waiting(self) -> _Backlog:
        """The items that have not started."""

    @property
    def results(self) -> list[Any]:
        """Where results go."""

    @property
    def flights(self) -> dict[int, Flight]:
        """The items in flight."""

    def begin(self, index: int, item: Any, attempt: int, timing: Timing) -> None:
        """Begin an item's first attempt, when it turns out not to be a plain one."""

    def take_fresh(self, index: int) -> Any:
        """Take an item that starts out of the queue."""
