"""A method as a folder for other programs: PEFT, transformers, ONNX; TF-IDF for scikit-learn."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save
from torch import Tensor

from lora_compare.errors import DataError, ExportError
from lora_compare.evaluation.tfidf import (
    CONFIG_FILE,
    TENSORS_FILE,
    VOCABULARY_FILE,
    TfidfClassifier,
    load_tfidf,
)
from lora_compare.exchange import usage
from lora_compare.exchange.counterpart import TORCH, Counterpart
from lora_compare.exchange.kinds import counterpart_of
from lora_compare.exchange.peft import names
from lora_compare.exchange.peft.writing import to_peft
from lora_compare.models import weights
from lora_compare.models.base import load_base
from lora_compare.models.classifier import TextClassifier
from lora_compare.models.methods import load_method, read_method
from lora_compare.params import LoraParams
from lora_compare.project.files import (
    read_json,
    replacing_folder,
    sha256,
    write_bytes,
    write_json,
    write_text,
)
from lora_compare.project.paths import TFIDF, Paths
from lora_compare.project.seeds import base_of, chosen, seed_of

Format = Literal["peft", "merged", "onnx"]

RECORD = "export.json"
"""The file by which a folder is known as an export, with the names of all files in it."""


@dataclass(frozen=True)
class Source:
    """A fine-tuned method, read back.

    Attributes:
        method: Its name.
        seed: Its training.
        classifier: The classifier, its adapter not merged.
        settings: Its adapter; None where something else was trained.
        base: The weights of the base before fine-tuning and quantisation.
        description: The base model's config.json.
        sha256: Of the method's model.safetensors.
    """

    method: str
    seed: int
    classifier: TextClassifier
    settings: LoraParams | None
    base: Mapping[str, Tensor]
    description: Mapping[str, Any]
    sha256: str

    @property
    def counterpart(self) -> Counterpart:
        """The classifier as other programs have it."""
        return counterpart_of(self.classifier, self.base)


def write(
    paths: Paths,
    name: str,
    kind: Format | Literal["sklearn"],
    folder: Path,
    seed: int | None = None,
) -> str:
    """Write a method or TF-IDF to `folder`, and return the Python lines that use it.

    Args:
        paths: The project.
        name: The method, or `TFIDF`.
        kind: A format of `export`, or `sklearn` for TF-IDF.
        folder: As for `export`.
        seed: The method's training; None takes the chosen one.

    Raises:
        ExportError: The format is not one for this method; or as `export`.
    """
    if name == TFIDF and kind == "sklearn":
        return export_tfidf(paths, folder)
    if name == TFIDF or kind == "sklearn":
        right = "sklearn" if name == TFIDF else "peft, merged or onnx"
        raise ExportError(
            f"{name} cannot be written as {kind}.",
            where="--format",
            expected=right,
            actual=kind,
            next=f"lora-compare export --method {name} --format {right.rpartition(' ')[2]}",
        )
    return export(load_source(paths, name, seed), kind, folder)


def load_source(paths: Paths, method: str, seed: int | None = None) -> Source:
    """Return a method as its fine-tuning with one seed left it; without a seed, the chosen one's.

    Raises:
        MissingArtifactError: The base model, the method or its training with the seed is missing.
        CheckpointError: They do not belong together.
    """
    base = load_base(base_of(paths, method, seed))
    # The method's training never changes these tensors, it puts others in their places; only
    # a method without adapter overwrites them, and is never asked for its base.
    original = dict(base.network.state_dict())
    folder, stage = chosen(paths.model(method), seed), f"finetune@{method}"
    classifier = load_method(folder, base, stage, paths.decision(method, seed_of(folder)))
    return Source(
        method,
        seed_of(folder),
        classifier,
        read_method(folder, stage).lora,
        original,
        base.description,
        sha256(folder / "model.safetensors"),
    )


def export(source: Source, kind: Format, folder: Path) -> str:
    """Write a method to `folder` and return the Python lines that use it.

    The folder is written whole or not at all; an earlier export in its place is replaced.

    Args:
        source: The method.
        kind: `peft`: the adapter and, where no hub has it, its base; `merged`: a whole model
            for transformers; `onnx`: a whole model for ONNX runtimes.
        folder: Where to write, as a user would type it.

    Raises:
        ExportError: The format cannot hold the method, or `folder` holds something else.
    """
    _require_replaceable(folder)
    writer = {"peft": _write_peft, "merged": _write_merged, "onnx": _write_onnx}[kind]
    with replacing_folder(folder.resolve()) as new:
        lines = writer(source, new, folder)
        classes = source.classifier.classes
        origin = f", fine-tuned from {source.description['name']} with the seed {source.seed}"
        write_text(new / "README.md", _readme(source.method, kind, classes, origin, lines))
        write_json(new / RECORD, _record(source, kind, new))
    return lines


def export_tfidf(paths: Paths, folder: Path) -> str:
    """Write TF-IDF to `folder` for scikit-learn, and return the Python lines that use it.

    Args:
        paths: The project.
        folder: As for `export`.

    Raises:
        MissingArtifactError: The stage baseline has not run.
        IntegrityError: A file has changed since it did.
        ExportError: `folder` holds something else.
    """
    classifier = load_tfidf(paths.model(TFIDF), paths.decision(TFIDF))
    _require_replaceable(folder)
    lines = usage.of_sklearn(folder, classifier)
    with replacing_folder(folder.resolve()) as new:
        for name in (CONFIG_FILE, VOCABULARY_FILE):
            shutil.copyfile(paths.model(TFIDF) / name, new / name)
        write_bytes(new / TENSORS_FILE, save(_decided(classifier)))
        origin = " by TF-IDF and logistic regression"
        write_text(new / "README.md", _readme(TFIDF, "sklearn", classifier.classes, origin, lines))
        record = {"format": "sklearn", "method": TFIDF, "classes": classifier.classes}
        write_json(new / RECORD, {**record, "files": _files(new)})
    return lines


def _decided(classifier: TfidfClassifier) -> dict[str, npt.NDArray[np.float64]]:
    """Return the arrays of TF-IDF with how its probabilities become answers in them."""
    scale, added = classifier.decision.affine(len(classifier.classes))
    if len(classifier.intercepts) == 1:  # of two classes the second's score counts from the first
        added = added[1:] - added[:1]
    return {
        "idf": classifier.idf,
        "coefficients": classifier.coefficients * scale,
        "intercepts": classifier.intercepts * scale + added,
    }


def _require_replaceable(folder: Path) -> None:
    """Refuse to replace what is no export, or an export that somebody put something into."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    foreign = sorted(set(_files(folder)) - _exported(folder)) if folder.is_dir() else [folder.name]
    if foreign:
        more = f" and {len(foreign) - 5} more" if len(foreign) > 5 else ""
        raise ExportError(
            "The place for the export is taken.",
            where=str(folder),
            expected="no folder, an empty one, or an earlier export",
            actual=", ".join(foreign[:5]) + more,
            kept="everything in it",
            next="choose another folder with --output, or move these files away",
        )


def _exported(folder: Path) -> set[str]:
    """Return the files that an export wrote into `folder`, by its record."""
    try:
        names = read_json(folder / RECORD)["files"]
    except (OSError, DataError, TypeError, KeyError):
        return set()
    return {RECORD, *map(str, names)}


def _files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def _record(source: Source, kind: Format, folder: Path) -> dict[str, Any]:
    return {
        "format": kind,
        "method": source.method,
        "seed": source.seed,
        "method_sha256": source.sha256,
        "base": {key: source.description[key] for key in ("name", "sha256")},
        "classes": source.classifier.classes,
        **source.classifier.targets.settings(source.classifier.classes),
        "files": _files(folder),
    }


def _write_peft(source: Source, new: Path, folder: Path) -> str:
    if source.settings is None:
        raise ExportError(
            f"The method {source.method} has no adapter.",
            where=f"params.yaml: methods.{source.method}.trainable",
            expected="a method with trainable: lora",
            next=f"lora-compare export --method {source.method} --format merged",
        )
    counterpart, origin = source.counterpart, source.description["source"]
    name, revision = str(origin.get("repository")), origin.get("revision")
    if not _is_public(source.description):
        name, revision = f"{folder.as_posix()}/base", None
        counterpart.write_base(new / "base")
    adapter = to_peft(counterpart.layout, source.settings, name, revision)
    weights.save_state(new / names.TENSORS_FILE, adapter.tensors, TORCH)
    write_json(new / names.CONFIG_FILE, adapter.config)
    counterpart.write_tokenizer(new)
    return usage.of_peft(
        folder, name, revision, source.classifier, quantized=bool(source.settings.quantization)
    )


def _is_public(base: Mapping[str, Any]) -> bool:
    """Return whether the hub has all weights of a base, by its description."""
    pretrained = base["weights"] == "pretrained" and "repository" in base["source"]
    # What its files lack was drawn here, and would be drawn anew where they are loaded.
    return pretrained and not base.get("initialised")


def _write_merged(source: Source, new: Path, folder: Path) -> str:
    source.counterpart.write_model(new)
    source.counterpart.write_tokenizer(new)
    return usage.of_merged(folder, source.classifier)


def _write_onnx(source: Source, new: Path, folder: Path) -> str:
    source.counterpart.write_onnx(new)
    source.counterpart.write_tokenizer(new)
    return usage.of_onnx(folder, source.classifier)


def _readme(method: str, kind: str, classes: Sequence[str], origin: str, lines: str) -> str:
    return (
        f"# {method}, as {kind}\n\nA classifier of texts into {', '.join(classes)}{origin} "
        f"and written by lora-compare.\n\n```python\n{lines}\n```\n"
    )
