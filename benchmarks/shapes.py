"""What the benchmarks of real requests send and receive; needs nothing but pydantic.

A prompt is 4 KB: instructions and a document. Its answer is 2 KB of JSON: an invoice that was read from the document.
"""

from __future__ import annotations

import base64
import json
import random
import struct
from datetime import date
from typing import Any, Literal

from pydantic import BaseModel

MODEL = "simulated"


class Address(BaseModel):
    """Where somebody is."""

    street: str
    city: str
    postal_code: str
    country: str


class Party(BaseModel):
    """Who sells or buys."""

    name: str
    tax_id: str | None
    address: Address
    email: str


class Line(BaseModel):
    """One thing that is sold."""

    description: str
    quantity: int
    unit_price: float
    tax_rate: float
    category: Literal["hardware", "software", "service", "other"]


class Invoice(BaseModel):
    """An invoice as it is extracted from a document."""

    number: str
    issued: date
    due: date
    currency: Literal["EUR", "USD", "GBP"]
    seller: Party
    buyer: Party
    lines: list[Line]
    total: float
    is_paid: bool
    notes: list[str]


def _party(name: str) -> dict[str, Any]:
    address = {"street": "12 Harbour Street", "city": "Rotterdam", "postal_code": "3011 AB", "country": "NL"}
    return {"name": name, "tax_id": "NL123456789B01", "address": address, "email": "accounts@example.com"}


def answer() -> str:
    """The answer of the model, 2 KB of JSON."""
    line = {"description": "Stainless steel bearing, 22 mm, with seal", "quantity": 12, "unit_price": 4.75}
    invoice = {
        "number": "2026-00417",
        "issued": "2026-03-14",
        "due": "2026-04-13",
        "currency": "EUR",
        "seller": _party("Bearings & Shafts B.V."),
        "buyer": _party("Windmill Works"),
        "lines": [{**line, "tax_rate": 0.21, "category": "hardware"} for _ in range(9)],
        "total": 620.73,
        "is_paid": False,
        "notes": ["Goods remain our property until they are paid.", "Delivered on 12 March 2026."],
    }
    text = json.dumps(invoice)
    assert 1_900 < len(text) < 2_300, len(text)
    return text


def reply(content: str | None = None) -> bytes:
    """The whole reply of Chat Completions with that answer."""
    message = {"role": "assistant", "content": answer() if content is None else content, "refusal": None}
    usage = {
        "prompt_tokens": 1042,
        "completion_tokens": 512,
        "total_tokens": 1554,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    whole = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice]}
    return json.dumps({**whole, "usage": usage}).encode()


def message() -> bytes:
    """The whole reply of Anthropic's Messages with that answer."""
    content = [{"type": "text", "text": answer()}]
    usage = {"input_tokens": 1042, "output_tokens": 512}
    whole = {"id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "content": content}
    return json.dumps({**whole, "stop_reason": "end_turn", "stop_sequence": None, "usage": usage}).encode()


_DOCUMENT = "\n".join(
    f'Position {number}:\tstainless steel bearing, 22 mm, "sealed" \N{EN DASH} 12 pieces at 4.75 EUR each'
    for number in range(60)
)[:4_000]


def prompt(number: int) -> str:
    """A prompt of 4 KB, unlike any other."""
    return f"Extract the invoice {number} from this document.\n\n{_DOCUMENT}"


def vectors(count: int, length: int, encoding: str) -> bytes:
    """A reply of embeddings: so many vectors, as base64 or as JSON numbers."""
    numbers = random.Random(1)
    vector = [numbers.uniform(-0.1, 0.1) for _ in range(length)]
    packed = base64.b64encode(struct.pack(f"<{length}f", *vector)).decode()
    embedding: Any = packed if encoding == "base64" else [round(number, 9) for number in vector]
    data = [{"object": "embedding", "index": index, "embedding": embedding} for index in range(count)]
    usage = {"prompt_tokens": 8 * count, "total_tokens": 8 * count}
    return json.dumps({"object": "list", "data": data, "model": "e", "usage": usage}).encode()
