"""Contexts and outputs whose keys are no text, or that refer to themselves: with stores, and written as JSON lines."""

from __future__ import annotations

import dataclasses
import json

import pytest

from batch_llm import BatchResult, SqliteArtifactStore, WorkItemResult, run


async def upper(prompt):
    return prompt.upper()


@dataclasses.dataclass
class Page:
    words: dict


def circular():
    made: dict = {"a": 1}
    made["me"] = made
    return made


CONTEXTS = [
    {"a": 1, 5: "five"}, {("t", 1): {"deep": {1, 2}}}, {"a": [{1: 2}, ({None: 3},)]}, {1.5: 1, True: 2},
    Page({1: "one"}), {1: "a", "x": Page({2: {3: 4}})},
]  # fmt: skip


@pytest.mark.parametrize("suffix", [".db", ".jsonl"])
class TestStores:
    """A store tells requests apart by their contexts."""

    @pytest.mark.parametrize("context", CONTEXTS, ids=str)
    def test_keys_that_are_no_text(self, tmp_path, suffix, context):
        store = tmp_path / f"run{suffix}"
        assert run(upper, [("a", "q", context)], store=store).results[0].success
        assert run(upper, [("a", "q", context)], store=store).results[0].reused == "store"
        assert run(upper, [("a", "q", {"other": context})], store=store).results[0].reused is None

    def test_no_two_keys_become_one(self, tmp_path, suffix):
        store = tmp_path / f"run{suffix}"
        for context in ({1: "a"}, {1: "b"}, {1: "a", "1": "b"}, {1: "b", "1": "a"}, {"1": "b"} | {2: "c"}):
            assert run(upper, [("a", "q", context)], store=store).results[0].reused is None

    def test_what_has_no_words_names_the_context_and_the_remedy(self, tmp_path, suffix):
        batch = run(upper, [("a", "q", {"o": object()}), ("b", "q", {1: object()})], store=tmp_path / f"run{suffix}")
        for failed in batch:
            assert failed.error_category == "artifact_preparation_error"
            assert "the context cannot identify the request: object" in failed.error
            remedy = "Give the store an encoder, a context_fingerprinter, or context_in_identity=False"
            assert failed.error.endswith(remedy)
        store = SqliteArtifactStore(tmp_path / "encoded.db", encoder=lambda value: "some")
        assert run(upper, [("a", "q", {1: object()})], store=store).succeeded == 1

    def test_what_refers_to_itself_names_the_place(self, tmp_path, suffix):
        (failed,) = run(upper, [("a", "q", {1: circular()})], store=tmp_path / f"run{suffix}")
        assert "context[1]['me'] is context[1]: a circular reference cannot identify a request" in failed.error


class TestJsonLines:
    """With an encoder one odd value does not cost the file."""

    ODD = ({1: "a", "1": "b"}, circular(), {"deep": [circular()]})

    @pytest.mark.parametrize("odd", ODD, ids=["two keys", "circular", "deep"])
    def test_an_encoder_is_asked_for_the_whole(self, tmp_path, odd):
        results = [WorkItemResult("a", True, odd), WorkItemResult("b", True, "fine", context=odd)]
        batch = BatchResult(results)
        batch.to_jsonl(tmp_path / "out.jsonl", encoder=str)
        first, second = BatchResult.from_jsonl(tmp_path / "out.jsonl").results
        assert first.output == second.context == str(odd)
        assert second.output == "fine"
        assert json.loads(batch.to_json(encoder=str))["results"][0]["output"] == str(odd)

    def test_secrets_do_not_show_in_it(self, tmp_path):
        odd = {1: "a", "1": "b", "api_key": "sk-abcdefgh12345678"}
        BatchResult([WorkItemResult("a", True, odd)]).to_jsonl(tmp_path / "out.jsonl", encoder=str)
        assert "abcdefgh" not in (tmp_path / "out.jsonl").read_text()

    def test_an_encoder_that_knows_nothing_of_it_leaves_the_error(self, tmp_path):
        batch = BatchResult([WorkItemResult("a", True, self.ODD[0])])
        for encoder in (None, lambda value: value.hex(), lambda value: value):
            with pytest.raises(ValueError, match="has two keys that both become '1' in JSON"):
                batch.to_jsonl(tmp_path / "out.jsonl", encoder=encoder)


def test_a_batch_is_indexed_by_place():
    batch = run(upper, ["a", "b", "c"], preserve_order=True)
    assert batch[0] is batch.results[0]
    assert batch[-1].output == "C"
    assert [result.output for result in batch[1:]] == ["B", "C"]
    with pytest.raises(IndexError):
        batch[3]
    with pytest.raises(TypeError, match=r"write batch.by_id\(\)\['item-0'\]"):
        batch["item-0"]
