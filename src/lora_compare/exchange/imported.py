"""A folder that PEFT wrote becomes a method of params.yaml."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from lora_compare import lora
from lora_compare.errors import ParamsError
from lora_compare.exchange.peft import names
from lora_compare.exchange.peft.config import read_adapter, refusal
from lora_compare.exchange.peft.labels import HeadRows, head_rows
from lora_compare.exchange.peft.reading import Imported, from_peft
from lora_compare.models.base import Base
from lora_compare.models.classifier import TextClassifier, untuned
from lora_compare.models.gpt.checkpoints import CHECKPOINTS
from lora_compare.models.gpt.network import GPT
from lora_compare.models.gpt.weights import holds_gpt2
from lora_compare.models.methods import CONFIG_FILE, TENSORS_FILE, Trained, adapt, save_method
from lora_compare.params import ClassifierParams, Params, describe_method_name, with_method
from lora_compare.project.files import is_file, replacing_folder, sha256, write_text
from lora_compare.project.paths import Paths
from lora_compare.training.imported import head_order

HEAD = ClassifierParams(position="last_token", bias=False)
"""The head of transformers' GPT2ForSequenceClassification."""

SEED = 0
"""Of initial weights, all of which the adapter's own replace."""

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
) -> tuple[Imported, HeadRows]:
    """Convert an adapter into inputs/adapters and add it to params.yaml as a method.

    There it is what `save_method` writes: nothing after the import knows PEFT's format. Either
    both happen or nothing does.

    Args:
        paths: The project.
        params: Its parameters.
        base: Its base model, which is used up.
        classes: Names of the classes.
        source: The adapter's folder.
        name: Name of the new method.
        rows: Names of the classes in the order of the adapter's head; None: as its
            `id2label` says, and where it has none, in the data's order.

    Returns:
        The adapter, and what the rows of its head were taken for.

    Raises:
        ParamsError: The name or the classes do not do, or params.yaml cannot be added to.
        CheckpointError: The adapter does not fit; every difference is named.
    """
    _check_name(params, name)
    head_order(classes, rows or classes)
    adapter, gpt = read_adapter(source), base.network
    assert isinstance(gpt, GPT), type(gpt)
    imported = from_peft(adapter, gpt, classes)
    if problem := base_problem(adapter.config.get("base_model_name_or_path"), base, source):
        raise refusal([problem])
    head = head_rows(adapter.config, source, classes, rows)
    weights = sum(p.numel() for p in gpt.parameters()) + len(classes) * base.width
    count = lora.Count(imported.trainable, weights + imported.factors)
    classifier = build(imported, base, head.classes)

    def write(folder: Path) -> None:
        save_method(folder, classifier, Trained("lora", imported.settings), SEED, base, count)

    target = paths.adapter(name)
    with _placed(write, target):
        settings: dict[str, str | Sequence[str]] = {
            "trainable": "imported",
            "adapter": target.relative_to(paths.root).as_posix(),
            "sha256": sha256(target / TENSORS_FILE),
            "config_sha256": sha256(target / CONFIG_FILE),
        }
        if head.classes != classes:
            settings["classes"] = head.classes
        write_text(paths.params, with_method(paths.params.read_bytes().decode(), name, settings))
    return imported, head


def build(imported: Imported, base: Base, rows: list[str]) -> TextClassifier:
    """Return the classifier of an imported adapter; the base's network becomes part of it.

    Args:
        imported: The adapter.
        base: The model that it adapts.
        rows: Names of the classes in the order of the adapter's head.

    Raises:
        ParamsError: The adapter does not fit the model.
    """
    classifier = untuned(base, rows, HEAD, SEED)
    adapt(classifier.model, imported.settings, initialise=False)
    # Biases that the adapter does not change have the base's values.
    own = lora.adapter_tensors(classifier.model)
    lora.load_adapter_tensors(classifier.model, {**own, **imported.tensors})
    return classifier


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
            f"where it is the same, set it to null in {names.CONFIG_FILE}"
        )
    if holds_gpt2(found, base.network.state_dict()):
        return ""
    return f"base_model_name_or_path: {name}, whose weights are not those of models/base ({here})"


@contextmanager
def _placed(write: Callable[[Path], None], target: Path) -> Iterator[None]:
    """Let `write` fill `target`; if the block fails, it is as if nothing was written."""
    existed = target.exists()
    if existed:
        with TemporaryDirectory() as other:
            write(Path(other))
            _require_same(Path(other), target)
    else:
        with replacing_folder(target) as new:
            write(new)
    try:
        yield
    except BaseException:
        if not existed:
            shutil.rmtree(target)
        raise


def _require_same(new: Path, target: Path) -> None:
    for name in (TENSORS_FILE, CONFIG_FILE):
        if not is_file(target / name) or sha256(target / name) != sha256(new / name):
            raise ParamsError(
                "Another adapter is where this one would be written to.",
                where=str(target),
                kept="that adapter, and params.yaml as it was",
                next=f"choose another --name, or: rm -r {target}",
            )
