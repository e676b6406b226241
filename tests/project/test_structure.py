"""The modules of the package: short, without large circles, and out of each other's private attributes."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import batch_llm
import batch_llm._pipeline

PACKAGE = Path(batch_llm.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES = 500
LARGEST_CIRCLE = 6
DEEPEST = 2


def name_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {name_of(file): ast.parse(file.read_text(encoding="utf-8")) for file in FILES}
PACKAGES = {name_of(file) for file in FILES if file.stem == "__init__"}


def modules_of(module: str, node: ast.ImportFrom) -> set[str]:
    """The modules that a ``from`` import names, of this package."""
    base = node.module or ""
    if node.level:
        here = module.split(".") if module in PACKAGES else module.split(".")[:-1]
        base = ".".join([*here[: len(here) - node.level + 1], *([base] if base else [])])
    return {full if (full := f"{base}.{one.name}") in TREES else base for one in node.names}


def imports(module: str) -> set[str]:
    """What a module imports of this package: at its head, when it is called, and for type checkers."""
    found: set[str] = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.ImportFrom):
            found |= modules_of(module, node)
        elif isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
    return {one for one in found if one in TREES} - {module}


def circles() -> list[set[str]]:
    """Sets of modules each of which imports, over others, all of the set."""
    reached: dict[str, set[str]] = {}
    direct = {module: imports(module) for module in TREES}
    for module in TREES:
        seen: set[str] = set()
        left = [module]
        while left:
            for other in direct[left.pop()] - seen:
                seen.add(other)
                left.append(other)
        reached[module] = seen
    return [{other for other in reached[module] if module in reached[other]} for module in TREES]


def test_circles_of_imports_are_small():
    assert imports("batch_llm._run.run") >= {"batch_llm._run.protocols", "batch_llm._results"}
    assert [sorted(circle) for circle in circles() if len(circle) > LARGEST_CIRCLE] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_files_are_short(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) < MOST_LINES


def test_one_package_uses_the_handle_of_the_engine():
    def uses(tree: ast.Module) -> bool:
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        return "RunHandle" in names or "handle" in attributes

    assert {module.split(".")[1] for module, tree in TREES.items() if uses(tree)} == {"_run"}


def written(tree: ast.Module) -> set[tuple[str, str]]:
    """Private attributes that are assigned, each with the expression that has it."""
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    changed = [node for node in attributes if isinstance(node.ctx, (ast.Store, ast.Del))]
    return {(ast.unparse(node.value), node.attr) for node in changed if re.match(r"_[^_]", node.attr)}


def declared(tree: ast.Module) -> set[str]:
    """Private attributes of a module's own classes."""
    own = {attribute for owner, attribute in written(tree) if owner in ("self", "cls")}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            targets = [one.target for one in node.body if isinstance(one, ast.AnnAssign)]
            own |= {target.id for target in targets if isinstance(target, ast.Name)}
    return own


def test_nothing_writes_private_attributes_of_others():
    found = {
        f"{module}: {owner}.{attribute}"
        for module, tree in TREES.items()
        for owner, attribute in written(tree)
        if owner not in ("self", "cls") and attribute not in declared(tree)
    }
    assert found == set()


def test_pipelines_inherit_from_one_class_at_most():
    deep = {}
    for one in pkgutil.iter_modules(batch_llm._pipeline.__path__):
        module = importlib.import_module(f"batch_llm._pipeline.{one.name}")
        for name, value in inspect.getmembers(module, inspect.isclass):
            ours = [base.__name__ for base in value.__mro__ if base.__module__.startswith("batch_llm._pipeline")]
            if len(ours) > DEEPEST:
                deep[name] = ours
    assert deep == {}


def test_a_write_to_a_private_attribute_is_found():
    tree = ast.parse("class A:\n    def f(self, run):\n        self._a, run._b = 1, 2\n        del run.c._d\n")
    assert written(tree) == {("self", "_a"), ("run", "_b"), ("run.c", "_d")}
    assert declared(tree) == {"_a"}


def test_every_package_has_a_folder_of_tests():
    packages = {folder.name.strip("_") for folder in PACKAGE.iterdir() if (folder / "__init__.py").exists()}
    # The public packages beside the command line are imports of what others define, or are tested where they are used.
    public = {"classifiers", "core", "middleware", "observers", "strategies", "testing"}
    folders = {folder.name for folder in Path(__file__).parents[1].iterdir() if (folder / "__init__.py").exists()}
    assert packages - public <= folders
