"""The model before any fine-tuning: made or fetched once, then read by every method."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lora_compare.models.gpt.base import load_gpt, make_gpt
from lora_compare.models.network import Base
from lora_compare.models.weights import save_state
from lora_compare.params import ModelParams
from lora_compare.project.checksums import read_verified, seal
from lora_compare.project.files import sha256, write_json
from lora_compare.project.progress import SILENT, Progress

__all__ = ["Base", "load_base", "make_base", "read_description", "save_base"]


def make_base(
    model: ModelParams,
    texts: Sequence[str],
    device: torch.device,
    progress: Progress = SILENT,
    root: Path = Path(),
    several: bool = False,
) -> Base:
    """Return the model that params.yaml asks for, on the CPU.

    Args:
        model: Name, weights and settings.
        texts: What `gpt2-nano` learns its tokens and its language from; the other models
            do not look at them.
        device: Where `gpt2-nano` is pre-trained.
        progress: Where to report.
        root: The project, below which a model's folder lies.
        several: Whether the data has several labels a text.

    Raises:
        DownloadError: A checkpoint or tokenizer can neither be found nor fetched.
        CheckpointError: The checkpoint is not the one that was asked for, or none that may be
            loaded.
        ParamsError: A library that it needs is not installed, or its folder is not there.
    """
    if model.kind != "gpt":
        from lora_compare.models.hub.base import make_hub

        return make_hub(model, root, progress, several)
    return make_gpt(model, texts, device, progress)


def save_base(base: Base, folder: Path) -> Base:
    """Write `base` to `folder` as config.json, model.safetensors and its tokenizer, and seal it.

    Args:
        base: The model.
        folder: Where to write.

    Returns:
        `base` with the whole of config.json as its description.
    """
    save_state(folder / "model.safetensors", base.state())
    base.save_tokenizer(folder)
    description = {
        **base.description,
        "kind": base.kind,
        "width": base.width,
        "context": base.context,
        "sha256": sha256(folder / "model.safetensors"),
    }
    write_json(folder / "config.json", description)
    seal(folder)
    return replace(base, description=description)


def read_description(folder: Path) -> dict[str, Any]:
    """Return the description of the model that `save_base` wrote to `folder`.

    Raises:
        MissingArtifactError: The folder or its config.json is missing.
        IntegrityError: That has changed since it was written.
    """
    description: dict[str, Any] = json.loads(read_verified(folder / "config.json", "base_model"))
    return description


def load_base(folder: Path, with_weights: bool = True) -> Base:
    """Return the model that `save_base` wrote to `folder`, on the CPU.

    Args:
        folder: The base model's folder.
        with_weights: False leaves them out, for a method that has every weight itself;
            model.safetensors need not be there then.

    Raises:
        MissingArtifactError: The folder or a file in it is missing.
        IntegrityError: A file has changed since it was written.
    """
    description = read_description(folder)
    if description["kind"] == "hub":
        # Here, because transformers takes seconds to import, which GPT-2 does not need.
        from lora_compare.models.hub.base import load_hub

        return load_hub(folder, description, with_weights)
    return load_gpt(folder, description, with_weights)
