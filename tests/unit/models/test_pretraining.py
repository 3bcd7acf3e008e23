"""Pre-training: which tokens are predicted from which, and that it learns and repeats."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lora_compare.compute.optimizers import Muon, rate_factor
from lora_compare.errors import TrainingError
from lora_compare.models.gpt.pretraining import (
    IGNORED,
    batches,
    next_token_loss,
    pretrain,
    random_nano,
    sequences,
)
from lora_compare.models.gpt.tokenizer import train_encoding
from lora_compare.params import PretrainingParams

TEXTS = [f"the {word} sat on the {word} mat" for word in ("cat", "dog", "cow", "hen")] * 5
CPU = torch.device("cpu")


def settings(**changes: object) -> PretrainingParams:
    small = {"vocabulary_size": 300, "steps": 12, "batch_tokens": 96, "sequence_length": 16}
    return PretrainingParams(**{**small, **changes})


def test_every_text_ends_with_the_end_of_text_token_and_long_ones_are_cut() -> None:
    encoding = train_encoding(TEXTS, 300)
    pieces = sequences(["the cat", "the cat " * 20], encoding, length=16)
    assert pieces[0].tolist() == [*encoding.encode_ordinary("the cat"), encoding.eot_token]
    assert max(len(piece) for piece in pieces) == 16
    rest = np.concatenate(pieces[1:])
    assert encoding.decode(rest.tolist()) == "the cat " * 20 + "<|endoftext|>"


def test_batches_hold_every_piece_once_an_epoch_within_the_budget() -> None:
    pieces = [np.full(n, n) for n in (2, 3, 3, 5, 7, 8, 8, 8)]
    found = list(batches(pieces, settings(steps=40, batch_tokens=16)))
    assert len(found) == 40
    assert all(batch.numel() <= 16 for batch in found)
    rows = [int(row[0]) for batch in found for row in batch]
    first = sorted(rows[: len(pieces)])
    assert first == sorted(len(piece) for piece in pieces)


def test_the_loss_is_that_of_each_real_next_token() -> None:
    gpt = random_nano(300, seed=0)
    pieces = [torch.tensor([1, 2, 3, 4]), torch.tensor([5, 6])]
    padded = torch.tensor([[1, 2, 3, 4], [5, 6, IGNORED, IGNORED]])
    by_hand = torch.cat(
        [
            F.cross_entropy(gpt.next_token_logits(gpt(p[None, :-1]))[0], p[1:], reduction="none")
            for p in pieces
        ]
    ).mean()
    torch.testing.assert_close(next_token_loss(gpt, padded), by_hand)


def test_a_step_over_two_halves_equals_one_over_the_whole_batch() -> None:
    encoding = train_encoding(TEXTS, 300)
    pieces = sequences(TEXTS[:9], encoding, 16)
    one_step = settings(steps=1, learning_rate=0.01)
    trained, loss = pretrain(pieces, encoding.n_vocab, one_step, CPU)
    plain = random_nano(encoding.n_vocab, one_step.seed)
    matrices = [p for p in plain.h.parameters() if p.ndim == 2]
    rest = [p for p in plain.parameters() if all(p is not m for m in matrices)]
    decay = one_step.weight_decay
    optimizers = [
        Muon(matrices, lr=one_step.matrix_learning_rate, weight_decay=decay),
        torch.optim.AdamW(rest, lr=0.01, betas=(0.9, 0.95), weight_decay=decay),
    ]
    (batch,) = batches(pieces, one_step)
    assert len(batch) % 2 == 1  # halves of different size
    whole = next_token_loss(plain, batch)
    whole.backward()
    for optimizer in optimizers:
        optimizer.step()
    assert loss == pytest.approx(whole.item(), rel=1e-6)
    for a, b in zip(trained.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


def test_pretraining_learns_and_repeats_bit_for_bit() -> None:
    encoding = train_encoding(TEXTS, 300)
    pieces = sequences(TEXTS, encoding, 16)
    first, loss = pretrain(pieces, encoding.n_vocab, settings(steps=30), CPU)
    second, again = pretrain(pieces, encoding.n_vocab, settings(steps=30), CPU)
    assert loss == again < 0.6 * np.log(encoding.n_vocab)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_pretraining_stops_at_a_loss_that_is_not_finite() -> None:
    encoding = train_encoding(TEXTS, 300)
    pieces = sequences(TEXTS, encoding, 16)
    with pytest.raises(TrainingError, match=r"model\.pretraining\.learning_rate"):
        pretrain(pieces, encoding.n_vocab, settings(learning_rate=1e30), CPU)


def test_the_rate_rises_to_its_peak_and_falls_to_nearly_nothing() -> None:
    rates = [rate_factor(step, 100, "cosine", 0.05) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == pytest.approx(rates[5]) == 1.0
    assert rates[-1] < 0.001
