"""What config.json and tokenizer_config.json of a model say, looked at before anything uses it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lora_compare.errors import CheckpointError, ParamsError

CONFIG = "config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"

MAX_BYTES = 16_000_000
"""Largest config.json: one that names 100,000 classes has a half of it."""

MAX_LAYERS = 1000
"""Most layers of a model: building one takes a millisecond, and the deepest have 126."""

MAX_NUMBER = 2**31 - 1
"""Largest number in a config.json: every size and id fits into 32 bits."""

OTHER_MODEL = "choose another model.name in params.yaml"


def transformers() -> Any:
    """Return the library transformers, which only models on the hub and folders of them need.

    Raises:
        ParamsError: It is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise ParamsError(
            "A model on the hub, or a folder of one, needs the library transformers.",
            where="params.yaml: model.name",
            expected="transformers 5 or later",
            actual=str(error),
            next='pip install "lora-compare[hub]" (here: pip install -e ".[hub]"),\n'
            "or set model.name to one of GPT-2's in params.yaml",
        ) from error
    return transformers


def check_settings(folder: Path, several: bool = False) -> dict[str, Any]:
    """Return config.json of a model whose settings are those of a classifier that can be loaded.

    Only JSON is read. Nothing that the files name is imported, opened or fetched.

    Args:
        folder: Where config.json and perhaps tokenizer_config.json are.
        several: Whether the data has several labels a text.

    Raises:
        CheckpointError: A file is missing or no JSON object; it names code of its own, an
            architecture without a text classifier, another problem than one label a text, a
            quantised checkpoint, or a size that no model has.
        ParamsError: transformers is not installed.
    """
    settings = _read(folder / CONFIG)
    tokenizer = folder / TOKENIZER_CONFIG
    _refuse_code(folder / CONFIG, settings)
    if tokenizer.exists():
        _refuse_code(tokenizer, _read(tokenizer))
    _require_classifier(folder / CONFIG, settings)
    _require_problem(folder / CONFIG, settings, several)
    _require_whole_weights(folder / CONFIG, settings)
    _require_sizes(folder / CONFIG, settings)
    return settings


def classifier_name(settings: dict[str, Any]) -> str:
    """Return the name of transformers' classifier of texts for a config.json, empty if none.

    Raises:
        ParamsError: transformers is not installed.
    """
    transformers()
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    )

    return MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.get(str(settings.get("model_type")), "")


def _read(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file."""
    if (path.parent / "adapter_config.json").exists():
        raise CheckpointError(
            "The folder holds an adapter of PEFT, not a model.",
            where=str(path.parent / "adapter_config.json"),
            expected=f"a model's {CONFIG} and weights",
            actual="the adapter, whose base is another folder or on the hub",
            next="name the model that it was trained on, and lora-compare import the adapter",
        )
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise _no_settings(path, f"{size:,} bytes")
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise _no_settings(path, "no such file") from error
    except (ValueError, RecursionError) as error:
        raise _no_settings(path, str(error)) from error
    if not isinstance(settings, dict):
        raise _no_settings(path, f"a JSON {type(settings).__name__}")
    return settings


def _no_settings(path: Path, actual: str) -> CheckpointError:
    return CheckpointError(
        f"The model's {path.name} cannot be read.",
        where=str(path),
        expected=f"a JSON object of at most {MAX_BYTES:,} bytes, as save_pretrained writes it",
        actual=actual,
        next=f"save the model there anew with transformers' save_pretrained, or {OTHER_MODEL}",
    )


def _inside(settings: Any, path: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield every key of nested settings with its path and its value."""
    items = settings.items() if isinstance(settings, dict) else enumerate(settings)
    for key, value in items:
        where = f"{path}.{key}".removeprefix(".")
        yield str(key), where, value
        if isinstance(value, dict | list):
            yield from _inside(value, where)


def _refuse_code(path: Path, settings: dict[str, Any]) -> None:
    """Refuse settings by which transformers would import code, or open a file, that they name."""
    for key, where, value in _inside(settings):
        is_kernel = "_implementation" in key and "/" in str(value)
        if value and (is_kernel or key in ("auto_map", "fusion_config", "kernel_config")):
            raise _unfit(
                path,
                "The model brings code of its own, which is never executed here.",
                where,
                "an architecture that is part of transformers",
                value,
                f"{OTHER_MODEL}; where transformers itself has this architecture, copy the files "
                f"to inputs/models/NAME without {where}",
            )
        if value and key == "transformers_weights":
            expected = "weights in model.safetensors, or in the shards of its index"
            what = "The model's weights have a name of their own."
            raise _unfit(path, what, where, expected, value, OTHER_MODEL)


def _require_classifier(path: Path, settings: dict[str, Any]) -> None:
    kind = settings.get("model_type")
    if not classifier_name(settings):
        raise _unfit(
            path,
            "The model is none that classifies texts.",
            "model_type",
            f"an architecture with a sequence classifier in transformers "
            f"{transformers().__version__}, such as bert, modernbert, xlm-roberta, llama or qwen3",
            kind,
            f"{OTHER_MODEL}, or, for a newer architecture, install a newer transformers",
        )


def _require_problem(path: Path, settings: dict[str, Any], several: bool) -> None:
    problem, known = settings.get("problem_type"), ["single_label_classification"]
    if several:
        known.append("multi_label_classification")
    if problem not in (None, *known):
        number = "several labels" if several else "one label"
        raise _unfit(
            path,
            f"The model is set up for another problem than {number} a text.",
            "problem_type",
            f"{' or '.join(known)}, or none",
            problem,
            f"remove problem_type from a copy in inputs/models/NAME, or {OTHER_MODEL}",
        )


def _require_whole_weights(path: Path, settings: dict[str, Any]) -> None:
    for key, where, value in _inside(settings):
        if key in ("quantization_config", "compression_config") and value:
            method = value.get("quant_method") if isinstance(value, dict) else value
            raise _unfit(
                path,
                "The model's weights are quantised.",
                where,
                "weights in float32, float16 or bfloat16, from which QLoRA quantises by itself",
                method,
                "name the original model, of which this is a smaller copy",
            )


def _require_sizes(path: Path, settings: dict[str, Any]) -> None:
    for key, where, value in _inside(settings):
        if not isinstance(value, int) or isinstance(value, bool):
            continue
        is_depth = "layer" in key and key.startswith(("n_", "num_", "encoder_", "decoder_"))
        most = MAX_LAYERS if is_depth else MAX_NUMBER
        if abs(value) > most:
            what = "The model has a size that no model has."
            raise _unfit(path, what, where, f"at most {most:,}", value, OTHER_MODEL)


def _unfit(path: Path, what: str, key: str, expected: str, value: Any, way: str) -> CheckpointError:
    shown = str(value)
    return CheckpointError(
        what,
        where=f"{path}: {key}",
        expected=expected,
        actual=shown if len(shown) <= 200 else shown[:200] + "...",
        kept="nothing of the model was loaded or executed",
        next=way,
    )
