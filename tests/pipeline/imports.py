"""The import closure of a script: every file of this project that running it can read."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
PACKAGE = "lora_compare"
DATA = {"bundled.py": "bundled_data", "report.py": "templates"}
"""Folders of package data by the module that reads them."""


def closure(script: Path) -> set[Path]:
    """Return the modules of the package that `script` imports, directly or not, and their data.

    Imports inside functions count too: a lazily imported module runs all the same.
    """
    found: set[Path] = set()
    todo = [script]
    while todo:
        for module in _imported(todo.pop()) - found:
            found.add(module)
            todo.append(module)
    folders = {m.parent / DATA[m.name] for m in found if m.name in DATA}
    return found | folders


def _imported(path: Path) -> set[Path]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names.update({node.module, *(f"{node.module}.{a.name}" for a in node.names)})
    modules = {_file(name) for name in names if name.split(".")[0] == PACKAGE}
    return {module for module in modules if module is not None}


def _file(name: str) -> Path | None:
    path = SOURCE.joinpath(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.exists():
            return candidate
    return None
