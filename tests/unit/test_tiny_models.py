"""The checkpoints that other tests read are ones that transformers reads."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tiny_models import ARCHITECTURES, CONTEXT, make_model, sample_texts


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_folder_loads_as_from_the_hub(architecture: str, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", architecture, n_classes=3)
    model, found = AutoModelForSequenceClassification.from_pretrained(
        folder, use_safetensors=True, output_loading_info=True
    )
    tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True)
    heads = ("classif", "score", "pooler", "head")
    assert all(any(head in name for head in heads) for name in found["missing_keys"])
    assert tokenizer.is_fast
    assert tokenizer.model_max_length == CONTEXT
    assert len(tokenizer) <= model.get_input_embeddings().num_embeddings
    trained = ARCHITECTURES[architecture].tokenizer(sample_texts())
    texts = sample_texts(20)
    assert tokenizer(texts).input_ids == trained(texts).input_ids
    logits = torch.cat(
        [model.eval()(torch.tensor([ids])).logits for ids in tokenizer(texts).input_ids]
    )
    assert logits.shape == (20, 3)
    assert logits.std(dim=0).min() > 1e-3


def test_folder_repeats_itself(tmp_path: Path) -> None:
    for architecture in ("t5", "llama"):
        first, second = (make_model(tmp_path / name / architecture, architecture) for name in "ab")
        for file in first.iterdir():
            assert file.read_bytes() == (second / file.name).read_bytes(), file.name
