"""Messages and their parts: every spelling is sent, or named in an error; nothing is dropped in silence."""

from __future__ import annotations

import base64
import json

import pytest

from batch_llm import Audio, File, Image

from ..served import DIALECTS, answer, serve

PNG = b"\x89PNG\r\n\x1a\n"
TEXT = base64.b64encode(PNG).decode()
URL = f"data:image/png;base64,{TEXT}"
PDF = base64.b64encode(b"%PDF-1").decode()
WAV = base64.b64encode(b"RIFF0000WAVE").decode()


@pytest.fixture(scope="module")
def server():
    with serve() as served:
        yield served


def sent(server, dialect, *parts, **message):
    result = server.one(answer(dialect), dialect, [{"role": "user", "content": list(parts), **message}])
    assert result.success, result.error
    body = server.bodies[0]
    return {
        "chat": lambda: body["messages"][0]["content"],
        "responses": lambda: body["input"][0]["content"],
        "anthropic": lambda: body["messages"][0]["content"],
        "gemini": lambda: body["contents"][0]["parts"],
    }[dialect]()


def error(server, dialect, *parts, **message):
    result = server.one(answer(dialect), dialect, [{"role": "user", "content": list(parts), **message}])
    assert not result.success
    assert server.bodies == []
    return result.error


IMAGE = {
    "chat": {"type": "image_url", "image_url": {"url": URL}},
    "responses": {"type": "input_image", "image_url": URL},
    "anthropic": {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": TEXT}},
    "gemini": {"inlineData": {"mimeType": "image/png", "data": TEXT}},
}
IMAGES = [
    {"type": "image_url", "image_url": {"url": URL}},
    {"type": "image_url", "image_url": URL},
    {"type": "image_url", "image_url": {"url": URL, "detail": None}, "cache_control": None},
    {"type": "input_image", "image_url": URL},
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": TEXT}},
    {
        "type": "image_url",
        "image_url": {"url": URL.replace("data:", "DATA:").replace(";base64", ";charset=utf-8;base64")},
    },
    {"type": "image_url", "image_url": {"url": f"data:;base64,{TEXT}"}},
    Image(URL),
    Image(PNG),
    Image("data:image/png," + "".join(f"%{byte:02x}" for byte in PNG)),
]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_data_urls_of_images_are_bytes(server, dialect):
    for image in IMAGES:
        assert sent(server, dialect, "what?", image)[1] == IMAGE[dialect], image


@pytest.mark.parametrize("dialect", DIALECTS)
def test_data_urls_of_files_are_bytes(server, dialect):
    url = f"data:application/pdf;base64,{PDF}"
    files = [
        {"type": "file", "file": {"filename": "a.pdf", "file_data": url}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": PDF}},
        {"type": "input_file", "filename": "a.pdf", "file_data": url},
        {
            "type": "document",
            "title": "a.pdf",
            "source": {"type": "base64", "media_type": "application/pdf", "data": PDF},
        },
        File(url, name="a.pdf"),
        File(b"%PDF-1", name="a.pdf"),
    ]
    expected = {
        "chat": {"type": "file", "file": {"filename": "a.pdf", "file_data": url}},
        "responses": {"type": "input_file", "filename": "a.pdf", "file_data": url},
        "anthropic": {
            "type": "document",
            "title": "a.pdf",
            "source": {"type": "base64", "media_type": "application/pdf", "data": PDF},
        },
        "gemini": {"inlineData": {"mimeType": "application/pdf", "data": PDF}},
    }[dialect]
    for file in files:
        assert sent(server, dialect, "what?", file)[1] == expected, file


@pytest.mark.parametrize("dialect", ["chat", "gemini"])
def test_data_urls_of_sounds_are_bytes(server, dialect):
    sounds = [
        {"type": "input_audio", "input_audio": {"data": WAV, "format": "wav"}},
        {"type": "audio_url", "audio_url": {"url": f"data:audio/wav;base64,{WAV}"}},
        Audio(f"data:audio/wav;base64,{WAV}"),
    ]
    expected = {
        "chat": {"type": "input_audio", "input_audio": {"data": WAV, "format": "wav"}},
        "gemini": {"inlineData": {"mimeType": "audio/wav", "data": WAV}},
    }[dialect]
    for sound in sounds:
        assert sent(server, dialect, "what?", sound)[1] == expected, sound


def test_a_text_file_is_a_text_for_claude(server):
    (block,) = sent(server, "anthropic", File("data:text/plain,caf%C3%A9"))
    assert block["source"] == {"type": "text", "media_type": "text/plain", "data": "café"}


def test_the_media_type_of_an_address_is_that_of_its_name(server):
    for url, kind in [
        ("https://h/x.png", "image/png"),
        ("https://h/x.JPG?w=1", "image/jpeg"),
        ("gs://b/x.webp", "image/webp"),
    ]:
        for part in (Image(url), {"type": "image_url", "image_url": {"url": url}}):
            assert sent(server, "gemini", part) == [{"fileData": {"mimeType": kind, "fileUri": url}}]
    assert sent(server, "gemini", Image("https://h/picture")) == [{"fileData": {"fileUri": "https://h/picture"}}]


def test_fields_of_parts_are_sent(server):
    text = {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}
    picture = {"type": "image_url", "image_url": {"url": "https://h/x.png", "detail": "low"}}
    assert sent(server, "chat", text, picture, name="bob") == [text, picture]
    assert server.bodies[0]["messages"][0]["name"] == "bob"
    assert sent(server, "responses", picture) == [
        {"type": "input_image", "image_url": "https://h/x.png", "detail": "low"}
    ]
    marked = {
        "type": "image",
        "source": {"type": "url", "url": "https://h/x.png"},
        "cache_control": {"type": "ephemeral", "ttl": "1h"},
    }
    assert sent(server, "anthropic", text, marked) == [text, marked]


def test_fields_that_a_provider_has_not_are_named(server):
    text = {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}
    picture = {"type": "image_url", "image_url": {"url": "https://h/x.png", "detail": "low"}}
    assert "cache_control" in error(server, "responses", text)
    assert "cache_control" in error(server, "gemini", text)
    assert "'low'" in error(server, "anthropic", picture).replace('"', "'")
    assert "'low'" in error(server, "gemini", picture).replace('"', "'")
    for dialect in ("responses", "anthropic", "gemini"):
        assert "bob" in error(server, dialect, "a", name="bob")
        assert "reasoning_content" in error(server, dialect, "a", reasoning_content="b")
    assert sent(server, "gemini", {**picture, "image_url": {"url": "https://h/x.png", "detail": "auto"}})


def test_a_system_prompt_of_parts_keeps_their_fields(server):
    block = {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}
    said = [{"role": "system", "content": [block]}, {"role": "user", "content": "x"}]
    assert server.one(answer("anthropic"), "anthropic", said).success
    assert server.bodies[0]["system"] == [block]
    picture = [{"role": "system", "content": [Image(PNG)]}, {"role": "user", "content": "x"}]
    for dialect in ("anthropic", "gemini"):
        assert "system" in server.one(answer(dialect), dialect, picture).error


def test_pictures_in_a_tools_result(server):
    said = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "tool_calls": [{"id": "c", "name": "f", "arguments": "{}"}]},
        {"role": "tool", "tool_call_id": "c", "name": "f", "content": ["seen:", Image(PNG)]},
    ]
    assert server.one(answer("anthropic"), "anthropic", said).success
    (result,) = server.bodies[0]["messages"][2]["content"]
    assert result["content"] == [{"type": "text", "text": "seen:"}, IMAGE["anthropic"]]
    assert server.one(answer("responses"), "responses", said).success
    assert server.bodies[0]["input"][2]["output"] == [{"type": "input_text", "text": "seen:"}, IMAGE["responses"]]
    assert "no image in a tool message" in server.one(answer("gemini"), "gemini", said).error


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({"type": "video_url", "video_url": {"url": "https://h/x.mp4"}}, "unknown type 'video_url'"),
        ({"type": "image_url", "image_url": {"url": URL, "quality": 3}}, "unknown key 'quality'"),
        ({"type": "file", "file": {"file_id": "file-1"}}, "unknown key 'file_id'"),
        ({"type": "image_url", "image_url": {}}, "needs a url"),
        ({"type": "text", "text": 5}, "needs a string"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,*"}}, "base64"),
        ({"text": "a"}, "unknown type ''"),
        ({"type": "image_url", "image_url": {"url": "/tmp/x.png"}}, "use Image(Path(...))"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}, "is empty"),
        (
            {"type": "image_url", "image_url": {"url": "data:text/html,x"}},
            "has the media type text/html, which is not an image",
        ),
    ],
)
def test_parts_that_cannot_be_used_are_named(server, part, says):
    with pytest.raises((TypeError, ValueError)) as raised:
        server.ask(server.strategy("chat"), [{"role": "user", "content": ["x", part]}])
    message = str(raised.value).replace('"', "'")
    assert "message 0, part 1" in message
    assert says in message


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_lone_surrogate_fails_its_item_alone(server, dialect):
    server.reply = lambda body, number: answer(dialect)
    for wrap in (str, lambda text: [{"role": "user", "content": text}], lambda text: [text]):
        results = server.ask(server.strategy(dialect), *(wrap(text) for text in ("a", "bad \udc97", "b")))
        assert [result.success for result in results] == [True, False, True]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_an_sdk_dumps_of_its_answer_is_a_message(server, dialect):
    dumped = {
        "role": "assistant",
        "content": "hi",
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        "tool_calls": None,
    }
    said = [{"role": "user", "content": "x"}, dumped, {"role": "user", "content": "y"}]
    assert server.one(answer(dialect), dialect, said).success
    assert "audio" not in json.dumps(server.bodies[0])
