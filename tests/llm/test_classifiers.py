"""What exceptions mean: rows of the tables, types before texts."""

from __future__ import annotations

import asyncio

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_llm import DefaultErrorClassifier, ErrorInfo, FrameworkTimeoutError, GeminiErrorClassifier
from batch_llm.strategies.errors import retry_after, says_rate_limit


def validation_error(value="x"):
    class Model(pydantic.BaseModel):
        number: int

    with pytest.raises(pydantic.ValidationError) as caught:
        Model.model_validate({"number": value})
    return caught.value


class WithStatus(Exception):
    def __init__(self, status, text="refused", **attributes):
        super().__init__(text)
        self.status_code = status
        self.__dict__.update(attributes)


class Response:
    def __init__(self, status, headers):
        self.status_code, self.headers = status, headers


LOGIC = [ValueError, TypeError, AttributeError, KeyError, IndexError, NameError, ZeroDivisionError, AssertionError]
RATE_LIMIT = ErrorInfo(True, True, False, "rate_limit", 300.0)

DEFAULT_ROWS = [
    (Exception("Error 429: slow down"), RATE_LIMIT),
    (Exception("RESOURCE_EXHAUSTED"), RATE_LIMIT),
    (Exception("Quota exceeded"), RATE_LIMIT),
    (RuntimeError("Rate Limit reached"), RATE_LIMIT),
    (FrameworkTimeoutError("after 429.0s"), ErrorInfo(True, False, True, "framework_timeout")),
    (TimeoutError("429"), ErrorInfo(True, False, True, "api_timeout")),
    (asyncio.TimeoutError(), ErrorInfo(True, False, True, "api_timeout")),
    (Exception("Request Timeout"), ErrorInfo(True, False, True, "api_timeout")),
    (ConnectionError("x"), ErrorInfo(True, False, False, "connection_error")),
    (ConnectionResetError("x"), ErrorInfo(True, False, False, "connection_error")),
    (Exception("Connection reset"), ErrorInfo(True, False, False, "connection_error")),
    *[(kind("x"), ErrorInfo(False, False, False, "logic_error")) for kind in LOGIC],
    *[(kind("429 quota connection"), ErrorInfo(False, False, False, "logic_error")) for kind in LOGIC],
    (UnicodeError("x"), ErrorInfo(False, False, False, "logic_error")),
    (RuntimeError("x"), ErrorInfo(True, False, False, "unknown")),
    (Exception("an answer of 1429 words"), ErrorInfo(True, False, False, "unknown")),
    (WithStatus(429), RATE_LIMIT),
    (WithStatus(429, code="insufficient_quota"), ErrorInfo(False, False, False, "insufficient_balance")),
    *[(WithStatus(s), ErrorInfo(False, False, False, "client_error")) for s in (400, 404, 413, 422)],
    (WithStatus(401), ErrorInfo(False, False, False, "authentication")),
    (WithStatus(403), ErrorInfo(False, False, False, "permission_denied")),
    *[(WithStatus(s), ErrorInfo(True, False, True, "api_timeout")) for s in (408, 504)],
    *[(WithStatus(s, "quota 429"), ErrorInfo(True, False, False, "server_error")) for s in (409, 500, 502)],
    *[(WithStatus(s, "quota 429"), ErrorInfo(True, False, False, "server_overload")) for s in (498, 503, 529)],
]


@pytest.mark.parametrize(("exception", "expected"), DEFAULT_ROWS, ids=lambda value: repr(value)[:60])
def test_default(exception, expected):
    assert DefaultErrorClassifier().classify(exception) == expected


GEMINI_RATE_LIMIT = ErrorInfo(False, True, False, "rate_limit", 300.0)
GEMINI_ROWS = [
    (FrameworkTimeoutError("429"), ErrorInfo(True, False, True, "framework_timeout")),
    (Exception("429"), GEMINI_RATE_LIMIT),
    (Exception("Resource_Exhausted"), GEMINI_RATE_LIMIT),
    (Exception("QUOTA"), GEMINI_RATE_LIMIT),
    (Exception("504 Gateway"), ErrorInfo(True, False, True, "timeout")),
    (Exception("Deadline exceeded"), ErrorInfo(True, False, True, "timeout")),
    *[(kind("x"), ErrorInfo(False, False, False, "logic_error")) for kind in LOGIC],
    (RuntimeError("x"), ErrorInfo(True, False, False, "unknown")),
]


@pytest.mark.parametrize(("exception", "expected"), GEMINI_ROWS, ids=lambda value: repr(value)[:60])
def test_gemini(exception, expected):
    assert GeminiErrorClassifier().classify(exception) == expected


def test_validation_errors_whatever_they_quote():
    for classifier in (DefaultErrorClassifier(), GeminiErrorClassifier()):
        for value in ("x", "429 times", "quota exceeded, deadline, connection timeout"):
            info = classifier.classify(validation_error(value))
            assert (info.error_category, info.is_retryable, info.is_rate_limit) == ("validation_error", True, False)


def test_the_gemini_sdks_own_errors():
    errors = pytest.importorskip("google.genai.errors")
    classifier = GeminiErrorClassifier()

    def category(kind, code, message="m"):
        info = classifier.classify(kind(code, {"error": {"code": code, "message": message, "status": "S"}}))
        return info.error_category, info.is_retryable, info.is_rate_limit

    assert category(errors.ClientError, 429) == ("rate_limit", False, True)
    assert category(errors.ClientError, 400, "about 429 and quota") == ("client_error", False, False)
    assert category(errors.ClientError, 404) == ("client_error", False, False)
    assert category(errors.ClientError, 408) == ("timeout", True, False)
    assert category(errors.ServerError, 500) == ("server_error", True, False)
    assert category(errors.ServerError, 503) == ("server_error", True, False)
    assert category(errors.ServerError, 504) == ("server_timeout", True, False)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
        (None, None),
    ],
)
def test_retry_after(headers, expected):
    error = WithStatus(429)
    error.response = Response(429, headers)
    assert retry_after(error) == expected
    info = DefaultErrorClassifier().classify(error)
    assert info.suggested_wait == (300.0 if expected is None else expected)
    assert info.wait_is_from_provider == (expected is not None)


@given(st.text())
def test_any_text_is_classified(text):
    for classifier in (DefaultErrorClassifier(), GeminiErrorClassifier()):
        info = classifier.classify(Exception(text))
        assert info.is_rate_limit == says_rate_limit(text.lower())


@given(st.text(max_size=30))
def test_any_header_is_a_sound_wait_or_nothing(value):
    error = WithStatus(429)
    error.response = Response(429, {"retry-after": value})
    wait = retry_after(error)
    assert wait is None or 0 < wait < float("inf")
