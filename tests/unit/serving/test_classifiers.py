"""Several methods over one base: its very tensors, each method's own answers."""

import math
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lora_compare import lora
from lora_compare.errors import CheckpointError, MissingArtifactError, RequestError
from lora_compare.models.answers.decision import Decision, write_decision
from lora_compare.models.base import load_base
from lora_compare.models.classifier import TextClassifier
from lora_compare.models.methods import Trained, load_method
from lora_compare.project.seeds import chosen
from lora_compare.serving.classifiers import Classifiers, load_classifiers
from lora_settings import lora_settings
from served_project import CLASSES, write_base, write_method

CPU = torch.device("cpu")
TEXTS = ["win a prize now", "see you at seven then", "x " * 2000, "£ über"]


def method(trainable: str = "lora", **changes: object) -> Trained:
    settings = None
    if trainable == "lora":
        # Some settings are of layers that all other methods share.
        settings = lora_settings(target_modules=["c_attn", "c_fc", "score"], **changes)
    return Trained(trainable, settings)


METHODS = {
    "full": method("all"),
    "head": method("head"),
    "last_block": method("last_block"),
    "plain": method(),
    "biases": method(bias="all"),
    "dora": method(use_dora=True, lora_dropout=0.5),
    "pissa": method(init_lora_weights="pissa"),
    "embedding": method(modules_to_save=["ln_f"]),
    "packed": method(quantization="nf4"),
    "packed_too": method(quantization="nf4", r=3),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the project's models/, with a base and every method of METHODS."""
    folder = tmp_path_factory.mktemp("models")
    write_base(folder / "base")
    for seed, (name, settings) in enumerate(METHODS.items()):
        write_method(folder, name, settings, seed)
    return folder


def load(models: Path, *names: str) -> Classifiers:
    folders = {name: chosen(models / name) for name in names}
    return load_classifiers(models / "base", folders, CPU)


@pytest.fixture(scope="module")
def all_of_them(models: Path) -> Classifiers:
    return load(models, *METHODS)


def places(model: nn.Module) -> dict[int, Tensor]:
    """The tensors of a model by their place in memory."""
    return {tensor.data_ptr(): tensor for tensor in [*model.parameters(), *model.buffers()]}


def own_bytes(classifier: TextClassifier, others: nn.Module) -> int:
    return sum(t.nbytes for at, t in places(classifier.model).items() if at not in places(others))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_answers_as_it_does_alone(
    models: Path, all_of_them: Classifiers, name: str
) -> None:
    alone = load_method(chosen(models / name), load_base(models / "base")).probabilities(TEXTS)
    for _ in range(2):
        assert np.array_equal(all_of_them.choose(name).probabilities(TEXTS), alone)
    answers = all_of_them.answer(TEXTS, name)
    assert [list(answer.probabilities.values()) for answer in answers] == alone.tolist()
    assert [answer.label for answer in answers] == [("ham", "spam")[row.argmax()] for row in alone]
    assert [answer.probability for answer in answers] == alone.max(axis=1).tolist()


def test_methods_answer_differently(all_of_them: Classifiers) -> None:
    answers = {all_of_them.answer(TEXTS[:1], name)[0].probability for name in METHODS}
    assert len(answers) == len(METHODS)


@pytest.mark.parametrize("name", ["head", "last_block", "plain", "biases", "dora", "pissa"])
def test_what_a_method_has_not_trained_is_the_bases_own_memory(
    models: Path, all_of_them: Classifiers, name: str
) -> None:
    # The method that trains only the head has the whole base untouched beneath it.
    base = all_of_them.choose("head").model.gpt
    classifier = all_of_them.choose(name)
    trained = (chosen(models / name) / "model.safetensors").stat().st_size
    head = sum(p.nbytes for p in classifier.model.score.parameters())
    assert 0 < own_bytes(classifier, base) <= trained + head
    frozen = lora.bare_state_dict(classifier.model)
    assert frozen["gpt.wte.weight"].data_ptr() == base.wte.weight.data_ptr()
    assert frozen["gpt.h.0.mlp.c_proj.weight"].data_ptr() in places(base)


def test_methods_in_four_bit_share_their_base_in_four_bit(all_of_them: Classifiers) -> None:
    one, other = (all_of_them.choose(name).model for name in ("packed", "packed_too"))
    packed = one.gpt.h[0].mlp.c_proj.weight
    assert packed.dtype == torch.uint8
    assert packed.data_ptr() == other.gpt.h[0].mlp.c_proj.weight.data_ptr()
    assert one.gpt.h[0].mlp.c_proj.quant_state is other.gpt.h[0].mlp.c_proj.quant_state
    assert one.gpt.wte.weight.data_ptr() == other.gpt.wte.weight.data_ptr()
    assert (
        one.gpt.wte.weight.data_ptr() == all_of_them.choose("head").model.gpt.wte.weight.data_ptr()
    )


def test_a_fully_trained_method_leaves_the_base_as_it_is(models: Path) -> None:
    together = load(models, "head", "full", "last_block", "biases")
    base = load_base(models / "base").network.state_dict()
    for name, tensor in together.choose("head").model.gpt.state_dict().items():
        assert torch.equal(tensor, base[name]), name


def test_a_fully_trained_method_needs_no_weights_of_the_base(models: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "SHA256SUMS"):
        (tmp_path / name).write_bytes((models / "base" / name).read_bytes())
    alone = load_classifiers(tmp_path, {"full": chosen(models / "full")}, CPU)
    expected = load(models, "full", "head").answer(TEXTS, "full")
    assert alone.answer(TEXTS, "full") == expected
    folders = {name: chosen(models / name) for name in ("full", "head")}
    with pytest.raises(MissingArtifactError, match=r"model\.safetensors"):
        load_classifiers(tmp_path, folders, CPU)


@pytest.mark.slow
def test_threads_get_the_answers_of_their_own_method(all_of_them: Classifiers) -> None:
    # MLflow's scoring server calls a model from many threads. Dropout of the method dora would
    # show if one request switched training on under another.
    expected = {name: all_of_them.answer(TEXTS, name) for name in METHODS}
    requests = [name for _ in range(6) for name in METHODS]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda name: all_of_them.answer(TEXTS, name), requests))
    for name, answer in zip(requests, answers, strict=True):
        assert answer == expected[name], name
    for name in METHODS:
        assert not any(module.training for module in all_of_them.choose(name).model.modules())


def test_a_decision_beside_the_weights_shapes_the_answers_of_its_method_alone(
    models: Path, tmp_path: Path
) -> None:
    folders = {name: tmp_path / name for name in ("plain", "head")}
    for name, folder in folders.items():
        shutil.copytree(chosen(models / name), folder)
    before = load_classifiers(models / "base", folders, CPU)
    own = before.answer(TEXTS, "plain")
    chance = min(answer.probabilities["spam"] for answer in own)
    decision = Decision(threshold=math.log(chance / (1 - chance)) - 0.01)
    weights = folders["plain"] / "model.safetensors"
    write_decision(folders["plain"] / "decision.json", decision, CLASSES, weights)
    after = load_classifiers(models / "base", folders, CPU)
    answers = after.answer(TEXTS, "plain")
    assert [answer.label for answer in answers] == ["spam"] * len(TEXTS)
    assert [answer.probabilities for answer in answers] == [a.probabilities for a in own]
    assert {answer.probability for answer in answers} == {a.probabilities["spam"] for a in own}
    assert after.answer(TEXTS, "head") == before.answer(TEXTS, "head")


@pytest.mark.parametrize("unknown", ["lora_r4", "", None, ["plain"]])
def test_an_unknown_method_is_refused_with_the_names_that_there_are(
    models: Path, unknown: object
) -> None:
    few = load(models, "head", "plain")
    with pytest.raises(RequestError, match=r"(?s)no method .*expected: head or plain"):
        few.answer(TEXTS, unknown)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "nothing to classify"),
        (["fine", ""], "(?s)empty text.*text 2 of 2"),
        ([" \n\t"], "empty text"),
        (["fine", 5], r"(?s)Only text.*text 2 of 2.*5 \(int\)"),
        ([None], "(?s)Only text.*NoneType"),
        ([["fine"]], "(?s)Only text.*list"),
    ],
)
def test_what_is_no_text_is_refused(
    all_of_them: Classifiers, texts: list[object], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        all_of_them.answer(texts, "plain")  # type: ignore[arg-type]


def test_a_method_of_another_base_is_refused(models: Path, tmp_path: Path) -> None:
    write_base(tmp_path / "base", seed=7)
    with pytest.raises(CheckpointError, match="another base"):
        load_classifiers(tmp_path / "base", {"head": chosen(models / "head")}, CPU)


def test_choosing_copies_and_computes_nothing(
    all_of_them: Classifiers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: pytest.fail(f"{name} was called")

    chosen = {name: all_of_them.choose(name) for name in METHODS}
    for name in ("activate", "merge", "inject"):
        monkeypatch.setattr(lora, name, forbidden(name))
    for name in METHODS:
        assert all_of_them.choose(name) is chosen[name]
        all_of_them.answer(TEXTS[:1], name)
