"""The page as a file."""

from __future__ import annotations

import json
import re

from batch_llm import BatchResult, WorkItemResult, run
from batch_llm._view import BatchItems, page, write

from .stores import HOSTILE


def data_of(path):
    text = path.read_text(encoding="utf-8")
    found = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert len(found) == 1
    return json.loads(found[0])


def test_everything_is_in_it(tmp_path):
    batch = run(str.upper, ["a", "b", "c"], progress=False)
    batch.report(tmp_path / "run.html")
    data = data_of(tmp_path / "run.html")
    assert sorted(item["answer"]["text"] for item in data["items"]) == ["A", "B", "C"]
    assert data["overview"]["about"]["summary"][0] == ["items", "3: 3 succeeded (100.0%), 0 failed"]
    assert data["rows"]["total"] == 3


def test_hostile_text_ends_nothing(tmp_path):
    results = [WorkItemResult(text, True, text, prompt=text) for text in HOSTILE]
    results += [WorkItemResult("x", False, error=text, error_category=text) for text in HOSTILE]
    BatchResult(results).report(tmp_path / "run.html")
    text = (tmp_path / "run.html").read_text(encoding="utf-8")
    assert data_of(tmp_path / "run.html")["items"][-1]["answer"]["text"] == HOSTILE[-1]
    tags = re.findall(r"<script[^>]*>", re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL))
    assert tags == ['<script type="application/json" id="data">']
    assert "<img" not in text
    assert "<svg" not in text


def test_its_policy_allows_only_its_own_scripts_and_no_request(tmp_path):
    BatchResult([]).report(tmp_path / "run.html")
    text = (tmp_path / "run.html").read_text(encoding="utf-8")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)[1]
    assert "default-src 'none'" in policy
    assert "connect-src 'none'" in policy
    assert "unsafe" not in policy
    assert len(re.findall("'sha256-", policy)) == 4
    assert not re.search(r"<(link|img|iframe|script)[^>]+(src|href)=\"(?!data:)", text)


def test_a_very_large_batch_says_what_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "MOST_ITEMS", 5)
    results = [WorkItemResult(str(number), number != 8, "x", error="no") for number in range(10)]
    write(BatchItems(BatchResult(results)), tmp_path / "run.html")
    data = data_of(tmp_path / "run.html")
    assert [item["id"] for item in data["items"]] == ["8", "0", "1", "2", "3"]
    assert [row[1] for row in data["rows"]["rows"]] == ["0", "1", "2", "3", "8"]
    assert data["overview"]["about"]["left_out"] == 5
    assert data["overview"]["figures"]["items"] == 10


def test_long_texts_are_cut(tmp_path, monkeypatch):
    BatchResult([WorkItemResult("1", True, "x" * 30_000)]).report(tmp_path / "run.html")
    (item,) = data_of(tmp_path / "run.html")["items"]
    assert (len(item["answer"]["text"]), item["answer"]["left_out"]) == (20_000, 10_000)


def test_numbers_that_json_does_not_have(tmp_path):
    metadata = {"model": "gpt-5-mini", "score": float("nan")}
    usage = {"input_tokens": float("nan"), "output_tokens": -1}
    BatchResult([WorkItemResult("1", True, float("inf"), token_usage=usage, metadata=metadata)]).report(
        tmp_path / "run.html"
    )
    assert data_of(tmp_path / "run.html")["items"][0]["id"] == "1"
