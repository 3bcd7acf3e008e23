"""The import closure of a script: every module of this project that running it can read."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
PACKAGE = "lora_compare"


def closure(script: Path, without: frozenset[str] = frozenset()) -> set[Path]:
    """Return the modules of the package that `script` imports, directly or not.

    Imports inside functions count too: a lazily imported module runs all the same. What stands
    under `if TYPE_CHECKING` does not: it never runs.

    Args:
        script: Where to start.
        without: Wings whose modules are not followed.
    """
    found: set[Path] = set()
    todo = [script]
    while todo:
        for module in _imported(todo.pop()) - found:
            if wing(module) not in without:
                found.add(module)
                todo.append(module)
    return found


def wing(module: Path) -> str:
    """Return the wing that a module stands in; its own name for one beside the wings."""
    return module.relative_to(SOURCE / PACKAGE).parts[0].removesuffix(".py")


class _Imports(ast.NodeVisitor):
    """Collects the dotted names that running a module imports."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.names.update(alias.name for alias in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert node.level == 0, "relative import"
        assert node.module
        self.names.update({node.module, *(f"{node.module}.{a.name}" for a in node.names)})


def _imported(path: Path) -> set[Path]:
    imports = _Imports()
    imports.visit(ast.parse(path.read_text(encoding="utf-8")))
    modules = {_file(name) for name in imports.names if name.split(".")[0] == PACKAGE}
    return {module for module in modules if module is not None}


def _file(name: str) -> Path | None:
    path = SOURCE.joinpath(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.exists():
            return candidate
    return None
