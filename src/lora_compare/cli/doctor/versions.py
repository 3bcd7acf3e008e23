"""Which Python and which packages run here, and whether they are the locked ones."""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import lora_compare
from lora_compare.cli.doctor.findings import Finding, Project, ok, trouble, warning

OLDEST, TOO_NEW = (3, 11), (3, 14)
"""Python's versions as pyproject.toml has them."""

TOOLS = ("dvc", "mlflow", "tiktoken", "safetensors", "numpy")
"""What the pipeline stands on beside PyTorch."""

INSTALL = "make setup, or: python -m pip install --requirement requirements.lock"


def python(project: Project) -> Finding:
    """Look at Python's own version."""
    known = {"version": platform.python_version(), "executable": sys.executable}
    what = f"{known['version']} ({sys.executable})"
    if OLDEST <= sys.version_info[:2] < TOO_NEW:
        return ok(what, **known)
    return trouble(f"{what}; 3.11 to 3.13 is needed", "make setup PYTHON=python3.12", **known)


def code(project: Project) -> Finding:
    """Look whether the code that runs is this project's, of which DVC keeps the checksums."""
    folder = Path(lora_compare.__file__).resolve().parent
    known = {"version": lora_compare.__version__, "folder": str(folder)}
    what = f"lora-compare {lora_compare.__version__} in {folder}"
    own = project.paths.root / "src" / "lora_compare"
    if own.is_dir() and own.resolve() != folder:
        return trouble(
            f"{what}, not this project's in {own}: DVC would record other code than runs",
            "make setup, then: . .venv/bin/activate",
            **known,
        )
    return ok(what, **known)


def torch(project: Project) -> Finding:
    """Look at PyTorch's version and at what its build can compute on."""
    try:
        import torch as library
    except (ImportError, OSError) as error:
        return trouble(f"PyTorch cannot be loaded: {error}", INSTALL)
    build = "CPU"
    if library.version.cuda:
        build = f"CUDA {library.version.cuda}"
    elif getattr(library.version, "hip", None):
        build = f"ROCm {library.version.hip}"
    elif library.backends.mps.is_built():
        build = "Metal"
    return ok(f"{library.__version__}, built for {build}", version=library.__version__, build=build)


def tools(project: Project) -> Finding:
    """Look at the versions of the libraries that the pipeline stands on."""
    found = {name: _installed(name) for name in TOOLS}
    if missing := [name for name, there in found.items() if there is None]:
        return trouble(f"not installed: {', '.join(missing)}", INSTALL, **found)
    return ok(", ".join(f"{name} {there}" for name, there in found.items()), **found)


def lock(project: Project) -> Finding:
    """Compare what is installed with requirements.lock: equal results are promised for that."""
    file = project.paths.root / "requirements.lock"
    if not file.is_file():
        return warning("there is no requirements.lock to compare with", "git checkout " + file.name)
    locked = _locked(file)
    found = {name: _installed(name) for name in locked}
    missing = [name for name, there in found.items() if there is None]
    other = {
        name: {"locked": locked[name], "installed": there}
        for name, there in found.items()
        if there is not None and there.partition("+")[0] != locked[name]
    }
    facts = {"packages": len(locked), "missing": missing, "other": other}
    said = [f"{name} {v['installed']} (locked {v['locked']})" for name, v in other.items()]
    if missing:
        what = f"of {len(locked)} locked packages not installed: {_some(missing)}"
        return trouble(
            "; ".join([what, *([f"other: {_some(said)}"] if said else [])]), INSTALL, **facts
        )
    if other:
        what = f"of {len(locked)} locked packages in another version: {_some(said)}"
        return warning(f"{what}; results may differ from those elsewhere", INSTALL, **facts)
    return ok(f"all {len(locked)} packages in the versions of requirements.lock", **facts)


def _locked(file: Path) -> dict[str, str]:
    """Return the version of every package of a lock file that this Python and system need."""
    from packaging.requirements import Requirement

    lines = (line.strip() for line in file.read_text(encoding="utf-8").splitlines())
    wanted = [Requirement(line) for line in lines if line and line[0] not in "#-"]
    needed = [r for r in wanted if r.marker is None or r.marker.evaluate()]
    return {r.name: next(iter(r.specifier)).version for r in needed if r.specifier}


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _some(names: list[str], shown: int = 5) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
