"""Tests run on Linux, macOS and Windows, in any order: they import everywhere, and leave no variables behind."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
# Engines have an environment of their own, on Linux.
FILES = [
    path
    for path in sorted([*TESTS.rglob("test_*.py"), *TESTS.rglob("conftest.py")])
    if path.relative_to(TESTS).parts[0] != "engines"
]
OF_POSIX = {"AF_UNIX", "SIGALRM", "SIGHUP", "SIGKILL", "SIGUSR1", "fork", "geteuid", "getuid", "mkfifo"}
MODULES_OF_POSIX = {"fcntl", "grp", "pty", "pwd", "resource", "termios", "tty", "uvloop"}


def at_import(node: ast.AST):
    """The nodes that run when a module is imported: all but the bodies of its functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            for part in (*getattr(child, "decorator_list", ()), child.args):
                yield part
                yield from at_import(part)
        else:
            yield child
            yield from at_import(child)


def of_posix(source: str) -> list[str]:
    """What a module needs at its import and Windows does not have."""
    found = []
    for node in at_import(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in OF_POSIX:
            found.append(node.attr)
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name in MODULES_OF_POSIX]
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES_OF_POSIX:
            found.append(node.module)
    return found


def variables_set(source: str) -> list[str]:
    """The lines that change the environment of the process and do not take that back."""
    found = []
    for node in ast.walk(ast.parse(source)):
        targets = node.targets if isinstance(node, (ast.Assign, ast.Delete)) else []
        if any(ast.unparse(target).startswith("os.environ[") for target in targets):
            found.append(ast.unparse(node))
        is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if is_call and ast.unparse(node.func) in {f"os.environ.{name}" for name in ("update", "setdefault", "pop")}:
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize(
    "source",
    ["import resource", "from fcntl import flock", "@mark(signal.SIGKILL)\ndef f(): pass", "def f(a=os.mkfifo): pass"],
)
def test_what_windows_does_not_have_is_found(source):
    assert of_posix(source)
    assert not of_posix("def f():\n    import resource\n    os.fork(), signal.SIGKILL")


@pytest.mark.parametrize("source", ["os.environ['A'] = '1'", "del os.environ['A']", "os.environ.update({})"])
def test_variables_that_are_set_are_found(source):
    assert variables_set(source)
    assert not variables_set("environment = {**os.environ, 'A': '1'}; monkeypatch.setenv('A', '1')")


def test_tests_can_be_imported_on_windows():
    needs = {str(path.relative_to(TESTS)): of_posix(path.read_text(encoding="utf-8")) for path in FILES}
    assert {name: found for name, found in needs.items() if found} == {}


def test_tests_set_no_variables_that_stay():
    sets = {str(path.relative_to(TESTS)): variables_set(path.read_text(encoding="utf-8")) for path in FILES}
    assert {name: found for name, found in sets.items() if found} == {}
