"""Every architecture as a base model: trained, cut off, saved and loaded."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

pytest.importorskip("transformers")

from lora_compare.compute.device import Machine
from lora_compare.compute.precision import computing_in
from lora_compare.compute.seeding import seeded
from lora_compare.errors import ParamsError
from lora_compare.models.base import Base, load_base, make_base
from lora_compare.models.batches import Examples, collate
from lora_compare.models.classifier import TextClassifier, predict_logits, untuned
from lora_compare.models.methods import Trained, choose_trainable, load_method, save_method
from lora_compare.params import ClassifierParams, MethodParams, TrainingParams
from lora_compare.project.files import sha256
from lora_compare.training import loop
from lora_compare.training.embeddings import SeenRows, seen_rows
from lora_compare.training.finetuning import Training, finetune
from lora_compare.training.resume import Checkpoints
from tiny_bases import (
    CLASSES,
    CPU,
    EVERY,
    HEAD,
    NAME,
    SEED,
    TEXTS,
    examples,
    load,
    model_params,
    project,
)
from tiny_models import ARCHITECTURES

TRAINED = [
    pytest.param(name, marks=[] if name == "bert" else [pytest.mark.slow]) for name in ARCHITECTURES
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("architectures")


def method(trainable: str) -> MethodParams:
    return MethodParams(trainable=trainable, learning_rate=1e-3, weight_decay=0.1)


def trained(
    base: Base, trainable: str, seed: int = SEED, checkpoints: Checkpoints | None = None
) -> TextClassifier:
    shared = TrainingParams(epochs=2, batch_size=4, seeds=[seed], eval_every=3, max_length=32)
    splits = {"train": examples(base), "validation": examples(base).take(range(4))}
    training = Training(f"seed {seed}", method(trainable), seed, shared)
    machine = Machine(CPU, torch.float32, 1)
    torch.manual_seed(seed)  # of dropout, as `train_one` has it
    done = finetune(base, CLASSES, splits, HEAD, training, machine, checkpoints=checkpoints)
    return done[0]


@pytest.mark.parametrize("architecture", TRAINED)
@pytest.mark.parametrize("trainable", ["all", "head", "last_block"])
def test_a_training_repeats_and_its_files_hold_what_it_changed(
    architecture: str, trainable: str, root: Path, tmp_path: Path
) -> None:
    folder, settings = project(architecture, root) / "base", Trained.of(method(trainable))
    bases = [load_base(folder) for _ in range(3)]
    start = untuned(load_base(folder), CLASSES, HEAD, SEED).model.state_dict()
    first, again, other = (trained(bases[i], trainable, SEED + i // 2) for i in range(3))
    for name, result, base in (("a", first, bases[0]), ("b", again, bases[1])):
        save_method(tmp_path / name, result, settings, SEED, base)
    assert sha256(tmp_path / "a/model.safetensors") == sha256(tmp_path / "b/model.safetensors")
    wanted = first.probabilities(TEXTS)
    assert not np.array_equal(wanted, other.probabilities(TEXTS))
    now = first.model.state_dict()
    changed = {name for name in start if not torch.equal(start[name], now[name])}
    trained_names = {name for name, p in first.model.named_parameters() if p.requires_grad}
    assert changed
    if trainable != "all":
        assert changed <= trained_names < now.keys()
    if trainable == "head":
        assert all(name.startswith(first.model.head) for name in changed)
    loaded = load_method(tmp_path / "a", load_base(folder, with_weights=trainable != "all"))
    assert np.array_equal(loaded.probabilities(TEXTS), wanted)


@pytest.mark.parametrize("architecture", TRAINED)
def test_a_training_that_was_cut_off_goes_on_to_the_same_bytes(
    architecture: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = trained(load(architecture, root), "all").model.state_dict()
    file, left, original = tmp_path / "state.safetensors", [4], loop.optimizer_step

    def step(*arguments: Any) -> Tensor:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "optimizer_step", step)
        with pytest.raises(KeyboardInterrupt):
            trained(load(architecture, root), "all", checkpoints=Checkpoints(file, {}, 0))
    result = trained(load(architecture, root), "all", checkpoints=Checkpoints(file, {}, None))
    for name, tensor in result.model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def gradients(model: nn.Module, data: Examples) -> dict[str, Tensor]:
    batch = collate(data)
    torch.manual_seed(1)
    model.train().zero_grad()
    F.cross_entropy(model.of_packed(batch.texts), batch.labels).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("architecture", EVERY)
def test_checkpointing_gives_the_same_gradients(architecture: str, root: Path) -> None:
    base = load(architecture, root)
    classifier = untuned(base, CLASSES, HEAD, SEED, max_length=24)
    data, _ = classifier.fit(examples(base))
    expected = gradients(classifier.model, data)
    classifier.model.checkpointing = True
    assert classifier.model.checkpointing
    found = gradients(classifier.model, data)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-6, msg=name)
    classifier.model.checkpointing = False
    assert not classifier.model.checkpointing


@pytest.mark.parametrize("architecture", EVERY)
def test_an_embedding_of_seen_rows_has_the_gradients_of_the_whole(
    architecture: str, root: Path
) -> None:
    base = load(architecture, root)
    classifier = untuned(base, CLASSES, HEAD, SEED, max_length=24)
    model, (data, _) = classifier.model, classifier.fit(examples(base))
    expected = gradients(model, data)
    if model.embedding is None:
        assert architecture in ("gemma", "t5", "bart")  # scaled, or of encoder and decoder
        return
    with seen_rows(model, [data]):
        table = model.get_submodule(model.embedding)
        assert isinstance(table, SeenRows)
        found = gradients(model, data)
        key = f"{model.embedding}.weight"
        rows = table.place.nonzero().flatten()
        for row in rows:
            torch.testing.assert_close(found[key][table.place[row]], expected[key][row])
    for name in expected.keys() - {key}:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize("architecture", EVERY)
def test_in_bfloat16_the_head_stays_in_full_precision(architecture: str, root: Path) -> None:
    base = load(architecture, root)
    classifier = untuned(base, CLASSES, HEAD, SEED)
    data, _ = classifier.fit(examples(base))
    exact = predict_logits(classifier.model, data)
    rounded = predict_logits(classifier.model, data, dtype=torch.bfloat16)
    assert not np.array_equal(rounded, exact)
    np.testing.assert_allclose(rounded, exact, rtol=0, atol=0.1 * abs(exact).max())
    seen: list[torch.dtype] = []
    output = classifier.model.output
    output.register_forward_hook(lambda module, inputs, found: seen.append(found.dtype))
    with computing_in(torch.bfloat16, CPU):
        classifier.model.of_packed(collate(data).texts)
        assert torch.is_autocast_enabled("cpu")
    assert seen == [torch.float32]


@pytest.mark.parametrize("architecture", EVERY)
def test_the_last_blocks_are_the_decoders_own(architecture: str, root: Path) -> None:
    model = untuned(load(architecture, root), CLASSES, HEAD, SEED).model
    choose_trainable(model, Trained("last_block"), SEED)
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    blocks = {name.split(".1.")[0] for name in names if ".1." in name}
    assert len(blocks) == 1
    assert not [name for name in names if ".0." in name and ".1." not in name]
    assert ("decoder" in blocks.pop()) == (architecture in ("opt", "t5", "bart"))
    choose_trainable(model, Trained("last_two_blocks"), SEED)
    assert names < {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("architecture", EVERY)
def test_the_head_starts_as_that_of_transformers(architecture: str, root: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    network = load(architecture, root).new_classifier(len(CLASSES), HEAD, SEED).model
    own = network.state_dict()
    with seeded(SEED):
        theirs = AutoModelForSequenceClassification.from_pretrained(
            project(architecture, root) / NAME, num_labels=len(CLASSES)
        )
    expected = theirs.state_dict()
    assert own.keys() == expected.keys()
    assert [name for name, tensor in own.items() if not torch.equal(tensor, expected[name])] == []


def test_random_weights_depend_on_the_seed_alone(root: Path) -> None:
    folder = project("bert", root)

    def state(seed: int) -> dict[str, Tensor]:
        params = model_params(weights="random", seed=seed)
        return dict(make_base(params, [], CPU, root=folder).state())

    first, again, other = state(1), state(1), state(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    key = "encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(first[key], other[key])
    assert not torch.equal(first[key], load("bert", root).state()[key])


def test_what_padding_is_not_right_for_is_refused(root: Path) -> None:
    base = load("bert", root)
    with pytest.raises(ParamsError, match=r"training\.max_length(.|\n)*3 to 64(.|\n)*65"):
        untuned(base, CLASSES, HEAD, SEED, max_length=65)
    with pytest.raises(ParamsError, match=r"training\.max_length(.|\n)*3 to 64"):
        untuned(base, CLASSES, HEAD, SEED, max_length=2)
    with pytest.raises(ParamsError, match=r"position: last_token(.|\n)*position: mean"):
        untuned(base, CLASSES, ClassifierParams(position="mean", bias=True), SEED)
    with pytest.raises(ParamsError, match=r"training\.compile"):
        untuned(base, CLASSES, HEAD, SEED).model.compile_blocks()
