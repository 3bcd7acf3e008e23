"""Batches: every text once, one behind the other, grouped by length."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lora_compare.models.batches import Examples, by_length, collate, consecutive, epoch_order


def examples(*lengths: int) -> Examples:
    tokens = [np.arange(1, n + 1) for n in lengths]
    return Examples(tokens, np.arange(len(lengths)) % 2)


def test_texts_lie_one_behind_the_other() -> None:
    batch = collate(examples(2, 3))
    assert batch.texts.tokens.tolist() == [1, 2, 1, 2, 3]
    assert batch.texts.positions.tolist() == [0, 1, 0, 1, 2]
    assert batch.texts.last.tolist() == [1, 4]
    assert batch.texts.bounds.tolist() == [0, 2, 5]
    assert batch.texts.lengths == (2, 3)
    assert batch.labels.tolist() == [0, 1]


def test_what_cutting_takes_away_is_a_share_of_all_tokens() -> None:
    texts = examples(2, 5, 13)
    kept, cut = texts.cut(5)
    assert cut == 1
    assert texts.lost(5) == 1 - kept.lengths.sum() / texts.lengths.sum() == 0.4
    assert texts.lost(13) == 0.0


def test_a_long_text_keeps_its_head_its_tail_or_a_quarter_and_the_rest() -> None:
    texts = examples(8, 9, 20)
    kept = {how: texts.cut(8, how) for how in ("head", "tail", "head_tail")}
    assert {cut for _, cut in kept.values()} == {2}
    assert all(found.tokens[0].tolist() == [*range(1, 9)] for found, _ in kept.values())
    long = {how: found.tokens[2].tolist() for how, (found, _) in kept.items()}
    assert long["head"] == [*range(1, 9)]
    assert long["tail"] == [*range(13, 21)]
    assert long["head_tail"] == [1, 2, *range(15, 21)]
    assert texts.cut(1, "head_tail")[0].tokens[2].tolist() == [20]


def test_every_epoch_has_its_own_repeatable_order() -> None:
    first, second = epoch_order(100, seed=1, epoch=0), epoch_order(100, seed=1, epoch=1)
    assert sorted(first) == sorted(second) == list(range(100))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, epoch_order(100, seed=1, epoch=0))
    assert not np.array_equal(first, epoch_order(100, seed=2, epoch=0))


def test_the_last_short_batch_is_kept_or_dropped_as_asked() -> None:
    order = np.arange(10)
    assert [len(run) for run in consecutive(order, 4)] == [4, 4, 2]
    assert [len(run) for run in consecutive(order, 4, drop_last=True)] == [4, 4]
    assert [len(run) for run in consecutive(order, 16, drop_last=True)] == [10]


@given(st.lists(st.integers(1, 50), min_size=1), st.integers(1, 200))
def test_groups_by_length_hold_every_text_once_within_the_budget(
    lengths: list[int], budget: int
) -> None:
    groups = list(by_length(np.array(lengths), budget))
    assert sorted(np.concatenate(groups)) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[i] for i in group) <= budget
