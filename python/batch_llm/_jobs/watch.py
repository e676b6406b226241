"""The program that started a job, in its ``with`` block: shows the progress of all workers, and ends them gently."""

from __future__ import annotations

import logging
import signal
import threading
import time
from types import FrameType
from typing import TYPE_CHECKING, Any

from .._logs import answer, log_event
from .._progress import Display, RecentRate, Snapshot, display_for
from ..core.config import ProcessorConfig
from ..errors import BatchAbortedError, BatchInterruptedError
from .member import REPORT_SECONDS

if TYPE_CHECKING:
    from .._types import ProgressDisplay
    from .job import Job

DRAW_SECONDS = 0.5
"""How often the display is drawn."""
HEARD_SECONDS = 4 * REPORT_SECONDS
"""After so long all workers have heard of the end of a job, and have said what they have in flight."""
GRACE_SECONDS = ProcessorConfig.interrupt_grace_seconds + HEARD_SECONDS
"""How long workers are waited for."""


class Watch:
    """Watches a job until it is closed.

    Args:
        job: The job.
        progress: The display.
    """

    def __init__(self, job: Job, progress: ProgressDisplay) -> None:
        self._job = job
        self._lock = threading.Lock()
        self._times = 0
        self._is_closed = False
        self._closed = threading.Event()
        self._previous: Any = None
        wanted: ProgressDisplay = "auto" if progress is True else progress
        display = display_for(wanted)
        self._drawing: threading.Thread | None = None
        if display is not None:
            self._drawing = threading.Thread(target=self._draw, args=(display,), name="batch-llm job", daemon=True)
            self._drawing.start()
        self._listen()

    def close(self, error: BaseException | None) -> None:
        """End it.

        Args:
            error: What the block raised; it stops the job.

        Raises:
            KeyboardInterrupt: If the job was interrupted, and the block has not raised anything.
        """
        with self._lock:
            self._is_closed = True
        self._closed.set()
        if self._previous is not None and signal.getsignal(signal.SIGINT) == self._on_signal:
            signal.signal(signal.SIGINT, self._previous)
        if error is not None:
            is_interrupt = isinstance(error, KeyboardInterrupt)
            self._stop(BatchInterruptedError.category if is_interrupt else BatchAbortedError.category)
        if self._drawing is not None:
            self._drawing.join()
        if self._times and error is None:
            raise KeyboardInterrupt("the job was interrupted; job.summary() shows the results so far")

    def _stop(self, category: str) -> None:
        try:
            if self._job.has_started:
                self._job._stop(category)
        except OSError as error:
            log_event(logging.WARNING, "job_board", "The job %s cannot be stopped: %s", self._job.name, error)

    # Ctrl-C

    def _listen(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        present = signal.getsignal(signal.SIGINT)
        if not callable(present):  # ignored, or not Python's
            return
        try:
            signal.signal(signal.SIGINT, self._on_signal)
        except ValueError:  # a sub-interpreter
            return
        self._previous = present

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._times += 1
        if self._times > 1:
            self._previous(number, frame)
            return
        # It may have interrupted whoever holds the locks that this needs.
        threading.Thread(target=self._end_gently, name="batch-llm job", daemon=True).start()

    def _end_gently(self) -> None:
        """Stop all workers, wait for what they have in flight, and interrupt the program then."""
        text = "Interrupted: waiting up to %g s for the requests of all workers; interrupt again to stop at once"
        answer("interrupted", text, GRACE_SECONDS, seconds=GRACE_SECONDS)
        began = time.monotonic()
        self._stop(BatchInterruptedError.category)
        while time.monotonic() - began < GRACE_SECONDS and not self._closed.wait(REPORT_SECONDS):
            in_flight = self._in_flight()
            if not in_flight and time.monotonic() - began >= HEARD_SECONDS:
                break
        with self._lock:
            if self._is_closed or self._times > 1:
                return
            if hasattr(signal, "pthread_kill"):
                # Also where the main thread waits in a system call.
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            else:
                signal.raise_signal(signal.SIGINT)

    def _in_flight(self) -> int:
        try:
            return self._job._moment()[1]
        except OSError:  # the board was never reached
            return 0

    # Progress

    def _draw(self, display: Display) -> None:
        began, rate = time.monotonic(), RecentRate()
        interval = max(DRAW_SECONDS, getattr(display, "interval", 0.0))
        try:
            while not self._closed.wait(interval):
                display.show(self._snapshot(began, rate))
            display.close(self._snapshot(began, rate))
        except Exception as error:
            text = "The progress display failed and was stopped: %s: %s"
            log_event(logging.WARNING, "display_failed", text, type(error).__name__, error)

    def _snapshot(self, began: float, rate: RecentRate) -> Snapshot:
        stats, in_flight = self._job._moment()
        done = stats.processed - stats.not_sent
        return Snapshot(
            done=done,
            total=stats.total,
            is_growing=True,
            failed=stats.failed,
            not_sent=stats.not_sent,
            retrying=0,
            in_flight=in_flight,
            cooldown=0.0,
            tokens=stats.total_tokens,
            cost=stats.budget_cost_used or None,
            elapsed=time.monotonic() - began,
            rate=rate.after(done),
            reused=stats.replayed,
        )
