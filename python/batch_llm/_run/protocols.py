"""The interfaces between a run and its pipeline: ``_run`` calls them; ``_pipeline`` implements them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .._core import Board, Flight, NativeClient, Scope, Timing
    from .._items import LLMWorkItem
    from .._lanes import BatchProgress
    from .._logs import Repeated
    from .._results import BatchTermination, WorkItemResult
    from .._store import RunStore
    from ..prices import Price
    from .run import Run
    from .settings import RunSettings

    Item = LLMWorkItem[Any, Any, Any]
    Result = WorkItemResult[Any, Any]


class ItemPipeline(Protocol):
    """Sees items to their results. All methods are called on the loop's thread."""

    settings: RunSettings
    log: Repeated
    keeps_prompts: bool
    reused_successes: int
    expected: int | None
    overseer: Overseer | None

    @property
    def run_store(self) -> RunStore | None:
        """What the run stores and need not request again, if anything."""
        ...

    @property
    def failures(self) -> FailurePolicy | None:
        """What follows when attempts fail or are not made; None: their items end."""
        ...

    # The run's beginning and end

    def begin(self, run: Run) -> None:
        """Attach to a run; called before anything else."""
        ...

    def forget_ids(self) -> None:
        """Do without a look for ids that come twice."""
        ...

    def accepted(self, items: Sequence[Item | None]) -> None:
        """Register items of the run."""
        ...

    def batch_started(self, total: int) -> None:
        """Called before the first item."""
        ...

    async def batch_ended(self, limit: float | None = None) -> None:
        """Called after the last item; ``limit`` bounds what is waited for, seconds, when the run was cancelled."""
        ...

    def clear(self) -> None:
        """Drop all references to the user's objects; the run is over."""
        ...

    # Which limits items share

    def price(self) -> Price | None:
        """What the run's tokens cost, if they all have one price that is known."""
        ...

    @property
    def prices_are_known(self) -> bool:
        """Whether the price of every item so far is known."""
        ...

    def groups(self, items: Sequence[Item | None]) -> list[tuple[int, int, int]]:
        """Items in order of submission as ``(queue, priority, count)``."""
        ...

    def place(self, item: Item) -> tuple[int, int]:
        """The queue and priority of an item that joins the run."""
        ...

    async def estimate(self, items: list[tuple[int, Item]]) -> None:
        """Tell the engine what these items will use."""
        ...

    # Attempts

    def is_whole(self, strategy: Any) -> bool | None:
        """Whether a success with this strategy is a result without Python; None: its attempts need Python to start."""
        ...

    def has_heads(self, strategy: Any) -> bool:
        """Whether the provider caches what this strategy's requests begin with alike."""
        ...

    def client(self, strategy: Any, index: int | None = None) -> NativeClient:
        """What sends the requests of a native strategy; ``index``: of this item, once it has started."""
        ...

    @property
    def waits_in_batches(self) -> bool:
        """Whether requests wait for hours in batches, which stay when the run is interrupted."""
        ...

    def batch_progress(self) -> BatchProgress:
        """How far the requests are that wait in batches."""
        ...

    def sent_live(self) -> dict[str, int]:
        """How many requests were meant for batches and sent one by one, by reason."""
        ...

    def interrupted(self) -> None:
        """Called when the run is interrupted, before anything ends because of it."""
        ...

    async def stored(self, is_complete: bool) -> None:
        """Called at the end of the run, after the store; ``is_complete``: all results are in it."""
        ...

    def start(self, flight: Flight) -> Coroutine[Any, Any, None] | None:
        """Start an attempt: return the coroutine for its task, or None if it runs without one."""
        ...

    def answered(self, flight: Flight, value: Any, success: bool) -> Coroutine[Any, Any, None] | None:
        """Process the answer of an attempt that runs without a task."""
        ...

    # Ends of items

    def take_results(self, most: int) -> int:
        """Publish results of items that are counted already, ``most`` at most; return how many there were."""
        ...

    def reused(self, results: list[Result]) -> None:
        """Publish results of items for which no call was made."""
        ...

    def record_cancelled(self, index: int, item: Item, attempts: int, flight: Flight | None = None) -> None:
        """Give an item that did not get to its end in a cancelled run its result; ``flight``: if it was in work."""
        ...

    # The store

    def written(self, count: int) -> None:
        """Publish the results that the store has now."""
        ...

    def unwritten(self, problem: str) -> None:
        """End the run: its results cannot be stored any more."""
        ...

    def publish_stored(self) -> None:
        """Publish everything that waits for the store; waits for it."""
        ...


class Overseer(Protocol):
    """Lets a run be watched and controlled from outside; ``_control`` implements it."""

    resend: Callable[[list[tuple[Item, int]]], str | None] | None
    """Sends items again that have failed, given with their indexes; returns why not. Set by who can."""

    def begin(self, run: Run) -> None:
        """Attach to a run."""
        ...

    def failed(self, item: Item, index: int, result: Result) -> None:
        """Take note of a failed result."""
        ...

    def ends_early(self, termination: BatchTermination) -> BatchTermination:
        """Take note of why the run ends, and return the reason that is shown."""
        ...

    def ending(self) -> None:
        """Called when all results are there, before the store is closed."""
        ...

    def ended(self, error: BaseException | None) -> None:
        """Called at the very end; ``error``: what comes out of the run."""
        ...


class JobOfRun(Protocol):
    """What several runs do together; ``_jobs`` implements it."""

    name: str
    max_total_cost: float | None
    batch_timeout: float | None
    abort_on_error_categories: frozenset[str]

    def meet_at(self, board: Any, /) -> None:
        """Use this board of shared limits, unless there is one."""
        ...

    def member(self) -> Any:
        """Return the part of this process."""
        ...


class FailurePolicy(Protocol):
    """Says what follows when attempts fail, or are not made."""

    def stopped(self, category: str) -> None:
        """Record that the run ends early."""
        ...

    def timed_out(self, flight: Flight) -> Coroutine[Any, Any, None]:
        """Fail an attempt that timed out and has no task."""
        ...

    def reject(self, flight: Flight, category: str, detail: str) -> Coroutine[Any, Any, None]:
        """End an item that waits for an attempt it will not get."""
        ...

    def reject_new(self, first: int, count: int, category: str, detail: str) -> Coroutine[Any, Any, None]:
        """End items that never started."""
        ...

    def fail_waiting(self, flight: Flight) -> Coroutine[Any, Any, None]:
        """End an item whose last attempt has failed for good, which was not certain before."""
        ...

    def cool_down(self, worker: int, consecutive: int, queue: int, set_by_server: bool) -> Coroutine[Any, Any, None]:
        """Send the engine the length of a cooldown."""
        ...

    def slow_start_from(self, queue: int, number: int) -> None:
        """Tell the engine the delays of the starts from ``number`` on."""
        ...

    def cooldown_ended(self, lasted: float) -> None:
        """Record the end of a cooldown."""
        ...

    def outage_began(self, queue: int, since: float, patience: float) -> None:
        """Record that an outage has started."""
        ...

    def outage_ended(self, queue: int, lasted: float) -> None:
        """Record that an outage is over."""
        ...

    def board_changed(self, problem: str | None) -> None:
        """Record that the board of shared limits cannot be reached, and why; None: it can again."""
        ...

    def stands_still(self, bound: str, left: float | None) -> None:
        """Log why the run is stalled."""
        ...


SampleRow = tuple[float, int, int, tuple[int, int, int], float, float, tuple[int, int, int]]
"""See ``RunHandle.samples``."""


class Engine(Protocol):
    """What a pipeline calls of the run's engine; see ``_core.RunHandle``, which implements it."""

    # Scopes and estimates

    def queue(self, scope: Scope, /) -> int:
        """Return the number of the queue for items that share this scope."""
        ...

    def unbounded_queue(self) -> int:
        """Return the number of a new queue for attempts that nothing bounds."""
        ...

    def transfer(self, item: int, queue: int, estimate: Any, /) -> tuple[str, str] | None:
        """Send an item in another queue, whose attempt had no effect; as :meth:`next_round`."""
        ...

    def share(self, queue: int, board: Board, scope: str, holder: str, is_known: bool, /) -> None:
        """Share a queue's limits with other processes."""
        ...

    def share_member(self, member: Scope, board: Board, scope: str, holder: str, is_known: bool, /) -> None:
        """Share the limits of a pool's member with other processes."""
        ...

    def reprice(self, item: int, price: Any, /) -> None:
        """Say what the tokens of an item's present attempt cost, where that is not what its kind's do."""
        ...

    def kind(self, length: float, prices: Any, /) -> int:
        """Return the number of a kind of items, whose answers' lengths are learned together."""
        ...

    def expect(self, estimates: Any, /) -> None:
        """Say what items will use."""
        ...

    # Attempts

    def executing(self, item: int, /) -> bool:
        """Report that an attempt is about to be sent; False while a cooldown delays it."""
        ...

    def not_sent(self, item: int, /) -> None:
        """Return what an attempt has taken from limits."""
        ...

    def failed(
        self,
        item: int,
        kind: int,
        at_least: float,
        has_retry_after: bool,
        usage: Any,
        sign: int = 0,
        together: int = 1,
        /,
    ) -> tuple[bool, str | None]:
        """Report a failed attempt; return whether there will be another one, or what forbids it."""
        ...

    def end_round(self, item: int, usage: Any, /) -> None:
        """Report that an item's request was answered and that it goes on later; ``usage``: of all its requests."""
        ...

    def next_round(
        self, item: int, estimate: Any, takes_start: bool, /
    ) -> tuple[tuple[str, str] | None, tuple[int, Timing] | None]:
        """Report that an item's next request is ready.

        Return category and details if it will not be sent; and its start, if that is wanted and it starts at once.
        """
        ...

    def decide_cooldown(self, queue: int, pause: float, delays: Sequence[float], more: bool, /) -> float:
        """Set the length of a cooldown; return the planned cooldown, seconds."""
        ...

    def extend_slow_start(self, queue: int, delays: Sequence[float], more: bool, /) -> None:
        """Say the next delays of a slow start."""
        ...

    # Results

    def answered(self, item: int, success: bool, usage: Any, frees: bool, /) -> None:
        """Reconcile limits with what an item used; its result is counted later."""
        ...

    def record(self, item: int, success: bool, error: str | None, usage: Any, /) -> None:
        """Count a result."""
        ...

    def record_reused(self, succeeded: int, failed: int, /) -> None:
        """Count results for which no call was made."""
        ...

    def record_rejected(self, count: int, error: str, /) -> None:
        """Count items that never started."""
        ...

    def samples(self) -> tuple[list[SampleRow], tuple[float, int, int]]:
        """Return finished items, evenly spaced over the run; and the run now."""
        ...

    def spend(self, cost: float, /) -> None:
        """Count a cost."""
        ...

    def allow(self, cost: float, is_final: bool, /) -> None:
        """Set what may be spent of a job's cap; until it is final, attempts wait for more."""
        ...

    def claims(self) -> tuple[float, float, float]:
        """Return the cost spent, that reserved, and that of the last attempt that could not be afforded."""
        ...
