"""The real SMS Spam Collection and GPT-2's real tokenizer, through the real stages."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from lora_compare.compute.optimizers import Rates
from lora_compare.models.classifier import predict_logits, start
from lora_compare.models.gpt.base import GPTBase, GPTTokenizer
from lora_compare.models.gpt.network import CONFIGS, GPT, initialise
from lora_compare.models.gpt.tokenizer import gpt2_encoding
from lora_compare.models.methods import Trained, choose_trainable
from lora_compare.models.tokens import tokenize
from lora_compare.params import ClassifierParams, Params, TrainingParams, parse_params
from lora_compare.training.loop import train
from small_project import ROOT, STAGES, run_stages

pytestmark = pytest.mark.real_data

DEFAULT, QUICK = ((ROOT / "recipes" / f"{name}.yaml").read_text() for name in ("default", "quick"))


def run_pipeline(folder: Path, assets: Path, params: str) -> dict[str, dict]:
    """Run every stage on the real file in `folder` and return the metrics by name."""
    write_project(folder, assets, params.replace("source: bundled", "source: inputs/text/sms.tsv"))
    run_stages(folder, *STAGES)
    return {path.stem: json.loads(path.read_text()) for path in (folder / "metrics").iterdir()}


def write_project(folder: Path, assets: Path, params: str) -> None:
    (folder / "params.yaml").write_text(params)
    (folder / "inputs" / "text").mkdir(parents=True)
    shutil.copy(assets / "sms" / "SMSSpamCollection", folder / "inputs" / "text" / "sms.tsv")


@pytest.mark.slow
def test_the_whole_pipeline_learns_the_real_task(tmp_path: Path, assets: Path) -> None:
    short = QUICK.replace("steps: 700", "steps: 40").replace("epochs: 3", "epochs: 2")
    metrics = run_pipeline(tmp_path, assets, short)
    assert metrics["split"]["rows"] == 5574
    assert metrics["split"]["duplicates_removed"] == 403
    assert [metrics["split"]["splits"][s]["n"] for s in ("train", "validation", "test")] == [
        914,
        517,
        1034,
    ]
    assert metrics["baseline"]["tfidf"]["test"]["accuracy"] > 0.95
    untuned = metrics["baseline"]["untuned"]["test"]["balanced_accuracy"]
    for method in ("full", "lora"):
        assert metrics[method]["test"]["balanced_accuracy"] > max(0.9, untuned)
        assert metrics[method]["test"]["n"] == 1034


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_default_settings_reach_97_per_cent_with_both_methods(
    tmp_path: Path, assets: Path
) -> None:
    metrics = run_pipeline(tmp_path, assets, DEFAULT)
    for method in ("full", "lora"):
        assert metrics[method]["seeds"] == [1, 2, 3, 4, 5]
        assert metrics[method]["test"]["balanced_accuracy"] >= 0.97


@pytest.fixture(scope="module")
def book() -> Params:
    return parse_params((ROOT / "recipes" / "appendix_e.yaml").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(("method", "trainable"), [("full", 124_441_346), ("lora", 2_666_528)])
def test_gpt2_small_takes_a_few_steps_of_the_books_experiment(
    assets: Path,
    monkeypatch: pytest.MonkeyPatch,
    book: Params,
    method: str,
    trainable: int,
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(assets / "tiktoken_cache"))
    rows = (assets / "sms" / "SMSSpamCollection").read_text(encoding="utf-8").splitlines()[:16]
    labels = [int(row.startswith("spam")) for row in rows]
    texts = [row.split("\t", 1)[1] for row in rows]
    torch.manual_seed(123)
    base = GPTBase(initialise(GPT(CONFIGS["gpt2-small"])), GPTTokenizer(gpt2_encoding()), {})
    training = TrainingParams(epochs=1, batch_size=8, seeds=[123], max_length=32, eval_every=10)
    head = ClassifierParams(position="last_token", bias=True)
    whole = tokenize(base.tokenizer, pd.DataFrame({"Label": labels, "Text": texts}))
    classifier = start(base, ["ham", "spam"], whole, head, training, 123)
    examples, _ = whole.cut(classifier.max_length)
    frozen = base.network.wte.weight.detach().clone()
    untuned = predict_logits(classifier.model, examples)

    settings = book.method(method)
    choose_trainable(classifier.model, Trained.of(settings), 123)
    assert sum(p.numel() for p in classifier.model.parameters() if p.requires_grad) == trainable
    assert (predict_logits(classifier.model, examples) == untuned).all()
    result = train(
        classifier.model,
        examples,
        examples,
        training,
        Rates(settings.learning_rate, settings.weight_decay),
        123,
    )
    assert [row.step for row in result.history] == [0, 2]
    assert result.history[1].train_loss < result.history[0].train_loss
    assert torch.equal(base.network.wte.weight, frozen) == (method == "lora")


def test_the_books_split_has_its_batches(assets: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(assets / "tiktoken_cache"))
    text = (ROOT / "recipes" / "appendix_e.yaml").read_text()
    write_project(tmp_path, assets, text.replace("source: uci", "source: inputs/text/sms.tsv"))
    run_stages(tmp_path, "download", "split")
    sizes = {
        n: len(pd.read_csv(tmp_path / f"data/splits/{n}.csv"))
        for n in ("train", "validation", "test")
    }
    assert {name: -(-size // 8) for name, size in sizes.items()} == {
        "train": 131,
        "validation": 19,
        "test": 38,
    }
    assert sizes["train"] // 8 == 130  # with drop_last
    train_texts = pd.read_csv(tmp_path / "data/splits/train.csv")["Text"].tolist()
    longest = max(len(tokens) for tokens in gpt2_encoding().encode_ordinary_batch(train_texts))
    assert longest == 120
