"""What shows how far a run is."""

from __future__ import annotations

import asyncio
import sys

import pytest

from batch_llm import process_prompts, process_stream, run
from batch_llm._lanes import BatchProgress
from batch_llm._progress import display as _display
from batch_llm._progress.display import (
    Lines,
    NotebookPanel,
    RichBar,
    Snapshot,
    TqdmBar,
    bar_format,
    display_for,
    panel,
)
from batch_llm._results import Forecast, Interval
from batch_llm.testing import FakeRateLimitError, FakeStrategy

from ..helpers import Echo, quick


class Shown:
    """A display that remembers."""

    def __init__(self):
        self.shown = []
        self.closed = []

    def show(self, snapshot):
        self.shown.append(snapshot)

    def close(self, snapshot):
        self.closed.append(snapshot)


@pytest.fixture
def shown(monkeypatch):
    display = Shown()
    monkeypatch.setattr("batch_llm._pipeline.pipeline.display_for", lambda wanted: display if wanted else None)
    return display


def snapshot(**fields):
    usual = {
        "done": 50,
        "total": 200,
        "is_growing": False,
        "failed": 3,
        "retrying": 2,
        "in_flight": 20,
        "cooldown": 0.0,
        "tokens": 12_345,
        "cost": 0.1234,
        "elapsed": 5.0,
        "rate": 10.0,
    }
    return Snapshot(**{**usual, **fields})


def test_what_there_is_to_say():
    words = snapshot(cooldown=4.0).words()
    assert words == ["3 failed", "2 retrying", "20 in flight", "12.3k tokens", "cost 0.12", "cooldown 4 s"]
    assert snapshot().eta == 15.0
    assert snapshot(is_growing=True).eta is None
    assert snapshot(rate=0.0).eta is None
    plain = snapshot(failed=0, retrying=0, tokens=0, cost=None)
    assert plain.words() == ["20 in flight"]


def test_requests_in_batches_are_told_by_where_they_are():
    quiet = {"failed": 0, "retrying": 0, "tokens": 0, "cost": None}
    waiting = snapshot(**quiet, batches=BatchProgress(1_000, 2_000, 0, 5_000), in_flight=3_000)
    assert waiting.words() == ["3,000 in batches (1,000 queued, 2,000 running)", "5,000 collected"]
    some_live = snapshot(**quiet, batches=BatchProgress(writing=15))
    assert some_live.words() == ["15 in batches (15 being written)", "5 in flight"]


def test_which_display_there_is(monkeypatch):
    assert display_for(False) is None
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    assert type(display_for("auto")) is Lines
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for wanted, kind in (("auto", TqdmBar), (True, TqdmBar), ("tqdm", TqdmBar), ("rich", RichBar)):
        display = display_for(wanted)
        assert type(display) is kind
        display.close(snapshot())
    monkeypatch.setattr(_display, "_is_notebook", lambda: True)
    assert type(display_for("auto")) is NotebookPanel
    assert type(display_for(True)) is NotebookPanel
    with pytest.raises(ValueError, match="not 'bar'"):
        display_for("bar")


class ZMQInteractiveShell:
    pass


class TerminalInteractiveShell:
    pass


def shell_of(module, name, *bases):
    return type(name, bases, {"__module__": module})()


SHELLS = {
    "Jupyter and VS Code": (shell_of("ipykernel.zmqshell", "ZMQInteractiveShell"), {}, NotebookPanel),
    "Colab": (shell_of("google.colab._shell", "Shell", ZMQInteractiveShell), {}, NotebookPanel),
    "Databricks": (
        shell_of("dbruntime.shell", "DatabricksShell", ZMQInteractiveShell),
        {"DATABRICKS_RUNTIME_VERSION": "15.4"},
        NotebookPanel,
    ),
    "Databricks, before": (
        shell_of("PythonShell", "PythonShell", TerminalInteractiveShell),
        {"DATABRICKS_RUNTIME_VERSION": "10.4"},
        TqdmBar,
    ),
    "Spyder": (shell_of("spyder_kernels.console.shell", "SpyderShell", ZMQInteractiveShell), {}, Lines),
    "a job of Databricks": (None, {"DATABRICKS_RUNTIME_VERSION": "15.4"}, Lines),
    "IPython in a pipe": (TerminalInteractiveShell(), {}, Lines),
    "a server": (None, {}, Lines),
}


@pytest.mark.parametrize("place", SHELLS)
def test_progress_shows_in_all_kinds_of_places(place, monkeypatch):
    shell, environment, kind = SHELLS[place]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(_display, "_shell", lambda: shell)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    assert type(display_for("auto")) is kind
    if kind is Lines:
        monkeypatch.setattr(sys, "stderr", None)
        assert type(display_for("auto")) is Lines


def test_lines_where_there_is_no_terminal(capsys):
    lines = Lines()
    lines.show(snapshot(elapsed=0.0, done=0))
    lines.close(snapshot(elapsed=5.0))
    assert capsys.readouterr().err == ""  # a short run says nothing
    lines.show(snapshot(elapsed=30.0))
    lines.show(snapshot(elapsed=60.0, is_growing=True))
    lines.close(snapshot(elapsed=70.0, done=200, not_sent=5))
    first, second, last = capsys.readouterr().err.splitlines()
    assert "batch-llm: 50 of 200 (25%), 10/s, 15 s left, 3 failed, 2 retrying, 20 in flight, 12.3k tokens" in first
    assert "50 so far, 10/s" in second
    assert last.endswith("200 of 200 (100%), 70 s, 2.9/s, 3 failed, 5 not sent, 2 retrying, 12.3k tokens, cost 0.12")
    assert "\r" not in first


async def test_lines_come_at_intervals(capsys, monkeypatch):
    monkeypatch.setattr(Lines, "interval", 0.2)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    batch = await process_prompts(Echo(0.05), ["a"] * 100, concurrency=5, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= batch.wall_time_seconds / 0.2 + 2
    assert "100 of 100 (100%)" in lines[-1]


def test_a_library_that_is_missing_is_named(monkeypatch):
    for name in ("rich", "rich.console", "rich.progress"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"batch-llm\[rich\]"):
        display_for("rich")


def test_bars_show_it(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for kind in (TqdmBar, RichBar):
        bar = kind()
        bar.show(snapshot())
        bar.close(snapshot(done=200))
        text = capsys.readouterr().err
        assert "200/200" in text
        assert "3 failed" in text
        assert "20 in flight" in text
        assert " left" not in text.rpartition("200/200")[2]  # nothing is, at the end


def test_a_panel_shows_it():
    text = panel(snapshot(), is_over=False)
    assert "50 / 200" in text
    assert "15 s left" in text
    assert "width:23.50%" in text  # succeeded
    assert "width:1.50%" in text  # failed
    over = panel(snapshot(done=200, is_growing=False), is_over=True)
    assert "in flight" not in over
    assert "40/s" in over
    assert "0 / 0" in panel(snapshot(done=0, total=0, failed=0), is_over=True)


async def test_it_is_drawn_at_intervals_and_once_at_the_end(shown):
    batch = await process_prompts(Echo(0.01), ["a"] * 300, concurrency=10, progress=True)
    assert 2 <= len(shown.shown) <= batch.wall_time_seconds / 0.1 + 2
    assert len(shown.closed) == 1
    last = shown.closed[0]
    assert (last.done, last.total, last.failed, last.in_flight) == (300, 300, 0, 0)
    assert last.tokens == 300 * 15
    middle = shown.shown[len(shown.shown) // 2]
    assert middle.total == 300  # known before they are read
    assert 0 < middle.in_flight <= 10
    assert middle.rate > 0


async def test_a_source_of_unknown_length_and_an_early_end(shown):
    async with process_stream(Echo(0.01), map(str, range(10**6)), concurrency=5, progress="tqdm") as stream:
        async for result in stream:
            if result.submission_index == 100:
                break
    assert shown.shown[-1].is_growing
    assert shown.shown[-1].eta is None
    assert len(shown.closed) == 1


async def test_pauses_and_retries_show(shown, monkeypatch):
    # The pause is longer than the test; the run ends once it has been shown.
    strategy = FakeStrategy("x", failure_schedule=[FakeRateLimitError(retry_after=600)])
    pause = asyncio.get_running_loop().create_future()

    def show(snapshot):
        if snapshot.cooldown > 0 and not pause.done():
            pause.set_result(snapshot)

    monkeypatch.setattr(shown, "show", show)
    running = asyncio.ensure_future(process_prompts(strategy, ["a"], progress=True, config=quick(concurrency=5)))
    snapshot = await pause
    assert snapshot.retrying == 1
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_known_price_shows_as_cost(shown):
    strategy = FakeStrategy("x", token_usage={"input_tokens": 1_000_000, "output_tokens": 0, "total_tokens": 1_000_000})
    strategy.model = "gpt-5.5"
    await process_prompts(strategy, ["a", "b"], progress=True)
    assert shown.closed[0].cost == pytest.approx(10.0)


async def test_a_display_that_fails_is_given_up(monkeypatch, caplog):
    class Fails(Shown):
        def show(self, snapshot):
            super().show(snapshot)
            raise OSError("the terminal is gone")

    display = Fails()
    monkeypatch.setattr("batch_llm._pipeline.pipeline.display_for", lambda wanted: display)
    batch = await process_prompts(Echo(0.01), ["a"] * 100, concurrency=5, progress=True)
    assert batch.succeeded == 100
    assert len(display.shown) == 1
    assert "the terminal is gone" in caplog.text


async def test_nothing_is_drawn_where_nobody_looks(capsys):
    await process_prompts(Echo(), ["a"], progress=True)
    await asyncio.to_thread(run, Echo(), ["a"], progress=True)
    assert capsys.readouterr().err == ""
    await process_prompts(Echo(), ["a"], progress="tqdm")
    assert "1/1" in capsys.readouterr().err
    with pytest.raises(ValueError, match="progress must be"):
        await process_prompts(Echo(), ["a"], progress="bar")


def test_a_forecast_has_intervals():
    known = Forecast(Interval(65.0, 70.0, 77.0), Interval(1.15, 1.2, 1.28))
    shown = snapshot(forecast=known)
    assert shown.eta == 70.0
    assert "cost 0.12 of 1.15 to 1.28" in shown.words()
    assert "65 s to 77 s left" in bar_format(shown, None)
    assert "70 s left (65 s to 77 s)" in panel(shown, is_over=False)
    assert "70 s" not in panel(shown, is_over=True)
    unknown = snapshot(forecast=Forecast(None, None))
    assert unknown.eta == 15.0
    assert "cost 0.12" in unknown.words()
