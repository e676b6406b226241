"""Functions take few parameters; options that come by name only are typed, and a slip in one is recognised."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import batch_llm
from batch_llm import (
    CallableStrategy,
    EmbeddingStrategy,
    JsonlArtifactStore,
    LLMCallPool,
    ParallelBatchProcessor,
    ProviderConnectionError,
    ProviderError,
    SqliteArtifactStore,
    run_frame,
)
from batch_llm.testing import SimulatedProvider

from ..helpers import Echo

ROOT = Path(__file__).parents[2]
MOST = 8
EXEMPT = {
    ("parallel", "ParallelBatchProcessor.__init__"): "0.3.0 takes these ten by position",
    ("_gemini", "GeminiCachedStrategy.__init__"): "0.3.0 takes these eleven by position",
    ("results", "BatchResult.__init__"): "the fields of 0.3.0's dataclass and ours, for type checkers alone",
}


def named_parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    arguments = function.args
    names = [one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def is_overload(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(ast.unparse(one).endswith("overload") for one in function.decorator_list)


def functions(node: ast.AST, prefix: str = ""):
    for child in ast.iter_child_nodes(node):
        is_function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
        inner = f"{prefix}{child.name}." if is_function or isinstance(child, ast.ClassDef) else prefix
        if is_function and not is_overload(child):
            yield inner.rstrip("."), child
        yield from functions(child, inner)


def test_functions_take_few_parameters():
    root = Path(batch_llm.__file__).parent
    many = {
        (".".join(path.relative_to(root).with_suffix("").parts), name): named_parameters(function)
        for path in sorted([*root.rglob("*.py"), *root.rglob("*.pyi")])
        for name, function in functions(ast.parse(path.read_text(encoding="utf-8")))
        if named_parameters(function) > MOST
    }
    assert set(many) == set(EXEMPT)
    assert many["parallel", "ParallelBatchProcessor.__init__"] == 10
    assert many["_gemini", "GeminiCachedStrategy.__init__"] == 11


def test_functions_of_rust_take_few_parameters():
    """Clippy counts them, ``self`` and ``py`` included; nothing is exempt."""
    assert f"too-many-arguments-threshold = {MOST}\n" in (ROOT / "clippy.toml").read_text(encoding="utf-8")
    sources = {path: path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.rs")}
    assert len(sources) > 200
    assert [
        path for path, text in sources.items() if re.search(r"too_many_arguments|clippy::(all|complexity)", text)
    ] == []
    assert "too_many_arguments" not in (ROOT / "Cargo.toml").read_text(encoding="utf-8")


SLIPS = {
    "store": (lambda path, **options: JsonlArtifactStore(path / "a.jsonl", **options), "include_outputs"),
    "store of its own": (lambda path, **options: SqliteArtifactStore(path / "a.db", **options), "durabilty"),
    "pool": (lambda path, **options: LLMCallPool(Echo(), **options), "observer"),
    "pool of its own": (lambda path, **options: LLMCallPool(Echo(), **options), "max_pendin"),
    "function": (lambda path, **options: CallableStrategy(Echo().execute, **options), "quota_scop"),
    "embeddings": (lambda path, **options: EmbeddingStrategy("ollama:m", **options), "extra_header"),
    "error": (lambda path, **options: ProviderError("no", **options), "retry_afte"),
    "kind of error": (lambda path, **options: ProviderConnectionError("no", **options), "servers_away"),
    "processor": (lambda path, **options: ParallelBatchProcessor(**options), "artifact_stor"),
    "processor of 0.3.0": (lambda path, **options: ParallelBatchProcessor(**options), "max_worker"),
    "simulator": (lambda path, **options: SimulatedProvider(**options), "request_per_minute"),
    "frame": (lambda path, **options: run_frame(None, "{text}", Echo(), **options), "on_interupt"),
}
MEANT = {
    "include_outputs": "include_output", "durabilty": "durability", "observer": "observers",
    "max_pendin": "max_pending", "quota_scop": "quota_scope", "extra_header": "extra_headers",
    "retry_afte": "retry_after", "servers_away": "server_away", "artifact_stor": "artifact_store",
    "max_worker": "max_workers", "request_per_minute": "requests_per_minute", "on_interupt": "on_interrupt",
}  # fmt: skip


@pytest.mark.parametrize("what", SLIPS)
def test_a_slip_in_an_option_is_recognised(what, tmp_path):
    make, wrong = SLIPS[what]
    with pytest.raises(TypeError, match=f"(no|unknown) option {wrong!r}.*did you mean {MEANT[wrong]!r}"):
        make(tmp_path, **{wrong: 1})


def test_what_is_not_known_of_a_failed_call_has_its_usual_value():
    error = ProviderError("no", token_usage={"input_tokens": 3}, code="c")
    assert (error.category, error.is_retryable, error.server_away, error.was_sent) == ("unknown", True, False, True)
    assert (error.usage, error.code, error.text) == ({"input_tokens": 3}, "c", None)


def test_options_of_stores_have_their_usual_values(tmp_path):
    store = SqliteArtifactStore(tmp_path / "a.db", include_context=True)
    told = (store.include_output, store.include_metadata, store.include_prompt, store.include_context, store.types)
    assert told == (True, True, "failures", True, ())
