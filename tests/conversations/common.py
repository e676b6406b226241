"""What the tests of conversations share: replies that call tools, and tools."""

from batch_llm import ToolContext

from ..served import answer

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def called(*calls, text=""):
    """A reply of Chat Completions that calls tools; each call is ``(id, name, arguments)``."""
    return answer("chat", text, list(calls), usage=USAGE)


def said(text):
    """A reply of Chat Completions with an answer."""
    return answer("chat", text, usage=USAGE)


def results(body):
    """The contents of the results of tools in a request of Chat Completions."""
    return [message["content"] for message in body["messages"] if message["role"] == "tool"]


async def add(x: int, y: int) -> int:
    """Add two numbers."""
    return x + y


def multiply(x: int, y: int) -> int:
    """Multiply two numbers."""
    return x * y


class Steps:
    """A tool that counts, by item, how often it ran; the simulated provider calls it until it says that it is done."""

    def __init__(self, rounds):
        self.rounds = rounds
        self.ran = {}
        self.keys = []

    async def advance(self, call: ToolContext) -> str:
        """Go one step further."""
        self.ran[call.item_id] = count = self.ran.get(call.item_id, 0) + 1
        self.keys.append((call.item_id, call.round, call.idempotency_key))
        return f"step {count}: now call advance" if count < self.rounds else "that was all"
