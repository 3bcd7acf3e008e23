"""Several methods over one base of transformers: its very tensors, each method's own answers."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from hub_models import make_hub_base
from lora_compare.models.base import load_base
from lora_compare.models.methods import Trained, load_method
from lora_compare.project.seeds import chosen
from lora_compare.serving.classifiers import Classifiers, load_classifiers
from lora_settings import lora_settings
from served_project import write_method

CPU = torch.device("cpu")
TEXTS = ["claim your prize", "see you at home now", "call " * 100, "내일 회의"]
METHODS = {
    "full": Trained("all"),
    "head": Trained("head"),
    "lora": Trained("lora", lora_settings(target_modules="all-linear", lora_dropout=0.5)),
    "dora": Trained("lora", lora_settings(target_modules="default", use_dora=True, bias="all")),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the project's models/, with a base and every method of METHODS."""
    folder = tmp_path_factory.mktemp("project")
    make_hub_base(folder, "bert")
    for seed, (name, settings) in enumerate(METHODS.items()):
        write_method(folder / "models", name, settings, seed)
    return folder / "models"


@pytest.fixture(scope="module")
def together(models: Path) -> Classifiers:
    folders = {name: chosen(models / name) for name in METHODS}
    return load_classifiers(models / "base", folders, CPU)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_answers_as_it_does_alone(
    models: Path, together: Classifiers, name: str
) -> None:
    alone = load_method(chosen(models / name), load_base(models / "base"))
    answers = [list(answer.probabilities.values()) for answer in together.answer(TEXTS, name)]
    np.testing.assert_array_equal(answers, alone.probabilities(TEXTS))


def test_what_a_method_has_not_trained_is_the_bases_own_memory(together: Classifiers) -> None:
    name = "model.bert.embeddings.word_embeddings.weight"
    places = {m: together.choose(m).model.get_parameter(name).data_ptr() for m in METHODS}
    assert places["head"] == places["lora"] == places["dora"] != places["full"]


def test_threads_get_the_answers_of_their_own_method(together: Classifiers) -> None:
    expected = {name: together.answer(TEXTS, name) for name in METHODS}
    requests = [name for _ in range(30) for name in METHODS]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda name: together.answer(TEXTS, name), requests))
    for name, answer in zip(requests, answers, strict=True):
        assert answer == expected[name], name


def test_a_fully_trained_method_needs_no_weights_of_the_base(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "base", tmp_path / "base")
    (tmp_path / "base" / "model.safetensors").unlink()
    alone = load_classifiers(tmp_path / "base", {"full": chosen(models / "full")}, CPU)
    whole = load_method(chosen(models / "full"), load_base(models / "base"))
    answers = [list(answer.probabilities.values()) for answer in alone.answer(TEXTS, "full")]
    np.testing.assert_array_equal(answers, whole.probabilities(TEXTS))
