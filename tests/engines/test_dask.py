"""The recipe for Dask in the documentation, as it stands there; and what a worker costs that dies."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("dask.dataframe")
pandas = pytest.importorskip("pandas")
pytest.importorskip("distributed")

from batch_llm.testing import Fault, SimulatedProvider  # noqa: E402

from .deaths import LOST, often, paid_twice  # noqa: E402

PAGE = Path(__file__).parents[2] / "docs" / "past-one-machine.md"
pytestmark = pytest.mark.timeout(240)


def recipe() -> str:
    _, _, section = PAGE.read_text(encoding="utf-8").partition("\n## Dask\n")
    found = re.search(r"```py\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1]


def ran(folder: Path, program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "recipe.py").write_text(program)
    reviews = pandas.DataFrame({"id": range(1600), "text": [f"review {number}" for number in range(1600)]})
    (folder / "reviews").mkdir()
    for part in range(8):
        reviews[part * 200 : (part + 1) * 200].to_parquet(folder / "reviews" / f"{part}.parquet")
    return subprocess.run(
        [sys.executable, "recipe.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment},
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_the_recipe_shares_a_quota_and_keeps_all_rows(tmp_path):
    with SimulatedProvider(requests_per_minute=12_000, burst_seconds=3, faults=[Fault(400, every=100)]) as provider:
        done = ran(tmp_path, recipe(), OPENAI_API_KEY="any", OPENAI_BASE_URL=provider.base_url)
    assert done.returncode == 0, done.stderr
    rated = pandas.read_parquet(tmp_path / "rated")
    assert sorted(rated["id"]) == list(range(1600))
    assert str(rated["output.stars"].dtype) == "Int64"
    bad = rated["output_error"].notna()
    assert bad.sum() == provider.stats.statuses[400] == 16
    assert (rated["output.stars"].isna() == bad).all()
    assert provider.stats.statuses.get(429, 0) <= 8


def test_the_recipe_fails_before_it_sends_anything_without_a_key(tmp_path):
    assert "no API key for openai" in ran(tmp_path, recipe()).stderr
    assert not (tmp_path / "rated").exists()


DYING = """
import os
import signal

import dask.dataframe as dd
from dask.distributed import Client

from batch_llm import run_frame


def prompt(row):
    if row["id"] == 777 and not os.path.exists("died"):
        open("died", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return row["text"]


def rate(part, template):
    return run_frame(part, template, "openai:gpt-5-mini", concurrency=20, store="store/")


if __name__ == "__main__":
    with Client(n_workers=2, threads_per_worker=1) as client:
        reviews = dd.read_parquet("reviews")
        meta = rate(reviews._meta, "{text}")
        reviews.map_partitions(rate, prompt, meta=meta).to_parquet("rated")
"""


@often
def test_a_dead_worker_costs_no_paid_answer(tmp_path, again):
    with SimulatedProvider(latency=0.2, count_questions=True, replies=["{excerpt}"]) as provider:
        done = ran(tmp_path, DYING, OPENAI_API_KEY="any", OPENAI_BASE_URL=provider.base_url)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "died").exists()
        rated = pandas.read_parquet(tmp_path / "rated").sort_values("id")
        assert list(rated["output"]) == [f"review {number}" for number in range(1600)]
        assert paid_twice(provider) <= LOST
