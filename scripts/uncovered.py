"""Print how much of the code tests cover, and fail if they cover no line of a public function of Python.

``python scripts/uncovered.py python FILE`` reads the JSON of coverage.py, ``rust FILE`` the lcov of llvm-cov.
As a plugin of pytest (``-p scripts.uncovered``) it prints the figures of Python before pytest's own last lines.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "python" / "batch_llm"
SHOWN = 10
"""How many of the least covered files are listed."""
TESTS = re.compile(r"^#\[cfg\(test\)\]\n(?:#.*\n)*mod \w+ \{", re.MULTILINE)

Lines = dict[int, bool]
"""Whether tests cover a line, of each line with code."""


def main(language: str, path: str) -> int:
    """Print what is uncovered, and return 1 if that is a public function of Python."""
    if language == "rust":
        files = of_rust(Path(path))
        print("\n".join(figures("Rust without src/bridge, which the tests of Python cover", files)))
        # No failure: the Python tests may call these, which the figures do not count.
        names = list(uncovered_rust(files))
        print(f"{len(names)} public functions that no Rust test calls: {', '.join(names)}")
        return 0
    uncovered = list(uncovered_python(of_python(Path(path))))
    for name in uncovered:
        print(f"no test covers {name}")
    return bool(uncovered)


def pytest_terminal_summary(terminalreporter: Any, config: Any) -> None:
    """Print the figures of what pytest-cov has measured; called by pytest."""
    path = config.getoption("cov_report").get("json")
    if path and Path(path).exists():
        for line in figures("Python", of_python(Path(path))):
            terminalreporter.write_line(line)


def figures(language: str, files: dict[Path, Lines]) -> Iterator[str]:
    """Yield the total, and the files with the most lines that no test covers."""
    missed = {path: sum(not covered for covered in lines.values()) for path, lines in files.items()}
    total = sum(map(len, files.values()))
    yield f"coverage of {language}: {100 * (1 - sum(missed.values()) / max(total, 1)):.1f}% of {total:,} lines"
    for path in sorted(missed, key=missed.__getitem__, reverse=True)[:SHOWN]:
        if missed[path]:
            yield f"  {missed[path]:,} of {len(files[path]):,} not covered: {path.relative_to(ROOT)}"


def of_python(report: Path) -> dict[Path, Lines]:
    """Return the lines of each file."""
    files = json.loads(report.read_text(encoding="utf-8"))["files"]
    return {
        ROOT / name: dict.fromkeys(file["missing_lines"], False) | dict.fromkeys(file["executed_lines"], True)
        for name, file in files.items()
    }


def uncovered_python(files: dict[Path, Lines]) -> Iterator[str]:
    """Yield the public functions with lines, none of which ran."""
    for code in {function.__code__: None for function in public_functions()}:
        path = Path(code.co_filename)
        # The line of the signature runs on import.
        numbers = {number for _, _, number in code.co_lines() if number and number > code.co_firstlineno}
        found = [covered for number, covered in files.get(path, {}).items() if number in numbers]
        if found and not any(found):
            yield f"{code.co_name} ({path.relative_to(ROOT)}:{code.co_firstlineno})"


def public_functions() -> Iterator[FunctionType]:
    """Yield what the public modules hold: functions, and methods of classes."""
    for module in public_modules():
        for name in getattr(module, "__all__", vars(module)):
            if not name.startswith("_"):
                yield from functions_of(getattr(module, name))


def public_modules() -> Iterator[ModuleType]:
    """Yield the package and its public modules. Functions of the command are no interface."""
    import batch_llm

    yield batch_llm
    for found in pkgutil.walk_packages(batch_llm.__path__, "batch_llm."):
        if "._" not in found.name and not found.name.startswith("batch_llm.cli"):
            try:
                yield importlib.import_module(found.name)
            except ImportError as error:
                print(f"left out, for want of a package: {found.name} ({error})")


def functions_of(value: Any) -> Iterator[FunctionType]:
    """Yield a function, or a class's public methods, those of private bases included; all of this package."""
    members = [value]
    for base in value.__mro__ if inspect.isclass(value) else ():
        members += [member for name, member in vars(base).items() if not name.startswith("_")]
    for member in members:
        # Of properties, of cached properties, of class and static methods, and of commands.
        for part in ("fget", "fset", "func", "__func__", "callback"):
            function = inspect.unwrap(getattr(member, part, None) or member)
            if inspect.isfunction(function) and Path(function.__code__.co_filename).is_relative_to(PACKAGE):
                yield function


def of_rust(report: Path) -> dict[Path, Lines]:
    """Return the lines of each file outside of ``src/bridge``, without those of tests."""
    tests = set(test_files())
    files: dict[Path, Lines] = {}
    for record in report.read_text(encoding="utf-8").split("end_of_record\n"):
        source = re.search(r"^SF:(.+)$", record, re.MULTILINE)
        path = Path(source[1]) if source else ROOT
        if path.is_relative_to(ROOT / "src") and "bridge" not in path.parts and path not in tests:
            # Clippy's items_after_test_module: nothing follows the tests of a file.
            code = TESTS.split(path.read_text(encoding="utf-8"))
            end = code[0].count("\n")
            counts = re.findall(r"^DA:(\d+),(\d+)", record, re.MULTILINE)
            files[path] = {int(line): count != "0" for line, count in counts if int(line) <= end}
    return files


def test_files() -> Iterator[Path]:
    """Yield the files that are modules of tests."""
    for path in (ROOT / "src").rglob("*.rs"):
        text = path.read_text(encoding="utf-8")
        for attributes, name in re.findall(r"#\[cfg\(test\)\]\n((?:#.*\n)*)(?:pub\S* )?mod (\w+);", text):
            elsewhere = re.search(r'#\[path = "([^"]+)"\]', attributes)
            folder = path.parent if path.stem in ("lib", "mod") else path.with_suffix("")
            yield path.parent / elsewhere[1] if elsewhere else folder / f"{name}.rs"


def uncovered_rust(files: dict[Path, Lines]) -> Iterator[str]:
    """Yield the public functions that did not run."""
    for path, lines in sorted(files.items()):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            found = re.match(r"\s*pub (?:async |unsafe )*fn (\w+)", line)
            if found and not lines.get(number, True):
                yield f"{found[1]} ({path.relative_to(ROOT)}:{number})"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
