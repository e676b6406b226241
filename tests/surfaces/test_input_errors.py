"""What is said of inputs that cannot be sent: in the user's words, of the field, and in the same words everywhere."""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import pickle

import pandas
import pyarrow
import pyarrow.parquet
import pytest

from batch_llm import Audio, File, Image, ProviderError, llm, run, run_frame
from batch_llm._files import LockedError
from batch_llm.testing import SimulatedProvider

from ..cli_helpers import ask, call, lines, write_lines

HALF = "cut \ud83d"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture(autouse=True)
def provider(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with SimulatedProvider(count_questions=True) as provider:
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        yield provider


class TestHalvesOfSurrogatePairs:
    """A prompt that was cut in the middle of an emoji."""

    @pytest.mark.parametrize("kept", [{}, {"dedupe": True}, {"store": "run.db"}])
    @pytest.mark.parametrize("prompt", [HALF, [HALF], [{"role": "user", "content": HALF}]])
    def test_it_fails_as_invalid_input_and_is_not_tried_again(self, provider, prompt, kept):
        batch = run(llm("openai:gpt-5-mini"), [prompt, "fine"], preserve_order=True, **kept)
        failed, fine = batch.results
        assert (
            failed.error == "ProviderError: the prompt has an unpaired surrogate, which UTF-8 cannot encode; remove it"
        )
        assert failed.error_category == "invalid_input"
        assert failed.attempts == 1
        assert isinstance(failed.exception, ProviderError)
        assert not failed.exception.was_sent
        assert fine.success
        assert provider.stats.requests == 1

    def test_a_call_by_hand_and_a_frame_say_the_same(self):
        with pytest.raises(
            ProviderError, match="the prompt has an unpaired surrogate, which UTF-8 cannot encode; remove it"
        ):
            asyncio.run(llm("openai:gpt-5-mini").execute([HALF], 1, 5.0))
        frame = pandas.DataFrame({"text": pandas.Series([HALF], dtype=object)})
        made = run_frame(frame, "{text}", llm("openai:gpt-5-mini"))
        assert (
            made["output_error"][0]
            == "ProviderError: the prompt has an unpaired surrogate, which UTF-8 cannot encode; remove it"
        )

    def test_the_command_line_says_it_of_messages_too(self, tmp_path):
        write_lines(tmp_path / "in.jsonl", {"messages": [{"role": "user", "content": HALF}]}, {"prompt": HALF})
        ask("in.jsonl", "-o", "out.jsonl", code=3)
        for row in lines(tmp_path / "out.jsonl"):
            assert (
                row["error"]
                == "invalid row: the prompt has an unpaired surrogate, which UTF-8 cannot encode; remove it"
            )
            assert row["error_category"] == "invalid_input"


@pytest.mark.parametrize("name", ["temperature", "top_p", "max_tokens", "n", "logprobs"])
def test_numbers_beyond_64_bits_are_refused_in_words(name):
    with pytest.raises(ValueError, match=f"^{name} must be a number of at most 64 bits") as raised:
        llm("openai:gpt-5-mini", **{name: 10**5000})
    assert len(str(raised.value)) < 200


class TestPictures:
    """Pictures that are none."""

    @pytest.mark.parametrize("kind", [Image, Audio, File])
    def test_nothing_is_no_medium(self, tmp_path, kind):
        (tmp_path / "empty.png").touch()
        for source, more in ((b"", {"media_type": "image/png"}), (tmp_path / "empty.png", {})):
            with pytest.raises(ValueError, match=f"{kind.__name__}: the source is empty"):
                kind(source, **more)

    def test_bytes_in_parquet(self, tmp_path, provider):
        cells = [PNG, b"", b"no picture at all"]
        table = pyarrow.table({"text": ["a", "b", "c"], "photo": pyarrow.array(cells, pyarrow.binary())})
        pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
        ask("in.parquet", "--image", "photo", "-o", "out.jsonl", code=3)
        assert [row["error"] for row in lines(tmp_path / "out.jsonl")] == [
            None,
            "invalid row: image column 'photo', 0 bytes: the source is empty",
            "invalid row: image column 'photo', 17 bytes: the media type cannot be guessed",
        ]
        assert provider.stats.requests == 1

    def test_files(self, tmp_path):
        (tmp_path / "empty.png").touch()
        (tmp_path / "text.txt").write_text("words")
        rows = [{"text": name, "photo": name} for name in ("empty.png", "text.txt")]
        write_lines(tmp_path / "in.jsonl", *rows)
        ask("in.jsonl", "--image", "photo", "-o", "out.jsonl", code=3)
        assert [row["error"] for row in lines(tmp_path / "out.jsonl")] == [
            "invalid row: image column 'photo', 'empty.png': the source is empty",
            "invalid row: image column 'photo', 'text.txt': the media type text/plain is not of type image",
        ]


class TestRequests:
    """Lines of a file for the Batch API that are no requests name the field."""

    BODY = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "a"}]}
    ROWS = (
        ({"custom_id": "1", "body": BODY}, None),
        ({"body": BODY}, "invalid row: it has no 'custom_id', which a request of the Batch API needs"),
        ({"custom_id": "3"}, "invalid row: it has no 'body', which a request of the Batch API needs"),
        ({"custom_id": "4", "body": "text"}, "invalid row: its body must be an object, not str"),
        ({"custom_id": "5", "body": None, "url": "/v1/responses"}, "its body must be an object, not NoneType"),
    )

    @pytest.mark.parametrize("model", [[], ["-m", "openai:gpt-5-mini"]])
    def test_the_field_is_named(self, tmp_path, model):
        write_lines(tmp_path / "in.jsonl", *(row for row, _ in self.ROWS))
        call("run", "in.jsonl", "-o", "out.jsonl", "-q", *model, code=3)
        for row, (_, says) in zip(lines(tmp_path / "out.jsonl"), self.ROWS, strict=True):
            assert (row["error"] is None) if says is None else (says in row["error"]["message"])

    def test_a_prompt_among_them_needs_a_model(self, tmp_path):
        write_lines(tmp_path / "in.jsonl", self.ROWS[0][0], {"prompt": "a"})
        call("run", "in.jsonl", "-o", "out.jsonl", "-q", code=3)
        said = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[1])["error"]["message"]
        assert (
            "no 'custom_id' and no 'body', which a request of the Batch API needs; to send other rows, set --model"
            in said
        )


def test_the_error_of_a_locked_file_can_be_pickled():
    error = LockedError("process 5")
    for other in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
        assert (type(other), str(other), other.holder) == (LockedError, str(error), "process 5")
