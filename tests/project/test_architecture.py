"""docs/architecture.md names what exists, and claims nothing of the layers that is not so."""

from __future__ import annotations

import ast
import builtins
import functools
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE, CRATE = ROOT / "python" / "batch_llm", ROOT / "src"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
# The lines of a paragraph are one; those of a table are not.
NAMES = re.findall(r"`([^`\n]+)`", re.sub(r"\n(?=[^|\n#])", " ", PAGE))
MOST_TERMS = 30
FLOORS = ("engine", "providers", "journal", "sharing", "simulator", "batches", "dispatch", "bridge")


def rows(header: str) -> list[list[str]]:
    """The cells of all tables with this header."""
    found = []
    for table in re.findall(rf"^\| {re.escape(header)} \|\n\|[-| ]+\|\n((?:\|.*\n?)+)", PAGE, re.MULTILINE):
        found += [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines()]
    assert found, f"docs/architecture.md has no table with the header {header!r}"
    return found


def home(path: str) -> Path | None:
    """Where a path leads to that is relative to the package, the crate or the project."""
    return next((base / path for base in (PACKAGE, CRATE, ROOT) if (base / path).exists()), None)


@functools.cache
def defined(file: Path) -> frozenset[str]:
    """Classes, functions and methods of a file: ``name`` and ``Class.name``."""
    text = file.read_text(encoding="utf-8")
    if file.suffix in (".py", ".pyi"):
        return frozenset(_of_python(ast.parse(text)))
    return frozenset(_of_rust(text))


def _of_python(tree: ast.Module) -> set[str]:
    names = set()
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            inside = [inner for inner in node.body if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef))]
            names |= {f"{node.name}.{inner.name}" for inner in inside}
    return names


def _of_rust(text: str) -> set[str]:
    names = set(
        re.findall(r"^\s*(?:pub(?:\([a-z]+\))? )?(?:async )?(?:fn|struct|enum|trait) (\w+)", text, re.MULTILINE)
    )
    blocks = re.findall(r"^(?:pub )?(?:impl|trait)\b(.*?)\{$(.*?)^\}", text, re.MULTILINE | re.DOTALL)
    for head, body in blocks:
        owner = re.sub(r"<.*?>|:.*", "", head.rpartition(" for ")[2]).split()[0]
        names |= {f"{owner}.{method}" for method in re.findall(r"\bfn (\w+)", body)}
    return names


@functools.cache
def defined_anywhere() -> frozenset[str]:
    files = [*PACKAGE.rglob("*.py"), PACKAGE / "_core.pyi", *CRATE.rglob("*.rs")]
    return frozenset(name for file in files for name in defined(file))


def test_every_path_exists():
    paths = [name for name in NAMES if re.fullmatch(r"[\w./-]+(/|\.(py|pyi|rs|md|toml))", name)]
    assert len(paths) > 60
    assert [path for path in paths if home(path) is None] == []


def test_every_step_of_the_path_of_an_item_is_a_function_of_its_file():
    steps = rows("file | function | what happens")
    assert len(steps) > 25
    for file, functions, _ in steps:
        path = home(file.strip("`"))
        assert path is not None, file
        for function in functions.split(", "):
            assert function.strip("`") in defined(path), f"{file} has no {function}"


def test_every_class_and_function_exists():
    known = defined_anywhere()
    for name in NAMES:
        name = name.removesuffix("()")
        if re.fullmatch(r"[A-Z]\w*\.\w+", name) or re.fullmatch(r"[A-Z]\w*[a-z]\w*", name):
            assert name in known or hasattr(builtins, name), name
        elif re.fullmatch(r"[a-z]\w*", name) and f"`{name}()`" in PAGE:
            assert any(one.rpartition(".")[2] == name for one in known), name


def test_what_does_not_exist_is_found():
    run, scheduler = PACKAGE / "_run" / "run.py", CRATE / "engine" / "failures.rs"
    assert "Run.execute" in defined(run)
    assert "Run.exequte" not in defined(run)
    assert {"Scheduler.failed", "spread"} <= defined(scheduler)
    assert "Scheduler.spread" not in defined(scheduler)
    assert home("_run/run.py") == run
    assert home("_run/walk.py") is None


def test_the_glossary_is_short():
    terms = [term for term, _ in rows("term | meaning")]
    assert len(terms) <= MOST_TERMS
    assert len(terms) == len(set(terms))


def test_packages_are_in_the_order_of_the_layers():
    if sys.version_info < (3, 11):
        pytest.skip("needs tomllib")
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = project["tool"]["importlinter"]["contracts"][0]
    layers = [name.strip() for layer in contract["layers"] for name in layer.split(":")]
    assert contract["exhaustive"]
    named = [cells[0].strip("`/") for cells in rows("package | what it does")]
    assert named == [layer for layer in layers if (PACKAGE / layer).is_dir() and layer.startswith("_")]


@pytest.mark.parametrize(
    ("words", "file", "constant"),
    [
        ("for at most 2 ms", "_run/mailbox.py", "TURN_SECONDS = 0.002\n"),
        ("polls every millisecond", "_run/mailbox.py", "POLL_SECONDS = 0.001\n"),
        ("up to 64 replies", "_run/mailbox.py", "TAKE = 64\n"),
        ("at most 16 MB", "dispatch/dispatcher.rs", "MOST_BYTES: usize = 16 << 20;"),
        ("waits 2 s for its attempts", "base.py", "WORKER_CANCELLATION_TIMEOUT = 2.0\n"),
    ],
)
def test_numbers_are_those_of_the_code(words, file, constant):
    assert words in " ".join(PAGE.split())
    assert constant in home(file).read_text(encoding="utf-8")


# What the page says of Rust, beside what src/floors.rs checks


def code_of(floor: str) -> dict[str, str]:
    """The code of a floor by file, without comments and tests."""
    files = [file for file in (CRATE / floor).rglob("*.rs") if not re.search(r"(tests|testing|fuzz)$", file.stem)]
    text = {file.name: file.read_text(encoding="utf-8").partition("\n#[cfg(test)]\nmod tests {")[0] for file in files}
    return {name: re.sub(r"//.*", "", code) for name, code in text.items()}


def crates() -> list[str]:
    text = (ROOT / "Cargo.toml").read_text(encoding="utf-8")
    section = text.partition("\n[dependencies]\n")[2].partition("\n[")[0]
    return [name.replace("-", "_") for name in re.findall(r"^([\w-]+) = ", section, re.MULTILINE)]


def uses(floor: str, path: str) -> list[str]:
    return [name for name, code in code_of(floor).items() if re.search(rf"\b{path}\b", code)]


def test_every_floor_has_a_row_and_crates_have_one_floor():
    table = {cells[0].strip("`/"): cells[2] if len(cells) > 2 else "" for cells in rows_of_floors()}
    assert sorted(table) == sorted([*FLOORS, "python/batch_llm"])
    for floor, own in table.items():
        for crate in re.findall(r"`(\w+)`", own):
            assert crate in crates()
            assert [other for other in FLOORS if uses(other, f"{crate}::")] == [floor], crate


def rows_of_floors() -> list[list[str]]:
    return rows("layer, from the top | what it does | crates that only it uses")


def test_the_engine_has_the_crates_that_the_page_names_and_nothing_of_the_world():
    (sentence,) = re.findall(r"The engine uses three\s+crates:(.*?)\.\n", PAGE, re.DOTALL)
    assert {crate for crate in crates() if uses("engine", f"{crate}::")} == set(re.findall(r"`(\w+)`", sentence))
    for path in ("std::fs", "std::net", "std::thread", "std::process", "tokio::net", "tokio::fs", "SystemTime"):
        assert uses("engine", path) == []


def test_only_the_engines_lock_reads_the_clock():
    readers = {name: code.count("Instant::now()") for name, code in code_of("engine").items()}
    # The scheduler does when it is dropped, for nobody tells it the time then.
    assert {name for name, times in readers.items() if times} == {"run.rs", "scheduler.rs"}
    scheduler = code_of("engine")["scheduler.rs"]
    assert readers["scheduler.rs"] == 1
    assert "Instant::now()" in scheduler.partition("impl Drop for Scheduler")[2]


def test_what_rust_calls_of_python_is_declared():
    """``mypy`` compares the declarations with the classes, and cannot see the calls."""
    called = set()
    for name, code in code_of("bridge").items():
        literal = re.findall(r'call_method\d?\(\s*(?:py,\s*)?intern!\(\w+(?:\.py\(\))?, "(\w+)"\)', code)
        assert len(literal) == len(re.findall(r"\bcall_method", code)), f"{name} calls a method whose name is not there"
        called.update(literal)
    # Of tasks, coroutines, text and modules; of the user's strategies and boards.
    of_python = {"cancelling", "close", "dumps", "encode", "execute", "send", "throw", "renew", "leave", "report"}
    protocols = {name for name in defined(PACKAGE / "_core.pyi") if re.match(r"_\w+\.", name)}
    assert len(called) > 8
    assert {name for name in called if f"_AttemptPipeline.{name}" not in protocols} - of_python == {
        name for name in called if f"_AttemptRun.{name}" in protocols
    }


# Comments and docstrings


def test_sources_name_files_that_exist():
    """As ``src/engine/outage.rs`` or ``python/batch_llm/_run/run.py``; moves leave such names behind."""
    missing = []
    for file in [*PACKAGE.rglob("*.py*"), *CRATE.rglob("*.rs")]:
        if file.suffix in (".py", ".pyi", ".rs"):
            paths = re.findall(r"\b((?:src|python)/[\w/]+\.(?:rs|py))\b", file.read_text(encoding="utf-8"))
            missing += [f"{file.relative_to(ROOT)}: {path}" for path in paths if not (ROOT / path).exists()]
    assert missing == []


def test_every_module_says_what_it_is_for():
    for file in PACKAGE.rglob("*.py"):
        assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))), file
    for file in CRATE.rglob("*.rs"):
        assert file.read_text(encoding="utf-8").startswith("//! "), file
