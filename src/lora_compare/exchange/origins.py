"""Whether an adapter was trained on the base model that is here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lora_compare.exchange.peft.names import CONFIG_FILE
from lora_compare.models.base import Base
from lora_compare.models.gpt.checkpoints import CHECKPOINTS
from lora_compare.models.gpt.weights import holds_gpt2
from lora_compare.models.weights import opened
from lora_compare.project.files import is_file, sha256

HUB = {
    name: model
    for model, checkpoint in CHECKPOINTS.items()
    for name in (checkpoint.repository, checkpoint.repository.rpartition("/")[2])
}
"""GPT-2's sizes by the names that they have on the hub."""

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def base_problem(config: Mapping[str, Any], base: Base, source: Path) -> str:
    """Return what is wrong with the base model that an adapter names; empty if nothing is.

    Args:
        config: The adapter's settings: `base_model_name_or_path`, which says nothing where it is
            null or empty, and `revision`.
        base: The base model here.
        source: The adapter's folder, which may hold its base, as exports do.
    """
    name, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not name:
        return ""
    if (public := _of_the_hub(str(name), revision, base)) is not None:
        return public
    known, here = f"base_model_name_or_path: {name}", _here(base)
    folders = (Path(str(name)), source / str(name), source / "base")
    found = next((f for f in folders if is_file(f / WEIGHTS) or is_file(f / INDEX)), None)
    if found is None:
        return (
            f"{known}, which is not here to be compared with {here}; "
            f"where it is the same, set it to null in {CONFIG_FILE}"
        )
    if _holds(found, base):
        return ""
    return f"{known}, whose weights are not those of models/base ({here})"


def _here(base: Base) -> str:
    return f"{base.description['weights']} {base.description['name']}"


def _of_the_hub(name: str, revision: Any, base: Base) -> str | None:
    """Return what is wrong with a model of the hub; None where the name may be another's."""
    description, problem = base.description, f"base_model_name_or_path: {name}"
    if (model := HUB.get(name)) is not None and base.kind == "gpt":
        fits = _here(base) == f"pretrained {model}"
        return "" if fits else f"{problem}, the base model here is {_here(base)}"
    repository = str(description["source"].get("repository") or "")
    if not repository or name not in (repository, repository.rpartition("/")[2]):
        return None
    if description["weights"] != "pretrained":
        return f"{problem}, the base model here is {_here(base)}"
    commit = str(description["source"].get("revision"))
    if revision in (None, "", "main") or commit.startswith(str(revision)):
        return ""
    return f"revision: {revision} of {name}, the base model here is at {commit}"


def _holds(folder: Path, base: Base) -> bool:
    """Return whether a folder of transformers holds the weights of the base."""
    if base.kind == "gpt":
        return is_file(folder / WEIGHTS) and holds_gpt2(folder / WEIGHTS, base.state())
    from lora_compare.models.hub.folder import weight_files

    files = weight_files(folder)
    recorded = base.description["source"].get("files", {})
    if all(recorded.get(f, {}).get("sha256") == sha256(folder / f) for f in files):
        return True
    state, seen = base.state(), set(base.description.get("initialised", ()))
    prefix = f"{base.network.base_model_prefix}."
    for name in files:
        with opened(folder / name) as file:
            for key in file.keys():  # noqa: SIM118 (the file is no mapping)
                own = key.removeprefix(prefix)
                if own not in state:
                    continue
                # The base here is in float32, whatever the file's type.
                if not torch.equal(file.get_tensor(key).float(), state[own].float()):
                    return False
                seen.add(own)
    return seen >= state.keys()
