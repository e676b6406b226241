"""Names of types, functions and parameters are words of the field, or say what the thing is."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Each says that something happened, but not what: a reader has to look it up.
VAGUE = {
    "again", "asked", "begun", "held", "is_on", "keeping", "kept", "let_go", "parted", "plainer", "poke",
    "refused", "said", "settle", "settled", "told",
}  # fmt: skip


def vague(names):
    return sorted({name for name in names if name.lower() in VAGUE or name == "Known"})


def names_of(source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name.lstrip("_")
        elif isinstance(node, ast.arg):
            yield node.arg.lstrip("_")


FOLDERS = sorted({path.parent for path in (ROOT / "python").rglob("*.py")})


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_names_in_python_say_what_things_are(folder):
    found = {path.name: vague(names_of(path.read_text())) for path in folder.glob("*.py")}
    assert not {name: names for name, names in found.items() if names}


def test_names_in_rust_say_what_things_are():
    defined = re.compile(r"\b(?:struct|enum|trait|type|union|fn|mod) ([A-Za-z_]+)")
    found = {path: vague(defined.findall(path.read_text())) for path in (ROOT / "src").rglob("*.rs")}
    assert not {str(path.relative_to(ROOT)): names for path, names in found.items() if names}


def test_vague_names_are_found():
    assert vague(names_of("class Told:\n    def _settle(self, kept): ...")) == ["Told", "kept", "settle"]
