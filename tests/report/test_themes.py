"""What notebooks show, measured in Chromium: readable and left-aligned, whatever the themes of system and notebook."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest

from batch_llm import BatchResult, BatchTermination, WorkItemResult, run
from batch_llm._progress.display import panel

from ..progress.test_progress import snapshot

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed")
SYSTEMS = {"light": 1, "dark": 0}
THEMES = {
    # What JupyterLab's two themes say, as far as it matters here.
    "light": {
        "--jp-layout-color0": "white",
        "--jp-layout-color1": "white",
        "--jp-ui-font-color1": "rgba(0,0,0,.87)",
        "--jp-content-font-color1": "rgba(0,0,0,.87)",
        "--jp-rendermime-table-row-background": "#eee",
    },
    "dark": {
        "--jp-layout-color0": "#111",
        "--jp-layout-color1": "#212121",
        "--jp-ui-font-color1": "rgba(255,255,255,.87)",
        "--jp-content-font-color1": "rgba(255,255,255,1)",
        "--jp-rendermime-table-row-background": "#424242",
    },
}
ELSEWHERE = {
    "VS Code, dark": ("#1e1e1e", "--vscode-editor-foreground:#d4d4d4"),
    "VS Code, light": ("#fff", "--vscode-editor-foreground:#000"),
    "Colab, dark": ("#1f1f1f", "--colab-primary-text-color:#e3e3e3"),
    "Colab, light": ("#fff", "color:#212121"),
    "another, dark": ("#383838", "color:#fff"),
}
JUPYTERLAB = """
.lab{background:var(--jp-layout-color0)}
.coloured{color:var(--jp-content-font-color1)}
.jp-RenderedHTMLCommon{font:14px sans-serif}
.jp-RenderedHTMLCommon table{border-collapse:collapse;border:none;table-layout:fixed;margin:0 auto 1em}
.jp-RenderedHTMLCommon td,.jp-RenderedHTMLCommon th,.jp-RenderedHTMLCommon tr{vertical-align:middle;padding:.5em;
line-height:normal;white-space:normal;max-width:none;border:none;text-align:right}
.jp-RenderedHTMLCommon tbody tr:nth-child(even){background:var(--jp-rendermime-table-row-background)}
"""
MEASURE = """
<pre id="measured" style="display:none"></pre><script>
const parse = text => { const found = text.match(/[\\d.]+/g).map(Number); return [...found, 1].slice(0, 4) }
const over = (front, back, alpha) => [0, 1, 2].map(i => front[i] * alpha + back[i] * (1 - alpha))
const light = rgb => { const [r, g, b] = rgb.map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  return .2126 * r + .7152 * g + .0722 * b }
const contrast = (one, other) => { const [low, high] = [light(one), light(other)].sort((a, b) => a - b)
  return (high + .05) / (low + .05) }
function ancestors(node) { const found = []; for (; node; node = node.parentElement) found.unshift(node); return found }
function behind(node) {
  let back = [255, 255, 255]
  for (const one of ancestors(node)) {
    const colour = parse(getComputedStyle(one).backgroundColor)
    if (!one.closest("svg") || one.tagName == "svg") back = over(colour, back, colour[3])
  }
  return back
}
function measure(place) {
  const shown = [], all = selector => [...place.querySelectorAll(selector)]
  const walker = document.createTreeWalker(place, NodeFilter.SHOW_TEXT)
  while (walker.nextNode()) {
    const node = walker.currentNode, text = node.textContent.trim(), element = node.parentElement
    if (!text || ["STYLE", "SCRIPT", "TITLE"].includes(element.tagName)) continue
    const style = getComputedStyle(element), colour = parse(element.closest("svg") ? style.fill : style.color)
    const opacity = ancestors(element).reduce((all, one) => all * getComputedStyle(one).opacity, 1)
    const back = behind(element)
    shown.push([text, contrast(over(colour, back, colour[3] * opacity), back)])
  }
  const marks = all("[style*='background:#'], svg .mark, svg .bad")
    .filter(mark => mark.getBoundingClientRect().width > 0)
    .map(mark => { const style = getComputedStyle(mark)
      const colour = parse(mark.closest("svg") ? style.fill : style.backgroundColor)
      return contrast(colour, behind(mark.closest("svg") || place)) })
  const left = place.getBoundingClientRect().left
  const indents = [...all("table"), ...place.querySelectorAll(":scope > div")]
    .map(e => e.getBoundingClientRect().left - left)
  const aligned = all("td, th, div").map(e => getComputedStyle(e).textAlign)
  return { name: place.dataset.name, shown, marks, indents, aligned }
}
document.querySelector("#measured").textContent = JSON.stringify({
  places: [...document.querySelectorAll("[data-name]")].map(measure),
  dark: matchMedia("(prefers-color-scheme: dark)").matches })
</script>
"""


def a_batch():
    def ask(prompt):
        if prompt == "3":
            raise ValueError("<wrong>")
        return f"answer {prompt}"

    batch = run(ask, [f"{number}" for number in range(8)], concurrency=2)
    unsent = WorkItemResult("unsent", False, error="BatchInterruptedError: ...", error_category="interrupted")
    return BatchResult(
        [*batch.results, unsent],
        termination=BatchTermination("interrupted", "the run was interrupted"),
        stats=batch.stats,
        wall_time_seconds=1.5,
    )


def measured(tmp_path, html, system):
    path = tmp_path / "page.html"
    path.write_text(html, encoding="utf-8")
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", "--dump-dom"]
    command = [CHROMIUM, *arguments, f"--user-data-dir={tmp_path / 'profile'}"]
    command += [f"--blink-settings=preferredColorScheme={SYSTEMS[system]}", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="measured"[^>]*>(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None, done.stderr[-2000:]
    values = json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert values["dark"] is (system == "dark")
    assert values["places"]
    return values["places"]


def check(place, *, least=2):
    name = place["name"]
    assert len(place["shown"]) >= least, name
    for text, contrast in place["shown"]:
        assert contrast >= 4.5, (name, text, contrast)
    for contrast in place["marks"]:
        assert contrast >= 3.0, name


@pytest.fixture(scope="module")
def shown():
    return {
        "a batch": a_batch()._repr_html_(),
        "a panel": panel(snapshot(not_sent=4, cooldown=4.0), is_over=False),
        "a panel that is done": panel(snapshot(done=200), is_over=True),
    }


@pytest.mark.parametrize("system", SYSTEMS)
def test_in_jupyterlab(tmp_path, system, shown):
    """All pairs of themes of system and notebook, whether it colours outputs itself or only names its colours."""
    html = f"<!doctype html><style>{JUPYTERLAB}</style><body>"
    for theme, variables in THEMES.items():
        style = ";".join(f"{name}:{value}" for name, value in variables.items())
        for kind in ("coloured", "plain"):
            for what, made in shown.items():
                html += (
                    f'<div class="lab" style="{style}"><div class="jp-RenderedHTMLCommon {kind}" '
                    f'data-name="{theme}, {kind}, {what}">{made}</div></div>'
                )
    places = measured(tmp_path, html + MEASURE, system)
    assert len(places) == 12
    for place in places:
        check(place)
        assert all(abs(indent) < 1 for indent in place["indents"]), place["name"]
        assert set(place["aligned"]) <= {"left", "start"}, place["name"]


@pytest.mark.parametrize("system", SYSTEMS)
def test_elsewhere(tmp_path, system, shown):
    html = "<!doctype html><body>"
    for host, (background, style) in ELSEWHERE.items():
        for what, made in shown.items():
            html += f'<div style="{style};background:{background}" data-name="{host}, {what}">{made}</div>'
    for place in measured(tmp_path, html + MEASURE, system):
        check(place)
