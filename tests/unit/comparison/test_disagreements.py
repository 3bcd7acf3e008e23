"""The messages that methods get wrong, and what the test split shares with train."""

from dataclasses import replace

import numpy as np
import pytest

from comparison_inputs import make_wrong, write_inputs
from lora_compare.comparison import disagreements, leaks
from lora_compare.comparison.disagreements import find_cases, find_confusions
from lora_compare.comparison.evidence import Evidence, load_evidence

N = 296
"""Test messages."""


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    names = ("full", "lora", "lora_r4")
    paths, params = write_inputs(tmp_path_factory.mktemp("inputs"), names, N)
    # So that there are messages that all get wrong.
    make_wrong(paths, names, 5)
    return load_evidence(paths, params)


def test_every_message_that_a_method_got_wrong_is_a_case(evidence: Evidence):
    cases = find_cases(evidence, [False] * N)
    right = np.stack([method.right[0] for method in evidence.methods])
    expected = {evidence.texts[row] for row in np.flatnonzero(~right.all(axis=0))}
    assert {case.text for case in cases.shown} == expected
    assert cases.total == len(expected)
    for case in cases.shown:
        row = evidence.texts.index(case.text)
        assert [answer.right for answer in case.answers] == right[:, row].tolist()
        assert evidence.classes[case.place] == case.label
        assert case.baseline.right == evidence.baselines[0].right[0, row]


def test_disputed_messages_come_first_and_the_surest_mistake_among_them(evidence: Evidence):
    cases = find_cases(evidence, [False] * N)
    order = [(case.kind != "disputed", -case.surest) for case in cases.shown]
    assert order == sorted(order)
    assert sum(case.kind == "disputed" for case in cases.shown) == cases.disputed
    assert cases.unsteady == 0
    assert 0 < cases.shared < cases.total


def test_confusions_are_those_of_the_predictions_the_most_frequent_first(evidence: Evidence):
    found = find_confusions(evidence)
    assert {(one.label, one.taken) for one in found} == {("ham", "spam"), ("spam", "ham")}
    for one in found:
        tables = [method.predictions[1][["label", "predicted"]] for method in evidence.methods]
        answers = [table.eq([one.label, one.taken]) for table in tables]
        assert one.counts == tuple(int(answer.all(axis=1).sum()) for answer in answers)
    totals = [sum(one.counts) for one in found]
    assert totals == sorted(totals, reverse=True)
    assert totals[-1] > 0


def test_a_page_shows_so_many_cases_and_no_more(
    evidence: Evidence, monkeypatch: pytest.MonkeyPatch
):
    every = find_cases(evidence, [False] * N)
    monkeypatch.setattr(disagreements, "MOST_MESSAGES", 3)
    few = find_cases(evidence, [False] * N)
    assert few.shown == every.shown[:3]
    assert few.total == every.total


def test_leaks_are_found_with_what_they_repeat(evidence: Evidence):
    twins = leaks.find_leaks(evidence)
    kinds = ["exact"] * 2 + ["normalized"] * 2 + ["near"] * 4
    assert [(twin.row, twin.other, twin.kind) for twin in twins] == [
        (row, row, kind) for row, kind in enumerate(kinds)
    ]
    pairs = leaks.pairs(evidence, twins)
    assert [pair["text"] for pair in pairs[:2]] == evidence.texts[:2]
    assert pairs[0]["twin"] == pairs[0]["text"]
    assert pairs[0]["twin_label"] == pairs[0]["label"]
    assert [pair["kind"] for pair in pairs] == kinds


def test_accuracy_without_leaks_leaves_out_exactly_the_leaks(evidence: Evidence):
    twins = leaks.find_leaks(evidence)
    (full, *_) = leaks.accuracies(evidence, twins)
    correct = evidence.methods[0].right[0]
    assert full["all"][0] == pytest.approx(correct.mean())
    assert full["clean"][0] == pytest.approx(correct[8:].mean())
    assert full["leaked"][0] == pytest.approx(correct[:8].mean())
    assert [full[part][2] for part in ("all", "clean", "leaked")] == [N, N - 8, 8]
    assert leaks.accuracies(evidence, [])[0]["leaked"] is None


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    root = tmp_path_factory.mktemp("seeded")
    return load_evidence(*write_inputs(root, ("full", "lora"), N, seeds=(3, 1, 7)))


def test_a_message_that_some_seeds_get_wrong_is_a_case_that_says_how_many(seeded: Evidence):
    cases = find_cases(seeded, [False] * N)
    wrong = np.stack([(~method.right).sum(axis=0) for method in seeded.methods])
    assert {case.text for case in cases.shown} == {
        seeded.texts[row] for row in np.flatnonzero(wrong.any(axis=0))
    }
    for case in cases.shown:
        row = seeded.texts.index(case.text)
        assert [answer.wrong for answer in case.answers] == wrong[:, row].tolist()
        assert [answer.unsteady for answer in case.answers] == [0 < n < 3 for n in wrong[:, row]]
        # Of three seeds the answer is that of two.
        assert [answer.right for answer in case.answers] == [n < 2 for n in wrong[:, row]]
    kinds = [case.kind for case in cases.shown]
    assert kinds.count("unsteady") == cases.unsteady > 0
    assert kinds == sorted(kinds, key=disagreements.KINDS.index)


def test_a_mistake_is_the_surer_the_more_seeds_make_it(seeded: Evidence):
    method = seeded.methods[0]
    for case in find_cases(seeded, [False] * N).shown:
        row = seeded.texts.index(case.text)
        sure = [
            frame.loc[row, [f"p_{name}" for name in seeded.classes]].max()
            for frame, right in zip(method.predictions.values(), method.right[:, row], strict=True)
            if not right
        ]
        assert case.answers[0].mistake == pytest.approx(sum(sure) / 3)


def test_confusions_of_all_seeds_are_summed(seeded: Evidence):
    found = {(one.label, one.taken): one.counts for one in find_confusions(seeded)}
    for place, method in enumerate(seeded.methods):
        matrix = method.metrics["test"]["confusion_matrix"]
        assert found["ham", "spam"][place] == matrix[0][1]
        assert found["spam", "ham"][place] == matrix[1][0]


def test_accuracy_with_and_without_leaks_is_the_mean_of_the_seeds(seeded: Evidence):
    (full, *_) = leaks.accuracies(seeded, leaks.find_leaks(seeded))
    right = seeded.methods[0].right
    assert full["all"][0] == pytest.approx(right.mean())
    assert full["clean"][0] == pytest.approx(right[:, 8:].mean())
    assert full["clean"][2] == N - 8


def test_in_folds_a_twin_counts_that_the_fold_itself_trains_on(evidence: Evidence):
    every = len(evidence.training["Text"])
    # Messages 0 to 3 are of the first fold, which trains on what others repeat.
    folds = [1] * 4 + [2] * (N - 4)
    training = {**evidence.training, "Fold": [2, 1, 1, 2] + [2] * 4 + [1] * (every - 8)}
    twins = leaks.find_leaks(replace(evidence, folds=folds, training=training))
    assert [(twin.row, twin.other) for twin in twins] == [(row, row) for row in (1, 2, 4, 5, 6, 7)]
