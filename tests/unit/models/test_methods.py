"""A method's files: exactly what training changed, and enough to rebuild the classifier."""

import copy
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from lora_compare import lora
from lora_compare.compute.device import Machine
from lora_compare.errors import CheckpointError, MissingArtifactError, ParamsError
from lora_compare.evaluation.merging import merge_error
from lora_compare.models.base import Base, load_base, make_base, save_base
from lora_compare.models.batches import Examples
from lora_compare.models.classifier import TextClassifier, start
from lora_compare.models.gpt.base import GPTBase
from lora_compare.models.methods import (
    Trained,
    choose_trainable,
    load_method,
    save_method,
)
from lora_compare.models.tokens import tokenize
from lora_compare.params import (
    ClassifierParams,
    LoraParams,
    MethodParams,
    ModelParams,
    PretrainingParams,
    TrainingParams,
)
from lora_compare.project.progress import Progress
from lora_compare.training.finetuning import Training, finetune
from lora_compare.training.history import Reporting
from lora_settings import lora_settings

CPU = torch.device("cpu")
MACHINE = Machine(CPU, torch.float32, 1)
TEXTS = [f"win prize {i} now" for i in range(8)] + [f"see you at {i} then" for i in range(8)]
SPLIT = pd.DataFrame({"Label": [1] * 8 + [0] * 8, "Text": TEXTS})
CLASSES = ["ham", "spam"]
SEED = 1
TRAINING = TrainingParams(epochs=2, batch_size=4, seeds=[SEED])
LORA = LoraParams(
    r=2, lora_alpha=4, lora_dropout=0.0, target_modules="all-linear", bias="lora_only"
)
METHODS = {
    **{
        name: MethodParams(trainable=name, learning_rate=1e-3, weight_decay=0.1)
        for name in ("all", "head", "last_block", "last_two_blocks")
    },
    "lora": MethodParams(trainable="lora", learning_rate=1e-2, weight_decay=0.1, lora=LORA),
    **{
        name: MethodParams(
            trainable="lora",
            learning_rate=1e-2,
            weight_decay=0.1,
            lora=lora_settings(**{"target_modules": ["c_attn", "c_fc"], **changes}),
        )
        for name, changes in {
            "qlora": {"quantization": "nf4"},
            "dora": {"use_dora": True},
            "pissa": {"init_lora_weights": "pissa"},
            "saved head": {"modules_to_save": ["score"]},
            "default layers": {"target_modules": "default"},
        }.items()
    },
}
TRAINED = {name: Trained.of(method) for name, method in METHODS.items()}
HEAD = ClassifierParams(position="last_token", bias=True)


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "base"
    model = ModelParams(
        name="gpt2-nano",
        weights="pretrained",
        pretraining=PretrainingParams(
            vocabulary_size=300, steps=3, batch_tokens=64, sequence_length=16
        ),
    )
    save_base(make_base(model, TEXTS, CPU), folder)
    return folder


def splits(base: Base) -> dict[str, Examples]:
    return {name: tokenize(base.tokenizer, SPLIT) for name in ("train", "validation")}


def untuned_of(folder: Path) -> TextClassifier:
    base = load_base(folder)
    return start(base, CLASSES, splits(base)["train"], HEAD, TRAINING, SEED)


def trained(base: Base, method: MethodParams, head: ClassifierParams = HEAD):
    training = Training("seed 1", method, SEED, TRAINING)
    return finetune(base, CLASSES, splits(base), head, training, MACHINE)[0]


@pytest.mark.parametrize("name", METHODS)
def test_a_saved_method_gives_the_same_probabilities_bit_for_bit(
    base_folder: Path, tmp_path: Path, name: str
) -> None:
    base = load_base(base_folder)
    classifier = trained(base, METHODS[name])
    save_method(tmp_path / "m", classifier, TRAINED[name], SEED, base)
    loaded = load_method(tmp_path / "m", load_base(base_folder))
    assert np.array_equal(loaded.probabilities(TEXTS), classifier.probabilities(TEXTS))
    untuned = untuned_of(base_folder)
    assert not np.array_equal(untuned.probabilities(TEXTS), classifier.probabilities(TEXTS))


def test_a_base_that_was_never_saved_trains_as_one_that_was(base_folder: Path) -> None:
    saved = load_base(base_folder)
    unsaved = GPTBase(copy.deepcopy(saved.network), saved.tokenizer, {})
    expected, found = (trained(base, METHODS["lora"]) for base in (saved, unsaved))
    assert np.array_equal(found.probabilities(TEXTS), expected.probabilities(TEXTS))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("head", {"score"}),
        ("last_block", {"score", "gpt.ln_f", "gpt.h.3"}),
        ("last_two_blocks", {"score", "gpt.ln_f", "gpt.h.3", "gpt.h.2"}),
    ],
)
def test_a_method_saves_and_trains_its_own_part_only(
    base_folder: Path, tmp_path: Path, name: str, expected: set[str]
) -> None:
    base = load_base(base_folder)
    before = {k: v.clone() for k, v in base.network.state_dict().items()}
    classifier = trained(base, METHODS[name])
    save_method(tmp_path, classifier, TRAINED[name], SEED, base)
    saved = load_file(tmp_path / "model.safetensors")
    assert all(any(k.startswith(f"{part}.") for part in expected) for k in saved)
    assert {part for part in expected for k in saved if k.startswith(f"{part}.")} == expected
    for key, value in base.network.state_dict().items():
        assert torch.equal(value, before[key]) == (f"gpt.{key}" not in saved), key


def test_a_lora_artifact_is_the_adapter_alone(base_folder: Path, tmp_path: Path) -> None:
    base = load_base(base_folder)
    save_method(tmp_path, trained(base, METHODS["lora"]), TRAINED["lora"], SEED, base)
    names = {key.split(".")[-1] for key in load_file(tmp_path / "model.safetensors")}
    assert names == {"lora_A", "lora_B", "bias"}


def test_a_base_in_four_bit_keeps_its_head_and_the_number_of_its_parameters(
    base_folder: Path,
) -> None:
    plain, packed = (untuned_of(base_folder) for _ in "ab")
    choose_trainable(packed.model, TRAINED["qlora"], SEED)
    base = lora.count(plain.model).total
    count = lora.count(packed.model)
    assert count.total == base + count.trainable
    weights = {n: p.dtype for n, p in packed.model.named_parameters()}
    assert weights["score.weight"] == torch.float32
    assert weights["gpt.h.0.mlp.c_proj.weight"] == torch.uint8
    assert weights["gpt.h.0.attn.q_proj.base_layer.weight"] == torch.uint8
    packed_bytes = sum(p.nbytes for p in packed.model.gpt.h.parameters() if not p.requires_grad)
    plain_bytes = sum(p.nbytes for p in plain.model.gpt.h.parameters())
    assert packed_bytes < plain_bytes / 6


def test_four_bit_without_its_library_says_what_to_install(
    base_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    classifier = untuned_of(base_folder)
    with pytest.raises(ParamsError, match=r"(?s)lora.quantization.*pip install"):
        choose_trainable(classifier.model, TRAINED["qlora"], SEED)


@pytest.mark.parametrize("name", ["lora", "qlora", "dora", "pissa"])
def test_the_error_of_merging_is_measured_and_the_adapter_merged(
    base_folder: Path, name: str
) -> None:
    classifier = trained(load_base(base_folder), METHODS[name])
    before = classifier.probabilities(TEXTS)
    error = merge_error(classifier, tokenize(classifier.tokenizer, SPLIT))
    np.testing.assert_allclose(classifier.probabilities(TEXTS), before, rtol=0, atol=1e-5)
    assert not list(lora.adapted_layers(classifier.model))
    assert 0 < error["float32"] < 1e-4 < error["bfloat16"] < 0.2


def test_a_head_that_nothing_trains_is_announced(base_folder: Path) -> None:
    printed = StringIO()
    progress = Progress(console=Console(file=printed))
    base = load_base(base_folder)
    training = Training("seed 1", METHODS["dora"], SEED, TRAINING)
    finetune(base, CLASSES, splits(base), HEAD, training, MACHINE, Reporting(progress))
    assert "the head keeps its random weights" in printed.getvalue()


def test_every_method_starts_from_the_untuned_models_outputs(base_folder: Path) -> None:
    untuned = untuned_of(base_folder)
    for name, method in TRAINED.items():
        if name == "qlora":
            continue  # rounding the base changes its outputs
        classifier = untuned_of(base_folder)
        choose_trainable(classifier.model, method, SEED)
        assert np.array_equal(classifier.probabilities(TEXTS), untuned.probabilities(TEXTS))


def test_last_position_pads_to_the_longest_training_text(base_folder: Path, tmp_path: Path) -> None:
    base = load_base(base_folder)
    head = ClassifierParams(position="last_position", bias=False)
    method = METHODS["lora"].model_copy(update={"lora": LORA.model_copy(update={"bias": "none"})})
    classifier = trained(base, method, head)
    longest = max(len(base.tokenizer.encoding.encode_ordinary(text)) for text in TEXTS)
    assert classifier.padding.length == classifier.max_length == longest
    save_method(tmp_path, classifier, Trained.of(method), SEED, base)
    loaded = load_method(tmp_path, load_base(base_folder))
    much_longer = [text * 9 for text in TEXTS]
    assert np.array_equal(loaded.probabilities(much_longer), classifier.probabilities(much_longer))


def test_a_method_of_another_base_is_refused(base_folder: Path, tmp_path: Path) -> None:
    base = load_base(base_folder)
    save_method(tmp_path / "m", trained(base, METHODS["head"]), TRAINED["head"], 1, base)
    other = make_base(ModelParams(name="gpt2-nano", weights="random"), TEXTS, CPU)
    other = save_base(other, tmp_path / "other")
    with pytest.raises(CheckpointError, match=base.description["sha256"]):
        load_method(tmp_path / "m", other)


def test_a_missing_model_names_the_stage_to_run(tmp_path: Path, base_folder: Path) -> None:
    with pytest.raises(MissingArtifactError, match="dvc repro base_model"):
        load_base(tmp_path)
    with pytest.raises(MissingArtifactError, match="dvc repro finetune@lora"):
        load_method(tmp_path, load_base(base_folder), "finetune@lora")


def test_making_the_base_twice_gives_the_same_bytes(base_folder: Path, tmp_path: Path) -> None:
    model = ModelParams(
        name="gpt2-nano",
        weights="pretrained",
        pretraining=PretrainingParams(
            vocabulary_size=300, steps=3, batch_tokens=64, sequence_length=16
        ),
    )
    save_base(make_base(model, TEXTS, CPU), tmp_path)
    for file in base_folder.iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name
