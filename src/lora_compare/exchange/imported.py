"""A folder that PEFT wrote becomes a method of params.yaml."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from lora_compare import lora
from lora_compare.errors import ParamsError
from lora_compare.exchange.kinds import counterpart_of
from lora_compare.exchange.origins import base_problem
from lora_compare.exchange.peft.config import read_adapter, refusal
from lora_compare.exchange.peft.labels import HeadRows, head_rows
from lora_compare.exchange.peft.reading import Imported, from_peft
from lora_compare.models.base import Base
from lora_compare.models.classifier import TextClassifier, untuned
from lora_compare.models.methods import CONFIG_FILE, TENSORS_FILE, Trained, adapt, save_method
from lora_compare.params import ClassifierParams, Params, describe_method_name, with_method
from lora_compare.project.files import is_file, replacing_folder, sha256, write_text
from lora_compare.project.paths import Paths
from lora_compare.training.imported import head_order

HEADS = {
    "gpt": ClassifierParams(position="last_token", bias=False),
    "hub": ClassifierParams(position="last_token", bias=True),
}
"""The head of transformers' classifier by the kind of the base; GPT-2's has no bias there."""

SEED = 0
"""Of initial weights, all of which the adapter's own replace."""


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
    adapter = read_adapter(source)
    bare = untuned(base, classes, HEADS[base.kind], SEED)
    imported = from_peft(adapter, counterpart_of(bare, base.network.state_dict()).layout, classes)
    if problem := base_problem(adapter.config, base, source):
        raise refusal([problem])
    head = head_rows(adapter.config, source, classes, rows)
    count = lora.Count(imported.trainable, lora.count(bare.model).total + imported.factors)
    classifier = build(imported, replace(bare, classes=head.classes))

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


def build(imported: Imported, bare: TextClassifier) -> TextClassifier:
    """Return the classifier of an imported adapter, which is put on `bare`.

    Args:
        imported: The adapter.
        bare: The untuned classifier; its classes are in the order of the adapter's head.

    Raises:
        ParamsError: The adapter does not fit the model.
    """
    adapt(bare.model, imported.settings, initialise=False)
    # Biases that the adapter does not change have the base's values.
    own = lora.adapter_tensors(bare.model)
    lora.load_adapter_tensors(bare.model, {**own, **imported.tensors})
    return bare


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
