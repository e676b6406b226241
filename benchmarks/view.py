"""How fast a page shows a store: first rows, searches, filters; ``python benchmarks/view.py STORE...``.

Measured in Chromium through Playwright, from the request of the page to what is on the screen. The tests have stores of
this size too, but measure nothing.
"""

from __future__ import annotations

import resource
import shutil
import sys
import time

from playwright.sync_api import Page, sync_playwright

from batch_llm._stored_rows import StoredItems
from batch_llm._view import ViewServer

SEARCHES = ("refund", "refund delivery", '"late broken"', "message 4242", "re", "nowhere")


def until(page: Page, script: str) -> float:
    """Return how long it takes until a condition holds, in milliseconds."""
    began = time.perf_counter()
    page.wait_for_function(script, polling=5, timeout=600_000)
    return (time.perf_counter() - began) * 1000


def measure(page: Page, url: str) -> None:
    """Print what one store takes."""
    began = time.perf_counter()
    page.goto(url)
    page.wait_for_function("document.querySelector('.list .row .id')", polling=5)
    print(f"first rows: {(time.perf_counter() - began) * 1000:,.0f} ms after the page was requested")
    page.wait_for_function("!document.querySelector('header.top').innerText.includes('reading')", timeout=1_200_000)
    print(f"all rows are read: {time.perf_counter() - began:,.1f} s")
    page.wait_for_timeout(3000)
    total = "document.querySelector('.total').innerText"
    for search in SEARCHES:
        before = page.evaluate(total)
        page.evaluate(
            """search => { const box = document.querySelector("input[type=search]"); box.value = search;
            box.dispatchEvent(new Event("input", { bubbles: true }));
            box.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true })) }""",
            search,
        )
        took = until(page, f"{total} !== {before!r} && !document.querySelector('.list .row .dim')")
        print(f"search {search}: {took:,.0f} ms, {page.evaluate(total)}")
    page.get_by_role("searchbox").fill("")
    page.wait_for_timeout(1500)
    for name in ("Failed", "Slow", "Expensive"):
        before = page.evaluate(total)
        page.get_by_role("button", name=name, exact=True).click()
        took = until(page, f"{total} !== {before!r} && !document.querySelector('.list .row .dim')")
        print(f"filter {name}: {took:,.0f} ms, {page.evaluate(total)}")
    page.get_by_role("button", name="All", exact=True).click()
    page.wait_for_timeout(1500)
    page.get_by_role("listbox", name="Items").focus()
    began = time.perf_counter()
    page.keyboard.press("End")
    page.wait_for_function("document.querySelector('[role=option][aria-selected=true] .id')", polling=5)
    print(f"to the last row: {(time.perf_counter() - began) * 1000:,.0f} ms")


def main() -> None:
    """Measure the stores that are named."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for path in sys.argv[1:]:
            began = time.perf_counter()
            items = StoredItems(path)
            print(f"{path}: {items.expected:,} items, opened in {(time.perf_counter() - began) * 1000:,.0f} ms")
            with ViewServer(items) as server:
                page = browser.new_page(viewport={"width": 1300, "height": 800}, bypass_csp=True)  # for our conditions
                measure(page, server.url)
                page.close()
            print(f"memory, at most: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB")
        browser.close()


if __name__ == "__main__":
    main()
