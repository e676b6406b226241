"""The page in Chromium: served and as a file."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from batch_llm import run
from batch_llm._stored_rows import StoredItems
from batch_llm._view import BatchItems, ViewServer, write

from .browser import Page, chromium
from .stores import HOSTILE, large, small

ROWS = 100_000


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    small(folder / "small.db")
    return folder


@pytest.fixture(scope="module", params=["served", "file"])
def address(request, stores, browser):
    items = StoredItems(str(stores / "small.db"))
    if request.param == "file":
        write(items, stores / "small.html")
        yield (stores / "small.html").as_uri()
        return
    with ViewServer(items) as server:
        yield server.url


@pytest.fixture
def page(browser, address):
    opened = Page(browser, address)
    yield opened
    assert opened.problems == []
    begin = re.match(r"https?://[^/]+/|file://", address)[0]
    assert all(one.startswith((begin, "data:")) for one in opened.requests), "nothing leaves the page"
    assert opened.page.title() != "owned"
    opened.close()


def test_items_are_listed_and_searched(page):
    page.total("40 items")
    page.page.keyboard.press("/")
    page.page.keyboard.type('"DROP TABLE"')
    page.total("3 items")
    page.shows("id-6", "id-18", "id-30")
    page.page.keyboard.press("Escape")
    page.total("40 items")
    page.page.get_by_role("searchbox").press_sequentially("answer 1", delay=61)  # a search begins 60 ms after a key
    assert page.page.get_by_role("searchbox").input_value() == "answer 1"
    page.page.get_by_role("searchbox").fill("漢字")
    page.total("3 items")
    page.page.get_by_role("searchbox").fill("nowhere")
    page.page.locator(".empty", has_text="No item matches").wait_for()


def test_filters_and_orders(page):
    for name, found in (("Failed", 4), ("Retried", 4), ("Truncated", 4), ("All", 40)):
        page.page.get_by_role("button", name=name, exact=True).click()
        page.total(f"{found} items")
    page.page.get_by_label("Sort by").select_option("output")
    page.page.locator("[aria-posinset='1'] .id", has_text="id-39").wait_for()
    page.page.get_by_label("Category of failures").select_option("logic_error")
    page.total("4 items")


@pytest.mark.parametrize("kind", ["served", "file"])
def test_a_store_with_two_runs(browser, tmp_path, kind):
    path = str(tmp_path / "run.db")
    for prompts in (["a", "b"], ["a", "b", "c"]):
        run(str.upper, prompts, store=path, progress=False)
    items = StoredItems(path)
    write(items, tmp_path / "run.html")
    with ViewServer(StoredItems(path)) as server:
        page = Page(browser, server.url if kind == "served" else (tmp_path / "run.html").as_uri())
        page.total("3 items")
        page.page.get_by_role("combobox", name="Run").select_option(label="run 2 (1)")
        page.total("1 item")
        item = page.open("item_2")
        assert "run\n2" in item.locator("dl.facts").first.inner_text()
        page.page.wait_for_function("location.hash.includes('run=2')")
        page.page.get_by_role("combobox", name="Run").select_option("")
        page.total("3 items")
        page.close()


def test_an_item(page):
    page.page.get_by_role("searchbox").fill("id-4")
    item = page.open("id-4")
    assert item.get_by_label("Prompt").locator("pre").inner_text() == f"4 {HOSTILE[4]}"
    assert item.get_by_label("Answer").locator("pre").inner_text() == f"answer 4 {HOSTILE[4]}"
    rows = item.get_by_label("Attempts").locator("tbody tr")
    assert rows.count() == 2
    assert "ConnectionError" in rows.nth(0).inner_text()
    assert rows.nth(0).locator(".message").inner_text() == "connection reset"
    assert rows.nth(1).inner_text().strip().endswith("ok")
    assert rows.nth(1).locator(".bar").count() >= 2
    page.page.keyboard.press("Escape")
    item.wait_for(state="detached")


def test_hostile_text_is_text(page):
    for number in range(12):
        page.page.get_by_role("searchbox").fill(f'"id-{number}"')
        page.page.locator(f".list .row .id:text-is('id-{number}')").wait_for()
        page.page.locator(f".list .row .id:text-is('id-{number}')").click()
        item = page.page.locator(f"article.item[aria-label='Item id-{number}']")
        item.wait_for()
        shown = item.get_by_label("Prompt").locator("pre").text_content()
        assert shown == f"{number} {HOSTILE[number]}"
        assert item.locator("script, img, svg").count() == 0


def test_the_keyboard(page):
    page.total("40 items")
    page.page.get_by_role("listbox", name="Items").focus()
    page.page.keyboard.press("ArrowDown")
    page.page.keyboard.press("ArrowDown")
    chosen = page.page.locator("[role=option][aria-selected=true]")
    chosen.wait_for()
    second = page.page.locator("[aria-posinset='2'] .id").inner_text()
    page.page.locator(f"article.item[aria-label='Item {second}']").wait_for()
    page.page.keyboard.press("Enter")
    assert page.page.evaluate("document.activeElement.tagName") == "H2"
    page.page.get_by_role("listbox", name="Items").focus()
    page.page.keyboard.press("End")
    page.page.locator("[role=option][aria-posinset='40'][aria-selected=true]").wait_for()
    page.page.keyboard.press("Home")
    page.page.locator("[role=option][aria-posinset='1'][aria-selected=true]").wait_for()
    page.page.keyboard.press("2")
    assert page.page.get_by_role("tab", name="Errors").get_attribute("aria-selected") == "true"
    page.page.keyboard.press("?")
    page.page.get_by_role("dialog").wait_for()
    page.page.keyboard.press("Escape")
    page.page.get_by_role("dialog").wait_for(state="hidden")


def test_errors_lead_to_their_items(page):
    page.tab("Errors")
    table = page.page.locator("table.errors")
    assert re.search(r"4\tlogic_error\tValueError: row \d+ is wrong", table.inner_text())  # that of any of them
    table.get_by_role("button", name="id-13").click()
    page.page.locator("article.item[aria-label='Item id-13']").wait_for()
    page.total("4 items")
    page.tab("Errors")
    table.get_by_role("button", name="show all 4").click()
    page.total("4 items")


def test_what_is_shown_is_part_of_the_address(page):
    page.page.get_by_role("button", name="Failed", exact=True).click()
    page.total("4 items")
    page.open("id-13")
    # The address follows once it has been drawn.
    page.page.wait_for_function("location.hash.includes('only=failed') && location.hash.includes('item=')")
    page.page.reload()
    page.page.locator("article.item[aria-label='Item id-13']").wait_for()
    page.total("4 items")
    page.page.locator("[role=option][aria-selected=true] .id", has_text="id-13").wait_for()
    page.page.keyboard.press("Escape")
    page.page.locator("article.item").wait_for(state="detached")
    page.page.wait_for_function("!location.hash.includes('item=')")


def test_charts(page):
    page.tab("Charts")
    page.page.locator(".chart canvas").first.wait_for()
    shown = page.page.locator(".chart h3").all_inner_texts()
    assert {"Results per second", "Requests in flight", "Tokens per second", "What limited the run"} <= set(shown)
    label = page.page.locator(".chart [role=img]").first.get_attribute("aria-label")
    assert "succeeded at most" in label
    page.page.keyboard.press("t")
    page.page.locator(".chart canvas").first.wait_for()


def test_the_run(page):
    page.tab("Run")
    text = page.page.locator("#view").inner_text()
    assert "gpt-5-mini" in text
    assert "length" in text
    assert "logic_error" in text


CONTRAST = """() => {
  const parse = text => { const found = text.match(/[\\d.]+/g).map(Number); return [...found, 1].slice(0, 4) }
  const light = rgb => { const [r, g, b] = rgb.map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    return .2126 * r + .7152 * g + .0722 * b }
  const behind = node => { for (; node; node = node.parentElement) {
    const colour = parse(getComputedStyle(node).backgroundColor); if (colour[3] > .5) return colour } return [255, 255, 255] }
  const found = []
  const walker = document.createTreeWalker(document.querySelector("#app"), NodeFilter.SHOW_TEXT)
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, text = walker.currentNode.textContent.trim()
    if (!text || !element.checkVisibility() || element.closest("option, noscript")) continue
    const [low, high] = [light(parse(getComputedStyle(element).color).slice(0, 3)), light(behind(element).slice(0, 3))].sort((a, b) => a - b)
    found.push([text.slice(0, 40), (high + .05) / (low + .05)])
  }
  return found
}"""  # noqa: E501


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_both_themes(browser, address, scheme):
    page = Page(browser, address, color_scheme=scheme)
    page.open("id-1")
    for tab in ("Items", "Errors", "Charts", "Run"):
        page.tab(tab)
        found = page.page.evaluate(CONTRAST)
        assert len(found) > 20
        assert [one for one in found if one[1] < 4.5] == []
    page.close()


NAMELESS = """() => [...document.querySelectorAll(
    "button, input, select, [role=listbox], [role=option], [role=img], [role=tab]")]
  .filter(one => one.checkVisibility()).filter(one => !(one.getAttribute("aria-label") || one.innerText?.trim() ||
    one.labels?.length || one.title)).map(one => one.outerHTML.slice(0, 200))"""


def test_everything_has_a_name(browser, address):
    page = Page(browser, address)
    page.open("id-1")
    for tab in ("Items", "Errors", "Charts", "Run"):
        page.tab(tab)
        assert page.page.evaluate(NAMELESS) == []
    page.close()


def test_twice_as_large(browser, address):
    """At 200% a window of 1280 pixels has 640: nothing is cut off or needs scrolling to the side."""
    page = Page(browser, address, viewport={"width": 640, "height": 400}, device_scale_factor=2)
    page.open("id-1")
    assert page.page.locator(".list").bounding_box()["height"] < 400
    for tab in ("Items", "Errors", "Charts", "Run"):
        page.tab(tab)
        page.page.wait_for_timeout(100)
        assert page.page.evaluate("document.documentElement.scrollWidth") <= 640, tab
    page.close()


def test_many_rows(browser, tmp_path):
    """All rows are reached: by scrolling, by a search, by the last key."""
    path = large(tmp_path / "run.db", ROWS, text=20)
    with ViewServer(StoredItems(str(path))) as server:
        page = Page(browser, server.url)
        assert page.page.locator(".list .row").count() < 100
        page.page.set_default_timeout(90_000)
        page.total("100,000 items")
        page.page.get_by_role("listbox", name="Items").focus()
        page.page.keyboard.press("End")
        page.page.locator(".list .row .id:text-is('row-100000')").wait_for()
        page.page.locator(".list").evaluate("list => list.scrollTop = list.scrollHeight / 2")
        page.page.locator(".list .row .id", has_text=re.compile(r"^row-(49|50)\d\d\d$")).first.wait_for()
        page.page.get_by_role("searchbox").fill("message 77777")
        page.page.locator(".list .row .id:text-is('row-77778')").wait_for()
        page.page.get_by_role("button", name="Failed", exact=True).click()
        page.page.get_by_role("searchbox").fill("")
        page.page.locator(".list .row .failed").first.wait_for()
        assert page.problems == []
        page.close()


def test_more_rows_than_a_browser_draws(browser, stores, monkeypatch):
    """Lists that would be too tall are scrolled in larger steps: a million rows, here with a lower bound."""
    from batch_llm._view import page as pages

    pages._scripts.cache_clear()
    pages.policy.cache_clear()
    real = pages._file
    monkeypatch.setattr(pages, "_file", lambda name: real(name).replace("TALLEST = 8e6", "TALLEST = 900"))
    try:
        write(StoredItems(str(stores / "small.db")), stores / "tall.html")
    finally:
        pages._scripts.cache_clear()
        pages.policy.cache_clear()
    page = Page(browser, (stores / "tall.html").as_uri())
    page.page.get_by_role("listbox", name="Items").focus()
    page.page.keyboard.press("End")
    page.page.locator("[role=option][aria-posinset='40'][aria-selected=true]").wait_for()
    box = page.page.locator("[role=option][aria-posinset='40']").bounding_box()
    assert box["y"] + box["height"] <= 801
    seen = set()
    for step in range(11):
        scroll = "(list, part) => list.scrollTop = part * (list.scrollHeight - list.clientHeight)"
        page.page.locator(".list").evaluate(scroll, step / 10)
        page.page.wait_for_timeout(30)
        seen |= set(page.ids())
    assert len(seen) == 40
    page.close()


def test_it_is_live(browser, tmp_path):
    path = str(tmp_path / "run.db")
    run(str.upper, ["a", "b"], store=path, progress=False)
    with ViewServer(StoredItems(path)) as server:
        page = Page(browser, server.url)
        page.total("2 items")
        # By another process, as a run that is being watched is.
        program = f"from batch_llm import run; run(str.upper, ['a', 'b', 'later'], store={path!r}, progress=False)"
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
        page.total("3 items")
        page.page.locator(".list .row", has_text="LATER").wait_for()
        server.close()
        page.page.locator(".problem", has_text="has ended").wait_for()
        page.close()


def test_two_runs(browser, tmp_path):
    def label(prompt):
        return {"label": prompt, "score": 1}

    def other(prompt):
        if prompt == "z":
            raise ValueError("<b>no</b>")
        return {"label": "x", "score": 1}

    prompts = [("1", "x"), ("2", "y"), ("3", "z")]
    run(label, prompts, store=tmp_path / "a.db", progress=False)
    run(other, prompts, store=tmp_path / "b.db", progress=False)
    first, second = StoredItems(str(tmp_path / "a.db")), StoredItems(str(tmp_path / "b.db"))
    with ViewServer(first, second) as server:
        page = Page(browser, server.url)
        page.tab("Compare")
        page.page.locator("#view", has_text="50% of 2 answers are the same").wait_for()
        page.page.get_by_role("button", name="Different").click()
        page.page.locator(".list .row", has_text="different: label").click()
        sides = page.page.locator(".details.two article.item")
        sides.nth(1).wait_for()
        assert '"label": "y"' in sides.nth(0).inner_text()
        assert '"label": "x"' in sides.nth(1).inner_text()
        assert page.problems == []
        page.close()


def test_a_conversation(browser, tmp_path):
    from batch_llm import llm
    from batch_llm.testing import SimulatedProvider

    def weather(city: str) -> str:
        "Tell the weather."
        return f"<i>fine</i> in {city}"

    with SimulatedProvider() as provider:
        strategy = llm("openai:gpt-5-mini", base_url=provider.base_url, api_key="none", tools=[weather], rounds=3)
        batch = run(strategy, [("1", "How is the weather?")], progress=False)
    with ViewServer(BatchItems(batch)) as server:
        page = Page(browser, server.url)
        item = page.open("1")
        turns = item.get_by_label("Conversation").locator("li")
        assert turns.count() == len(batch.results[0].messages)
        page.close()
