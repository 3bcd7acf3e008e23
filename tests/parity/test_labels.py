"""Several labels a text: logits, loss, gradient and step are those of transformers' own model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lora_compare.models.answers.targets import SeveralLabels
from lora_compare.models.batches import collate
from lora_compare.models.classifier import loss_and_accuracy, predict_logits, untuned
from lora_compare.models.tokens import tokenize
from lora_compare.training.loop import optimizer_step
from parity.conftest import Parity
from tiny_bases import CLASSES, HEAD, NAME, SEED, TEXTS, load, project

LABELS = np.random.default_rng(0).integers(0, 2, (len(TEXTS), len(CLASSES)))


@pytest.mark.parametrize("name", ["bert", pytest.param("llama", marks=pytest.mark.slow)])
def test_several_labels_are_trained_as_transformers_trains_them(
    name: str, tmp_path_factory: pytest.TempPathFactory, parity: Parity
) -> None:
    root: Path = tmp_path_factory.mktemp("labels")
    base = load(name, root)
    ours = untuned(base, CLASSES, HEAD, SEED, targets=SeveralLabels())
    split = {"Text": TEXTS, "Label": [tuple(row) for row in LABELS.tolist()]}
    taken, _ = ours.fit(tokenize(base.tokenizer, split))
    folder = project(name, root) / NAME
    theirs = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=len(CLASSES), problem_type="multi_label_classification"
    )
    for path in ours.model.head:
        own = ours.model.get_submodule(path).state_dict()
        theirs.get_submodule(path.removeprefix("model.")).load_state_dict(own)
    for module in (*theirs.modules(), *ours.model.modules()):
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    theirs.config.pad_token_id = tokenizer.pad_token_id
    inputs = tokenizer(
        TEXTS, padding=True, truncation=True, max_length=ours.max_length, return_tensors="pt"
    )
    inputs.pop("token_type_ids", None)
    output = theirs.train()(**inputs, labels=torch.from_numpy(LABELS).float())

    logits = predict_logits(ours.model, taken)
    worst = float(abs(logits - output.logits.detach().numpy()).max())
    parity(f"{name}: logits", "transformers", 1e-5, worst)
    ours_loss, _ = loss_and_accuracy(logits, taken.labels)
    parity(f"{name}: loss", "transformers", 1e-6, abs(ours_loss - output.loss.item()))

    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (ours.model, theirs)]
    halves = [collate(taken.take(range(5))), collate(taken.take(range(5, len(TEXTS))))]
    assert optimizer_step(ours.model, halves, optimizers[0]).item() == pytest.approx(
        output.loss.item(), abs=1e-6
    )
    output.loss.backward()
    optimizers[1].step()
    for path, parameter in theirs.named_parameters():
        own = ours.model.get_parameter(f"model.{path}")
        torch.testing.assert_close(own, parameter, atol=1e-5, rtol=1e-4, msg=path)
