"""How far a run is, drawn a few times a second: a bar in a terminal, a panel in a notebook; else a line now and then.

Used by the pipeline.

The figures are pulled from the engine's counters; no item pays for it. Nothing that drawing raises reaches the run.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Protocol

from .._lanes import BatchProgress
from .._logs import logger
from .._report import rate, seconds, short, until
from .._results import cause_of
from .._secrets import quoted
from .._types import ProgressDisplay
from .costs import cost_of
from .outlook import Outlook

if TYPE_CHECKING:
    from .._results import Forecast
    from .._run import Run


WINDOW_SECONDS = 10.0
"""The window of the displayed rate, seconds."""
NOTEBOOK_SECONDS = 0.25
"""How often a notebook's panel is drawn at most."""
NO_BATCHES = BatchProgress()
BAR_COLUMNS = 10
"""Minimum width of a bar, characters."""
WIDE_COLUMNS = 80
SHORTENED_COLUMNS = 16
"""Minimum length of a shortened wait reason, characters."""
LINE_SECONDS = 30.0
"""The time between two lines without a terminal, seconds."""


@dataclass(frozen=True)
class Snapshot:
    """A run at one moment."""

    done: int
    total: int
    """Items so far, or how many there will be if that is known."""
    is_growing: bool
    failed: int
    retrying: int
    in_flight: int
    cooldown: float
    tokens: int
    cost: float | None
    elapsed: float
    rate: float
    reused: int = 0
    outage: float | None = None
    """How long the provider has been down, seconds."""
    batches: BatchProgress = NO_BATCHES
    """Requests that wait in batches; they are in flight too."""
    not_sent: int = 0
    standstill: tuple[str, float | None] | None = None
    """Why the run is stalled, and the seconds left if known."""
    forecast: Forecast | None = None

    @property
    def eta(self) -> float | None:
        """Seconds to the end, if known: by the forecast; by the rate as long as there is none."""
        if self.forecast is not None and self.forecast.seconds_left is not None:
            return self.forecast.seconds_left.expected
        if self.is_growing or self.rate <= 0:
            return None
        return (self.total - self.done) / self.rate

    def end(self) -> str:
        """Between which times the run will probably end; empty if that is not known."""
        left = None if self.forecast is None else self.forecast.seconds_left
        return "" if left is None else f"{seconds(left.low)} to {seconds(left.high)}"

    def final_cost(self) -> str:
        """Between which amounts all of it will probably cost; empty if that is not known."""
        cost = None if self.forecast is None else self.forecast.cost
        return "" if cost is None or not cost.high else f"{_money(cost.low)} to {_money(cost.high)}"

    def words(self) -> list[str]:
        """Return the texts beside the count and the rate."""
        words = []
        if self.failed:
            words.append(f"{self.failed:,} failed")
        if self.not_sent:
            words.append(f"{self.not_sent:,} not sent")
        if self.retrying:
            words.append(f"{self.retrying:,} retrying")
        if self.reused:
            words.append(f"{self.reused:,} reused")
        words += self.batches.words()
        others = max(self.in_flight - self.batches.waiting, 0)
        if others or not self.batches.waiting:
            words.append(f"{others:,} in flight")
        if self.tokens:
            words.append(f"{short(self.tokens)} tokens")
        if self.cost is not None:
            final = self.final_cost()
            words.append(f"cost {_money(self.cost)}" + (f" of {final}" if final else ""))
        return words + self.waits()

    def waits(self) -> list[str]:
        """What everything waits for."""
        words = []
        if self.outage is not None:
            words.append(f"the provider has been down for {seconds(self.outage)}")
        if self.standstill is not None:
            name, left = self.standstill
            words.append(f"waiting {until(left)}: {cause_of(name)}")
        elif self.cooldown > 0:
            words.append(f"cooldown {seconds(self.cooldown)}")
        return words


def _money(amount: float) -> str:
    return f"{amount:,.2f}" if amount >= 1 else f"{amount:.2g}"


class Display(Protocol):
    """Something that shows a run."""

    def show(self, snapshot: Snapshot) -> None:
        """Draw."""

    def close(self, snapshot: Snapshot) -> None:
        """Draw the last state, and leave it."""


def display_for(wanted: ProgressDisplay) -> Display | None:
    """Return the display of a run.

    Raises:
        ValueError: If ``wanted`` is none of the names.
        ImportError: If it needs something that is not installed; names it.
    """
    if wanted is False:
        return None
    if wanted == "notebook" or (wanted in (True, "auto") and _is_notebook()):
        return NotebookPanel()
    if wanted == "rich":
        return RichBar()
    if wanted == "tqdm" or wanted is True or (wanted == "auto" and _draws_bars()):
        return TqdmBar()
    if wanted == "auto":
        return Lines()
    raise ValueError(
        f"progress must be True, False, 'tqdm', 'rich', 'notebook' or a function of (completed, total, item_id); "
        f"not {quoted(wanted)}"
    )


def _shell() -> Any:
    """IPython's shell, if this runs in one."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


def _is_notebook() -> bool:
    """Whether HTML shows: in Jupyter, VS Code, Colab, and whatever else has a kernel of its own kind."""
    shell = _shell()
    kinds = [] if shell is None else type(shell).__mro__
    names = {kind.__name__ for kind in kinds}
    modules = {kind.__module__.split(".")[0] for kind in kinds}
    # Spyder's console shows no HTML.
    return ("ZMQInteractiveShell" in names or "google" in modules) and not any("spyder" in name for name in modules)


def _draws_bars() -> bool:
    """Whether a bar is drawn in place: in a terminal, and in the cells of Databricks, whatever their shell is."""
    if _shell() is not None and "DATABRICKS_RUNTIME_VERSION" in os.environ:
        return True
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # there is none, or it is closed
        return False


class Ticker:
    """Draws a display of a run at intervals, on its event loop.

    Args:
        run: The run.
        display: What shows it.
        interval: Seconds between two drawings, at least.
        expected: How many items there will be, if that is known.
        price: What the run's tokens cost, if they have one price.
    """

    def __init__(self, run: Run, display: Display, interval: float, expected: int | None, price: Any) -> None:
        self._run = run
        self._display = display
        self._interval = max(interval, getattr(display, "interval", 0.0))
        self._expected = expected
        self._price = price
        self._rate = RecentRate()
        self._outlook = Outlook(run)
        self._failed = False
        self._timer = run.loop.call_soon(self._tick)

    def _tick(self) -> None:
        self._draw(self._display.show)
        self._timer = self._run.loop.call_later(self._interval, self._tick)

    def close(self) -> None:
        """Draw once more, for good."""
        self._timer.cancel()
        self._draw(self._display.close)

    def _draw(self, draw: Any) -> None:
        if self._failed:
            return
        try:
            draw(self._snapshot())
        except Exception as error:
            self._failed = True
            logger.warning("The progress display failed and was stopped: %s: %s", type(error).__name__, error)

    def _snapshot(self) -> Snapshot:
        stats = self._run.stats()
        _, in_flight, retrying, cooldown, outage, standstill = self._run.gauges()
        done = stats.processed - stats.not_sent
        total = max(self._expected or 0, stats.total)
        return Snapshot(
            done=done,
            total=total,
            is_growing=self._run.is_open and self._expected is None,
            failed=stats.failed,
            not_sent=stats.not_sent,
            retrying=retrying,
            in_flight=in_flight,
            cooldown=cooldown,
            tokens=stats.total_tokens,
            cost=cost_of(stats, self._price()),
            elapsed=self._run.elapsed(),
            rate=self._rate.after(done),
            reused=stats.replayed,
            outage=outage,
            batches=self._run.pipeline.batch_progress(),
            standstill=standstill,
            forecast=self._outlook.now() if stats.processed < total else None,
        )


class RecentRate:
    """How many results per second there were in the last :data:`WINDOW_SECONDS`."""

    def __init__(self) -> None:
        self._history: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])

    def after(self, done: int) -> float:
        """Return the rate, now that so many are done in all."""
        now, history = time.monotonic(), self._history
        history.append((now, done))
        while len(history) > 2 and now - history[0][0] > WINDOW_SECONDS:
            history.popleft()
        began, before = history[0]
        return (done - before) / (now - began) if now > began else 0.0


class TqdmBar:
    """A tqdm bar on stderr."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._bar: Any = tqdm(total=0, unit="item", dynamic_ncols=True, miniters=0, mininterval=0)

    def show(self, snapshot: Snapshot) -> None:
        """Draw."""
        bar = self._bar
        bar.total, bar.n = None if snapshot.is_growing else snapshot.total, snapshot.done
        bar.bar_format = bar_format(snapshot, bar.format_dict["ncols"])
        bar.refresh()

    def close(self, snapshot: Snapshot) -> None:
        """Draw the last state, and leave it."""
        self.show(snapshot)
        self._bar.close()


def bar_format(snapshot: Snapshot, columns: int | None) -> str:
    """Return the line for tqdm: as much text as leaves room for the bar.

    If the number of items is unknown, it has neither bar nor percentage.

    Args:
        snapshot: The run.
        columns: The width of the terminal; None: without bound.
    """
    from tqdm import tqdm

    if snapshot.is_growing or not snapshot.total:
        start, width, count, left = "", 0, f"{snapshot.done:,} done", ""
    else:
        start, width, count = "{percentage:3.0f}%|{bar}| ", len("100%|| ") + BAR_COLUMNS, _count(snapshot)
        left = "<?" if snapshot.eta is None else f"<{tqdm.format_interval(snapshot.eta)}"
    words = [tqdm.format_interval(snapshot.elapsed) + left, rate(snapshot.rate or None), *snapshot.words()]
    if snapshot.end():
        words.append(f"{snapshot.end()} left")
    room = None if columns is None else columns - width - len(count) - len(" []")
    shown = _fitting(words, snapshot.waits(), room)
    return start + (f"{count} [{shown}]" if shown else count).replace("{", "{{").replace("}", "}}")


def _count(snapshot: Snapshot) -> str:
    return f"{snapshot.done:,}/{snapshot.total:,}"


def _fitting(words: list[str], important: list[str], room: int | None) -> str:
    """Return as many texts as there is room for: the first, then the important ones, shortened if necessary."""
    if room is None:
        return ", ".join(words)
    chosen: dict[str, str] = {}
    for word in [words[0], *important, *words[1:]]:
        if word in chosen:
            continue
        if len(word) > room and (word not in important or room < SHORTENED_COLUMNS):
            continue
        chosen[word] = word if len(word) <= room else f"{word[: room - 3]}..."
        room -= len(chosen[word]) + len(", ")
    return ", ".join(chosen[word] for word in words if word in chosen)


class RichBar:
    """A bar of rich's."""

    def __init__(self) -> None:
        try:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        except ImportError as error:
            raise ImportError("progress='rich' needs rich. Install it: pip install 'batch-llm[rich]'") from error
        self._bar = BarColumn()
        self._progress = Progress(
            MofNCompleteColumn(),
            self._bar,
            TextColumn("{task.fields[words]}"),
            console=Console(stderr=True),
            auto_refresh=False,
        )
        self._task = self._progress.add_task("", total=None, words="")
        self._progress.start()

    def show(self, snapshot: Snapshot) -> None:
        """Draw."""
        columns = self._progress.console.width
        self._bar.bar_width = BAR_COLUMNS if columns < WIDE_COLUMNS else 24
        count = 2 * max(len(str(snapshot.done)), len(str(snapshot.total))) + len("/")
        room = columns - self._bar.bar_width - count - len("  ")
        self._progress.update(
            self._task,
            completed=snapshot.done,
            total=None if snapshot.is_growing else snapshot.total or None,
            words=_fitting(_line(snapshot), snapshot.waits(), room),
        )
        self._progress.refresh()

    def close(self, snapshot: Snapshot) -> None:
        """Draw the last state, and leave it."""
        self.show(snapshot)
        self._progress.stop()


class Lines:
    """A line on stderr every half a minute, for logs of servers and jobs; nothing of a run that is done before."""

    interval = LINE_SECONDS

    def __init__(self) -> None:
        self._has_begun = False

    def show(self, snapshot: Snapshot) -> None:
        """Write a line, but for the very beginning."""
        if snapshot.elapsed >= 0.9 * self.interval:
            self._has_begun = True
            self._write(snapshot, _line(snapshot))

    def close(self, snapshot: Snapshot) -> None:
        """Write the last line."""
        if self._has_begun:
            self._write(snapshot, _final_words(snapshot))

    def _write(self, snapshot: Snapshot, words: list[str]) -> None:
        part = f" ({100 * snapshot.done / snapshot.total:.0f}%)" if snapshot.total and not snapshot.is_growing else ""
        of = " so far" if snapshot.is_growing else f" of {snapshot.total:,}"
        when = time.strftime("%Y-%m-%d %H:%M:%S")
        line = f"{when} batch-llm: {snapshot.done:,}{of}{part}, {', '.join(words)}"
        print(line, file=sys.stderr, flush=True)  # noqa: T201 - requested by the user


def _final_words(snapshot: Snapshot) -> list[str]:
    words = [seconds(snapshot.elapsed), rate(snapshot.done / snapshot.elapsed if snapshot.elapsed else None)]
    return words + [word for word in snapshot.words() if "in flight" not in word]


def _line(snapshot: Snapshot) -> list[str]:
    words = [rate(snapshot.rate or None), *snapshot.words()]
    if snapshot.eta:
        interval = f" ({snapshot.end()})" if snapshot.end() else ""
        words.insert(1, f"{seconds(snapshot.eta)} left{interval}")
    return words


class NotebookPanel:
    """An HTML panel in the cell's output, replaced in place. It needs IPython alone, so that it shows everywhere."""

    interval = NOTEBOOK_SECONDS

    def __init__(self) -> None:
        try:
            from IPython import display as show
        except ImportError as error:
            raise ImportError("progress='notebook' needs IPython. Install it: pip install ipython") from error
        ipython: Any = show
        self._html = ipython.HTML
        self._handle = ipython.display(ipython.HTML(""), display_id=True)

    def show(self, snapshot: Snapshot) -> None:
        """Draw."""
        self._update(snapshot, is_over=False)

    def close(self, snapshot: Snapshot) -> None:
        """Draw the last state, and leave it."""
        self._update(snapshot, is_over=True)

    def _update(self, snapshot: Snapshot, *, is_over: bool) -> None:
        if self._handle is not None:
            self._handle.update(self._html(panel(snapshot, is_over)))


def panel(snapshot: Snapshot, is_over: bool) -> str:
    """The HTML of a notebook's panel."""
    from .._report import BAD, INK, MARK

    part = snapshot.done / snapshot.total if snapshot.total else 0.0
    bad = snapshot.failed / snapshot.total if snapshot.total else 0.0
    of = "so far" if snapshot.is_growing else ""
    head = f"{snapshot.done:,} / {snapshot.total:,} {of}"
    words = _final_words(snapshot) if is_over else _line(snapshot)
    return (
        f'<div style="font:13px system-ui,sans-serif;max-width:640px;margin:0;text-align:left;color:{INK}">'
        '<div style="height:8px;border-radius:4px;background:rgba(128,128,128,.25);display:flex;overflow:hidden">'
        f'<div style="width:{100 * (part - bad):.2f}%;background:{MARK}"></div>'
        f'<div style="width:{100 * bad:.2f}%;background:{BAD}"></div></div>'
        f'<div style="margin-top:3px">{escape(head)} <span style="opacity:.8">{escape(" · ".join(words))}</span></div>'
        "</div>"
    )
