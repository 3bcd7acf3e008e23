"""A folder that PEFT wrote becomes a method of params.yaml."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lora_compare.errors import ParamsError
from lora_compare.exchange.peft.config import read_adapter, refusal
from lora_compare.exchange.peft.names import CONFIG_FILE, TENSORS_FILE
from lora_compare.exchange.peft.reading import Imported, from_peft
from lora_compare.models.base import Base
from lora_compare.models.checkpoints import CHECKPOINTS
from lora_compare.models.weights import holds_gpt2
from lora_compare.params import Params, describe_method_name, with_method
from lora_compare.project.files import is_file, replacing_folder, sha256, write_json, write_text
from lora_compare.project.paths import Paths
from lora_compare.training.imported import RECORD, build

FILES = (CONFIG_FILE, TENSORS_FILE)

HUB = {
    name: model
    for model, checkpoint in CHECKPOINTS.items()
    for name in (checkpoint.repository, checkpoint.repository.rpartition("/")[2])
}
"""The models here by the names that they have on the hub."""


def import_adapter(
    paths: Paths,
    params: Params,
    base: Base,
    classes: list[str],
    source: Path,
    name: str,
    rows: Sequence[str] | None = None,
) -> Imported:
    """Copy an adapter into inputs/adapters and add it to params.yaml as a method.

    Either both happen or nothing does.

    Args:
        paths: The project.
        params: Its parameters.
        base: Its base model, which is used up.
        classes: Names of the classes.
        source: The adapter's folder.
        name: Name of the new method.
        rows: Names of the classes in the order of the adapter's head; None: the data's.

    Raises:
        ParamsError: The name or the classes do not do, or params.yaml cannot be added to.
        CheckpointError: The adapter does not fit; every difference is named.
    """
    _check_name(params, name)
    adapter = read_adapter(source)
    imported = from_peft(adapter, base.gpt, classes, rows)
    if problem := base_problem(adapter.config.get("base_model_name_or_path"), base, source):
        raise refusal([problem])
    build(imported, base, classes, params.training)

    target = paths.adapter(name)
    settings: dict[str, str | Sequence[str]] = {
        "trainable": "imported",
        "adapter": target.relative_to(paths.root).as_posix(),
        "sha256": sha256(source / TENSORS_FILE),
        "config_sha256": sha256(source / CONFIG_FILE),
    }
    if rows is not None and list(rows) != classes:
        settings["classes"] = list(rows)
    changed = with_method(paths.params.read_bytes().decode(), name, settings)
    record = {"base": {key: base.description[key] for key in ("name", "sha256")}}
    with _placed(source, target, record):
        write_text(paths.params, changed)
    return imported


def _check_name(params: Params, name: str) -> None:
    problem = describe_method_name(name)
    if name.lower() in {method.lower() for method in params.methods}:
        problem = f"params.yaml has a method {name!r} already, capitals aside"
    if problem:
        raise ParamsError(
            f"The adapter cannot be called so: {problem}.",
            where="--name",
            kept="params.yaml as it was",
            next="choose another name, or remove the method of this name from params.yaml",
        )


def base_problem(name: object, base: Base, source: Path) -> str:
    """Return what is wrong with the base model that an adapter names; empty if nothing is.

    Args:
        name: `base_model_name_or_path` of the adapter; None or empty says nothing.
        base: The base model here.
        source: The adapter's folder, which may hold its base, as exports do.
    """
    if not name:
        return ""
    here = f"{base.description['weights']} {base.description['name']}"
    if (model := HUB.get(str(name))) is not None:
        fits = here == f"pretrained {model}"
        return "" if fits else f"base_model_name_or_path: {name}, the base model here is {here}"
    folders = (Path(str(name)), source / str(name), source / "base")
    files = [folder / "model.safetensors" for folder in folders]
    found = next((file for file in files if is_file(file)), None)
    if found is None:
        return (
            f"base_model_name_or_path: {name}, which is not here to be compared with {here}; "
            f"where it is the same, set it to null in {CONFIG_FILE}"
        )
    if holds_gpt2(found, base.gpt.state_dict()):
        return ""
    return f"base_model_name_or_path: {name}, whose weights are not those of models/base ({here})"


@contextmanager
def _placed(source: Path, target: Path, record: dict[str, Any]) -> Iterator[None]:
    """Copy an adapter to `target`; if the block fails, it is as if nothing was copied."""
    existed = target.exists()
    if not existed:
        with replacing_folder(target) as new:
            for name in FILES:
                shutil.copyfile(source / name, new / name)
    elif any(not _same(source / name, target / name) for name in FILES):
        raise ParamsError(
            "Another adapter is where this one would be copied to.",
            where=str(target),
            kept="that adapter, and params.yaml as it was",
            next=f"choose another --name, or: rm -r {target}",
        )
    try:
        write_json(target / RECORD, record)
        yield
    except BaseException:
        if not existed:
            shutil.rmtree(target)
        raise


def _same(one: Path, other: Path) -> bool:
    return other.is_file() and sha256(one) == sha256(other)
