"""bfloat16 costs no accuracy: five seeds on the real file, and the loss curve of GPT-2 small."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from lora_compare.compute.device import Machine
from lora_compare.compute.precision import has_fast_bfloat16
from lora_compare.data.sources import load_corpus
from lora_compare.data.splits import split
from lora_compare.models.base import load_base, make_base, save_base
from lora_compare.models.batches import Examples
from lora_compare.models.gpt.base import GPTBase, GPTTokenizer
from lora_compare.models.gpt.network import CONFIGS, GPT, initialise
from lora_compare.models.gpt.tokenizer import gpt2_encoding
from lora_compare.models.tokens import tokenize
from lora_compare.params import DataParams, Params, Section, SplitParams, parse_params
from lora_compare.project.corpus import make_corpus
from lora_compare.project.paths import SPLITS, Paths
from lora_compare.training.finetuning import Training, finetune
from small_project import ROOT

CPU = torch.device("cpu")

SEEDS = range(5)

Nano = tuple[Path, dict[str, Examples]]
"""The folder of a base model, and the splits as its tokens."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.real_data,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not has_fast_bfloat16(CPU), reason="this CPU emulates bfloat16"),
]


def recipe(name: str) -> Params:
    return parse_params((ROOT / "recipes" / f"{name}.yaml").read_text())


def changed(section: Section, **changes: object) -> Section:
    return section.model_copy(update=changes)


def frames(assets: Path, settings: SplitParams) -> dict:
    source = str(assets / "sms" / "SMSSpamCollection")
    data = DataParams(source=source, text_column="text", label_column="label")
    messages, _ = load_corpus(data, Paths(assets))
    return split(make_corpus(messages["label"], messages["text"]), settings)[0]


@pytest.fixture(scope="module")
def nano(
    assets: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Examples]]:
    """The pre-trained base of the default settings on the real file, and its tokens."""
    torch.set_num_threads(1)
    params = recipe("default")
    parts = frames(assets, params.split)
    texts = [text for name in ("unused", "train") for text in parts[name]["Text"]]
    folder = tmp_path_factory.mktemp("base")
    base = save_base(make_base(params.model, texts, CPU), folder)
    return folder, {name: tokenize(base.tokenizer, parts[name]) for name in SPLITS}


@pytest.mark.parametrize("method", ["full", "lora"])
def test_five_seeds_answer_alike_in_both_precisions(
    method: str, nano: Nano, record_property: Callable[[str, object], None]
) -> None:
    folder, splits = nano
    params = recipe("default")
    right: dict[str, list[np.ndarray]] = {"float32": [], "bfloat16": []}
    for seed in SEEDS:
        for precision, answers in right.items():
            training = changed(params.training, precision=precision)
            dtype = getattr(torch, precision)
            classifier, _ = finetune(
                load_base(folder),
                ["ham", "spam"],
                splits,
                params.classifier,
                Training(f"seed {seed}", params.method(method), seed, training),
                Machine(CPU, dtype, 1),
            )
            chances = classifier.chances(splits["test"], dtype=dtype)
            answers.append(chances.argmax(axis=1) == splits["test"].labels)
    accuracy = {name: [float(a.mean()) for a in answers] for name, answers in right.items()}
    record_property("accuracy", accuracy)
    one, other = (np.concatenate(right[name]) for name in ("float32", "bfloat16"))
    alone = int((one & ~other).sum()), int((~one & other).sum())
    # McNemar's exact test: the messages that only one of them got right, as a fair coin falls.
    assert not any(alone) or binomtest(alone[0], sum(alone)).pvalue > 0.05, accuracy
    assert abs(np.mean(accuracy["float32"]) - np.mean(accuracy["bfloat16"])) < 0.01


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_losses_of_gpt2_small_go_the_same_way(
    method: str,
    assets: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(assets / "tiktoken_cache"))
    params = recipe("appendix_e")
    parts = frames(assets, params.split)
    tokenizer = GPTTokenizer(gpt2_encoding())
    train, validation = (tokenize(tokenizer, parts[name]) for name in ("train", "validation"))
    splits = {"train": train.take(range(320)), "validation": validation}
    curves = {}
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(0)
        base = GPTBase(initialise(GPT(CONFIGS["gpt2-small"])), tokenizer, {})
        changes = {"precision": precision, "epochs": 1, "eval_every": 10, "eval_examples": 64}
        _, result = finetune(
            base,
            ["ham", "spam"],
            splits,
            changed(params.classifier, position="last_token"),
            Training("seed 123", params.method(method), 123, changed(params.training, **changes)),
            Machine(CPU, getattr(torch, precision), torch.get_num_threads()),
        )
        curves[precision] = np.array([row.train_loss for row in result.history])
    record_property("losses", {name: curve.tolist() for name, curve in curves.items()})
    exact, rounded = curves["float32"], curves["bfloat16"]
    assert exact[-1] < 0.8 * exact[0]
    # The curves differ by less than the loss itself moves from one evaluation to the next.
    assert np.abs(exact - rounded).max() < np.abs(np.diff(exact)).max()
