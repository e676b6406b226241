"""Chromium, driven by Playwright. Tests that use it are skipped where either is missing."""

from __future__ import annotations

import contextlib
import os
import shutil

import pytest

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)


@contextlib.contextmanager
def chromium():
    """A browser. It may not reach anything but loopback."""
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
    if not CHROMIUM:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    arguments = ["--disable-gpu", "--disable-dev-shm-usage"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        arguments.append("--no-sandbox")  # it has none for root
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        try:
            yield started
        finally:
            started.close()


class Page:
    """A page of the browser, and what went wrong in it.

    Attributes:
        problems: Errors of scripts, messages of the console, violations of the policy.
        requests: The addresses that were requested.
    """

    def __init__(self, browser, address, **options):
        options = {"viewport": {"width": 1300, "height": 800}, **options}
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.problems, self.requests = [], []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", lambda message: self.problems.append(message.text))
        self.page.on("dialog", lambda dialog: (self.problems.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address)
        self.rows().first.wait_for()

    def rows(self):
        return self.page.locator(".list .row .id")

    def ids(self):
        return self.rows().all_inner_texts()

    def total(self, text):
        """Wait until so many items are listed."""
        self.page.locator(".total", has_text=text).wait_for()

    def shows(self, *ids):
        """Wait until these items are listed, in any order."""
        self.page.wait_for_function(
            """ids => {
                const shown = Array.from(document.querySelectorAll(".list .row .id"), one => one.innerText);
                return JSON.stringify(shown.sort()) === JSON.stringify(ids);
            }""",
            arg=sorted(ids),
        )

    def open(self, item_id):
        """Open an item, and wait until it is shown."""
        self.page.locator(".list .row .id", has_text=item_id).first.click()
        item = self.page.locator("article.item")
        item.locator("h2", has_text=item_id).wait_for()
        return item

    def tab(self, name):
        self.page.get_by_role("tab", name=name).click()

    def close(self):
        self.context.close()
