"""What limited a run over time: from the engine to the counters, the store, the shell and the page."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
from click.testing import CliRunner

import batch_llm
from batch_llm import BatchResult, inspect
from batch_llm._results import bounds, over_time_of
from batch_llm._run.bound_over_time import BoundOverTime
from batch_llm._stored_rows import StoredItems
from batch_llm._view import BatchItems, Index, ViewServer, write
from batch_llm.cli.main import main
from batch_llm.cli.viewing import RunStatus

from .browser import Page, chromium
from .limited import changes_of, limited_run

ROOT = Path(__file__).parent.parent.parent
KINDS = ["run.db", "run.jsonl", "segments/"]


def apart(make):
    """Run a coroutine in a thread: the browser has a loop in this one."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(make())).result()


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("limited")


@pytest.fixture(scope="module")
def batch(folder):
    """The run, in stores of each kind."""

    async def all_kinds():
        return await asyncio.gather(*(limited_run(store=f"{folder}/{name}", control=False) for name in KINDS))

    return apart(all_kinds)[0]


def test_the_counters_have_it(batch):
    found = batch.stats.bound_over_time
    assert changes_of(found) == ["cooldown", "workers"]
    assert found["interval"] == 1.0
    assert found["end"] == pytest.approx(batch.wall_time_seconds, abs=0.5)
    for name, seconds in batch.stats.bound_by.items():
        assert sum(found["seconds"].get(name, [0])) == pytest.approx(seconds, abs=0.02)
    assert over_time_of(found) == found


def test_it_survives_files_of_batches(batch):
    assert BatchResult.from_json(batch.to_json()).stats.bound_over_time == batch.stats.bound_over_time


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_of_store_has_it_once(batch, folder, name):
    (found,) = inspect(f"{folder}/{name}").bound_over_time.values()
    assert changes_of(found) == ["cooldown", "workers"]
    assert found["began_at"] > 1e9
    index = Index(StoredItems(f"{folder}/{name}"))
    index.read()
    (chart,) = index.overview()["charts"]
    assert (chart["run"], chart["bound"]) == (1, found)


def test_older_stores_have_none(batch, folder, tmp_path):
    source, path = sqlite3.connect(folder / "run.db"), tmp_path / "old.db"
    with sqlite3.connect(path) as old:
        source.backup(old)
        old.execute("DROP TABLE bound_over_time")
    old.close()
    source.close()
    assert inspect(path).bound_over_time == {}
    index = Index(StoredItems(str(path)))
    index.read()
    (chart,) = index.overview()["charts"]
    assert chart["bound"] is None
    assert sum(chart["cooldown"]) > 0
    again = batch_llm.run(str.upper, ["e"], store=path, progress=False, control=False)
    assert list(inspect(path).bound_over_time) == [2]
    assert again.succeeded == 1


WRONG = [
    None, 7, "text", [], {}, {"interval": 1, "end": 1}, {"interval": 0, "end": 1, "seconds": {"workers": [1]}},
    {"interval": 1, "end": 1, "seconds": {}}, {"interval": 1, "end": 1, "seconds": {"workers": []}},
    {"interval": 1, "end": 1, "seconds": {"workers": [1], "cooldown": [1, 2]}},
    {"interval": 1, "end": 1, "seconds": {"workers": ["1"]}}, {"interval": 1, "end": 1, "seconds": {"workers": [-1]}},
    {"interval": 1, "end": 1, "seconds": {"workers": [float("nan")]}},
    {"interval": 1, "end": 1, "seconds": {"workers": [1] * 1001}},
    {"interval": 1, "end": 1e300, "seconds": {"workers": [1]}},
    {"interval": True, "end": 1, "seconds": {"workers": [1]}},
    {"interval": 1, "end": 1, "seconds": {"x" * 41: [1]}},
    {"interval": 1, "end": 1, "seconds": {str(number): [1] for number in range(51)}},
]  # fmt: skip


@pytest.mark.parametrize("found", WRONG, ids=repr)
def test_what_the_engine_does_not_make_is_not_read(found):
    assert over_time_of(found) is None


def test_a_damaged_row_costs_itself(batch, folder, tmp_path):
    source, path = sqlite3.connect(folder / "run.db"), tmp_path / "odd.db"
    with sqlite3.connect(path) as odd:
        source.backup(odd)
        odd.execute("INSERT INTO bound_over_time VALUES (7, '{'), (8, x'00ff'), (9, '[1e999]')")
    odd.close()
    source.close()
    assert list(inspect(path).bound_over_time) == [1]


def test_a_long_run_writes_seldom():
    class Store:
        texts: ClassVar[list[str]] = []

        def note_bound_over_time(self, text: str) -> None:
            self.texts.append(text)

    stats = batch_llm.ProcessingStats(start_time=5.0, bound_over_time={"interval": 1.0, "end": 0.0, "seconds": {}})
    keeper = BoundOverTime(Store(), lambda: stats)
    for quarter in range(4 * 86_400):
        keeper.look(quarter / 4)
    assert 50 < len(Store.texts) < 100
    assert json.loads(Store.texts[0]) == {"began_at": 5.0, "interval": 1.0, "end": 0.0, "seconds": {}}


def test_the_shell_says_it(tmp_path, monkeypatch):
    monkeypatch.setenv("BATCH_LLM_STATE", str(tmp_path / "state"))
    apart(lambda: limited_run(store=tmp_path / "run.db", control="limited"))

    def call(*arguments):
        done = CliRunner().invoke(main, ["explain", "limited", *arguments])
        assert done.exit_code == 0, done.output
        return done.output

    lines = [line for line in call("--over-time").splitlines() if " to " in line and line[0].isdigit()]
    found = [re.fullmatch(r"[\d.]+ s to [\d.]+ s: ([a-z ]+) \(\d+%\)", line) for line in lines]
    limits = [one[1] for one in found]
    assert limits.index("cooldown") < limits.index("workers")
    assert "s: workers" not in call()
    found = json.loads(call("--over-time", "--json"))["data"]
    assert changes_of(found["bound_over_time"]) == ["cooldown", "workers"]
    assert "bound_over_time" not in json.loads(call("--json"))["data"]
    (ended,) = (event for event in inspect(tmp_path / "run.db").events if event["type"] == "ended")
    assert "bound_over_time" not in ended["status"]["explanation"]


PROGRAM = (
    "import asyncio, sys; from tests.view.limited import limited_run; "
    "asyncio.run(limited_run(sys.argv[1], store=sys.argv[2]))"
)


def test_the_page_shows_it_live_and_afterwards(browser, tmp_path, monkeypatch):
    monkeypatch.setenv("BATCH_LLM_STATE", str(tmp_path / "state"))
    gate, path = tmp_path / "gate", tmp_path / "run.db"
    running = subprocess.Popen([sys.executable, "-c", PROGRAM, gate, path], cwd=ROOT)
    page = None
    try:
        while not path.exists() or inspect(path).items < 1:
            assert running.poll() is None
        with ViewServer(StoredItems(str(path), None, RunStatus(str(path)))) as server:
            page = Page(browser, server.url)
            page.tab("Charts")
            band = page.page.locator(".chart [role=img][aria-label^='What limited the run: ']")
            # Nothing more is in the store: the run says so itself.
            for word in ("cooldown after a rate limit", "all workers busy"):
                page.page.locator(f".chart [role=img][aria-label*='{word}']").wait_for(timeout=60_000)
            gate.touch()
            assert running.wait(60) == 0
            page.tab("Items")
            page.total("4 items")
            page.tab("Charts")
            assert "cooldown after a rate limit" in band.get_attribute("aria-label")
            assert page.problems == []
    finally:
        gate.touch()
        running.wait(60)
        if page is not None:
            page.close()


@pytest.fixture(params=["light", "dark"])
def page(request, browser, batch, tmp_path):
    """The page of a report, in a theme."""
    write(BatchItems(batch), tmp_path / "report.html")
    opened = Page(browser, (tmp_path / "report.html").as_uri(), color_scheme=request.param)
    opened.tab("Charts")
    yield opened
    assert opened.problems == []
    opened.close()


COLOURS = """figure => {
    const canvas = figure.querySelector("canvas"), {width, height} = canvas, found = []
    const data = canvas.getContext("2d").getImageData(0, 0, width, height).data
    for (let x = 0; x < width; x += 4) {
        const at = 4 * (Math.floor(height / 2) * width + x)
        found.push([data[at], data[at + 1], data[at + 2]].join())
    }
    return found
}"""
WANTED = """name => {
    const probe = document.createElement("span")
    probe.style.color = `var(${name})`
    document.body.append(probe)
    const found = getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).join()
    probe.remove()
    return found
}"""


def test_a_report_shows_it_in_both_themes(page):
    figure = page.page.locator(".chart", has=page.page.locator("h3", has_text="What limited the run"))
    label = figure.locator("[role=img]").get_attribute("aria-label")
    shares = dict(re.findall(r"(?:: |, )([a-z ]+) (\d+) %", label))
    assert {"cooldown after a rate limit", "all workers busy"} <= shares.keys()
    assert 95 <= sum(map(int, shares.values())) <= 105
    names = figure.locator(".u-legend .u-label").all_inner_texts()
    assert {"cooldown after a rate limit", "all workers busy"} <= set(names)
    # From left to right: a band of the one colour, then one of the other.
    colours = figure.evaluate(COLOURS)
    cooldown, workers = (page.page.evaluate(WANTED, f"--bound-{name}") for name in ("cooldown", "workers"))
    assert colours.count(cooldown) > 10
    assert colours.count(workers) > 10
    assert max(at for at, one in enumerate(colours) if one == cooldown) < max(
        at for at, one in enumerate(colours) if one == workers
    )


def test_it_is_read_with_the_keyboard(page):
    reader = page.page.get_by_role("slider", name="Read: What limited the run")
    reader.focus()
    texts = [reader.get_attribute("aria-valuetext")]
    for _ in range(int(reader.get_attribute("max"))):
        page.page.keyboard.press("ArrowRight")
        texts.append(reader.get_attribute("aria-valuetext"))
    assert texts[0].startswith("0 s to 1 s: ")
    assert texts[1].startswith("1 s to 2 s: ")
    shares = [dict(re.findall(r"([a-z ]+) (\d+) %", text.partition(": ")[2])) for text in texts]
    first = next(at for at, one in enumerate(shares) if int(one[" cooldown after a rate limit"]) > 50)
    assert any(int(one["all workers busy"]) > 50 for one in shares[first:])
    figure = page.page.locator(".chart", has=page.page.locator("h3", has_text="What limited the run"))
    figure.locator(".u-legend .u-value").first.get_by_text(f"{len(texts) - 1} s").wait_for()
    page.page.keyboard.press("Home")
    page.page.keyboard.press("ArrowRight")
    others = page.page.locator(".chart", has=page.page.locator("h3", has_text="Requests in flight"))
    others.locator(".u-legend .u-value").first.get_by_text(re.compile(r"^[\d.]+ m?s$")).wait_for()


REASONS = [
    *filter(bounds.is_reason, bounds._WORDS),
    *(f"quota:{measure}" for measure in ("requests", "tokens", "input_tokens", "output_tokens")),
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_reason_has_words_and_a_colour_that_can_be_seen(browser, batch, tmp_path, scheme):
    seconds = {name: [float(at == other) for at in range(len(REASONS))] for other, name in enumerate(REASONS)}
    over_time = {"interval": 1.0, "end": float(len(REASONS)), "seconds": seconds}
    stats = dataclasses.replace(batch.stats, bound_over_time=over_time)
    write(BatchItems(BatchResult(batch.results, stats=stats)), tmp_path / "all.html")
    opened = Page(browser, (tmp_path / "all.html").as_uri(), color_scheme=scheme)
    opened.tab("Charts")
    figure = opened.page.locator(".chart", has=opened.page.locator("h3", has_text="What limited the run"))
    figure.locator("canvas").wait_for()
    names = figure.locator(".u-legend .u-label").all_inner_texts()[1:]
    assert len(set(names)) == len(REASONS)
    back = opened.page.evaluate(WANTED, "--back")
    colours = [opened.page.evaluate(WANTED, f"--bound-{name.replace(':', '-')}") for name in REASONS]
    assert len(set(colours)) == len(REASONS)
    assert set(colours) <= set(figure.evaluate(COLOURS)), "each is in the band"
    for name, colour in zip(REASONS, colours, strict=True):
        lighter, darker = sorted((luminance(colour), luminance(back)), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 3, name
    assert opened.problems == []
    opened.close()


def luminance(colour):
    """How light a colour is, by WCAG 2."""
    parts = [int(part) / 255 for part in colour.split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_other_charts_are_read_so_too(page):
    reader = page.page.get_by_role("slider", name="Read: Results per second")
    reader.focus()
    page.page.keyboard.press("End")
    assert re.search(r"s: succeeded [\d.]+/s", reader.get_attribute("aria-valuetext"))
