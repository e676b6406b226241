"""Take the pictures of docs/reading.md: ``python scripts/page_pictures.py``. With a FOLDER, all screens in both themes.

Two jobs run here, whose model is a function that takes its time, is busy at times, and sometimes fails; Chromium shows
their stores. Needs Chromium and Playwright. Figures differ a little from run to run.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from batch_llm import CallOutcome, RetryConfig, SqliteArtifactStore, run
from batch_llm._stored_rows import StoredItems
from batch_llm._view import ViewServer
from batch_llm.core import ProcessorConfig
from batch_llm.testing import FakeRateLimitError

IMAGES = Path(__file__).parent.parent / "docs" / "images"
IN_DOCS = {"items": "light", "errors": "dark", "charts": "dark", "compare": "light"}
"""The theme in which the documentation shows a screen."""
ITEMS = 4000
SIZE: Any = {"width": 1280, "height": 760}
OPENINGS = ("My parcel", "The invoice", "Your app", "The kettle that I bought", "My order", "The refund")
MIDDLES = ("has not arrived", "is wrong", "does not start", "arrived broken", "was charged twice", "is still missing")
ENDINGS = ("since Monday.", "again!", "and nobody answers.", "What can I do?", "Please help.", "Thank you anyway.")
LABELS = {"parcel": "delivery", "order": "delivery", "invoice": "billing", "refund": "billing"}


class Model:
    """Classifies messages of customers.

    Args:
        seed: Of its mistakes.
        errors: The share of wrong labels.
    """

    def __init__(self, seed: int, errors: float) -> None:
        self._random, self._errors, self._calls = random.Random(seed), errors, 0

    async def answer(self, prompt: str) -> CallOutcome[Any]:
        """Answer, or fail."""
        self._calls += 1
        number, chance = self._calls, self._random.random()
        await asyncio.sleep(self._random.lognormvariate(-1.6, 0.5))
        if number in (1400, 2600):
            raise FakeRateLimitError(retry_after=1.0)
        if chance < 0.03:
            raise ConnectionError(f"the connection was reset after {self._random.randrange(900)} bytes")
        if chance < 0.036:
            raise ValueError(
                f"400: the message has {self._random.randrange(900)} characters that the model does not know"
            )
        if 0.036 < chance < 0.038:
            raise RuntimeError(f"the answer is no JSON: unexpected character at {self._random.randrange(90)}")
        if 0.038 < chance < 0.039:
            raise PermissionError("the message was rejected by the policy of the provider")
        label = next((label for word, label in LABELS.items() if word in prompt), "product")
        if self._random.random() < self._errors:
            label = self._random.choice(("delivery", "billing", "product"))
        output = {"label": label, "urgent": "!" in prompt, "reason": f"The message is about {label}."}
        usage = {"input_tokens": 480 + len(prompt) // 4, "output_tokens": 24 + number % 9, "cached_input_tokens": 448}
        finish = "length" if number % 331 == 0 else "stop"
        return CallOutcome(output, usage, {"model": "gpt-5-mini", "finish_reason": finish})


def make_store(path: Path, seed: int, errors: float, concurrency: int) -> None:
    """Run a job."""
    texts, model = random.Random(1), Model(seed, errors)

    async def classify(prompt: str) -> CallOutcome[Any]:
        return await model.answer(prompt)

    prompts = []
    for number in range(ITEMS):
        message = f"{texts.choice(OPENINGS)} {texts.choice(MIDDLES)} {texts.choice(ENDINGS)}"
        prompts.append((f"message-{number:04}", f"Classify this message of a customer.\n\n{message}"))
    config = ProcessorConfig(retry=RetryConfig(max_attempts=3, initial_wait=0.3))
    store = SqliteArtifactStore(path, include_prompt=True)
    run(classify, prompts, store=store, concurrency=concurrency, config=config, progress=False)


def take(page: Page, folder: Path, scheme: str) -> None:
    """Take all pictures in one theme."""

    def picture(name: str) -> None:
        page.wait_for_timeout(600)
        if folder == IMAGES and IN_DOCS[name] != scheme:
            return
        path = folder / f"view-{name}-{scheme}.png"
        page.screenshot(path=path)
        print(f"{path}: {path.stat().st_size:,} bytes")

    page.locator(".total", has_text=f"{ITEMS:,} items").wait_for()
    page.get_by_role("button", name="Retried", exact=True).click()
    page.get_by_label("Sort by").select_option("waited")
    page.wait_for_timeout(600)
    page.locator(".list .row").nth(2).click()
    page.locator("article.item").wait_for()
    picture("items")
    page.keyboard.press("Escape")
    for name in ("Errors", "Charts", "Compare"):
        page.get_by_role("tab", name=name).click()
        if name == "Compare":
            page.get_by_role("button", name="Different").click()
            page.locator(".list .row").nth(1).click()
            page.locator(".details.two article.item").nth(1).wait_for()
        picture(name.lower())


def main() -> None:
    """Run the jobs and take the pictures."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        first, second = Path(place, "monday.db"), Path(place, "tuesday.db")
        make_store(first, 1, 0.02, 60)
        make_store(second, 2, 0.08, 90)
        browser: Browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            with ViewServer(StoredItems(str(first)), StoredItems(str(second))) as server:
                page = browser.new_page(viewport=SIZE, color_scheme=scheme)  # type: ignore[arg-type]
                page.goto(server.url)
                take(page, folder, scheme)
                page.close()
        browser.close()


if __name__ == "__main__":
    main()
