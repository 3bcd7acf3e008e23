"""What classifiers are measured on, the splits of a fold or the only ones, and how."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_compare.evaluation.labels.metrics import evaluate_labels
from lora_compare.evaluation.metrics import evaluate_predictions
from lora_compare.evaluation.results import Chances, Results, Truth, over_seeds
from lora_compare.evaluation.scores import cost_matrix, positive_class, prior_weights
from lora_compare.models.answers.decision import (
    PLAIN,
    Decision,
    best_threshold,
    fit_temperature,
    prior_shift,
    require_both,
)
from lora_compare.models.answers.targets import ONE_CLASS, SeveralLabels, Targets
from lora_compare.models.batches import Examples
from lora_compare.models.tokens import check_fit, read_examples
from lora_compare.params import Params, require_costs
from lora_compare.project.corpus import GROUP, read_split
from lora_compare.project.paths import SPLITS, Paths, require

RANKING = ("auroc", "average_precision")
"""Figures of the order in which scores put messages."""


@dataclass(frozen=True)
class Fold:
    """The messages of a fold, or of all where there are no folds.

    Attributes:
        number: The fold's, from 1; None where there are none.
        splits: The columns of each split that was asked for.
        tokens: Every split as tokens.
    """

    number: int | None
    splits: Mapping[str, Mapping[str, Sequence[Any]]]
    tokens: Mapping[str, Examples]

    @property
    def texts(self) -> dict[str, Sequence[str]]:
        """The messages of each split that was asked for."""
        return {name: split["Text"] for name, split in self.splits.items()}

    @property
    def labels(self) -> Truth:
        """The right classes' indices of each split."""
        return {name: examples.labels for name, examples in self.tokens.items()}


def read_fold(paths: Paths, number: int | None, texts: Sequence[str] = SPLITS) -> Fold:
    """Return the messages of a fold.

    Args:
        paths: The project.
        number: The fold's; None where there are none.
        texts: The splits that are wanted as texts, too.

    Raises:
        MissingArtifactError: The stage split or base_model has not run.
        IntegrityError: A file has changed since.
        DataError: The tokens are not those of the texts.
    """
    splits = {name: read_split(require(paths.split(name), "split"), number) for name in texts}
    tokens = {name: read_examples(paths.tokens(name), number) for name in SPLITS}
    for name in texts:
        check_fit(paths.tokens(name), tokens[name], splits[name])
    return Fold(number, splits, tokens)


@dataclass(frozen=True)
class Measuring:
    """What classifiers are measured on, and how.

    Attributes:
        labels: For each split the right classes' indices, shape (n,), or labels, shape (n, k).
        test_texts: The texts of the test split.
        classes: Names of the classes.
        params: Positive class, prior, costs, and what is chosen on validation.
        test_groups: Name of the group of each test message, where the data has groups.
        tested: The labels of the test messages of all folds; None: of these.

    Raises:
        ParamsError: The classes can have no such costs or threshold.
    """

    labels: Mapping[str, npt.NDArray[np.int64]]
    test_texts: Sequence[str]
    classes: Sequence[str]
    params: Params
    test_groups: Sequence[str] = ()
    tested: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        """Refuse costs and a threshold that the classes cannot have."""
        require_costs(self.params, self.classes)

    @cached_property
    def positive(self) -> int:
        """The index of the positive class of two: the one that is named, or the rarer in test."""
        tested = self.labels["test"] if self.tested is None else self.tested
        return positive_class(self.classes, tested, self.params.classifier.positive)

    @cached_property
    def weights(self) -> dict[str, npt.NDArray[np.float64]]:
        """For each split what its messages count, shape (n,)."""
        prior = self.params.data.prior
        return {name: prior_weights(self.labels[name], self.classes, prior) for name in SPLITS}

    @cached_property
    def costs(self) -> npt.NDArray[np.float64] | None:
        """Cost by class and answer, shape (n_classes, n_classes); None: mistakes have none."""
        return cost_matrix(self.classes, self.params.comparison.costs)

    def decide(self, chances: Chances, balanced: bool = False) -> Decision:
        """Return how a classifier's probabilities become answers, chosen on validation alone.

        Args:
            chances: Its own probabilities; only those of validation are looked at.
            balanced: Whether it has learnt from classes that counted alike, whatever their shares.

        Raises:
            DataError: A threshold is to be chosen, and validation lacks a class.
        """
        labels, own = self.labels["validation"], chances["validation"]
        if labels.ndim == 2:
            return PLAIN  # several labels have thresholds of their own, and nothing else of it
        shift, weights = self._shift(balanced), self.weights["validation"]
        decision = Decision(shift=shift, positive=self.positive)
        if self.params.evaluation.temperature:
            temperature = fit_temperature(own, labels, weights, shift)
            decision = replace(decision, temperature=temperature)
        if (kind := self.params.classifier.threshold) == "argmax":
            return decision
        require_both(labels, self.classes, self.positive)
        probabilities, costs = decision.probabilities(own), self.costs if kind == "cost" else None
        found = best_threshold(probabilities, labels, weights, self.positive, costs)
        return replace(decision, threshold=found)

    def _shift(self, balanced: bool) -> tuple[float, ...]:
        """Return what takes logits from the shares of the training split to `data.prior`."""
        prior, n = self.params.data.prior, len(self.classes)
        if prior is None:
            return ()
        seen = np.bincount(self.labels["train"], minlength=n) / len(self.labels["train"])
        shares = [1 / n] * n if balanced else seen.tolist()
        return prior_shift(shares, [prior[name] for name in self.classes])

    def measure(
        self, chances: Chances, decision: Decision | None = None, targets: Targets = ONE_CLASS
    ) -> Results:
        """Return the results of a classifier on train, validation and test.

        Args:
            chances: For each split its own probabilities, shape (n, n_classes).
            decision: How they become answers, from `decide`; None takes the likeliest class, as
                of a classifier for which nothing is chosen.
            targets: What they are of.

        Raises:
            ParamsError: No class is called `classifier.positive`.
            DataError: A split is empty.
        """
        is_asked_for = decision is not None and self.params.decides
        decision = decision or PLAIN
        shown = decision.probabilities(np.asarray(chances["test"], np.float64))
        predictions = {
            "text": list(self.test_texts),
            "label": targets.texts(self.labels["test"], self.classes),
            "predicted": targets.texts(targets.answers(shown, decision), self.classes),
            **{f"p_{c}": shown[:, i].tolist() for i, c in enumerate(self.classes)},
        }
        before = None
        if is_asked_for:
            before = {
                name: self._figures(name, chances[name], PLAIN, targets) for name in SPLITS[1:]
            }
        figures = {name: self._figures(name, chances[name], decision, targets) for name in SPLITS}
        return Results(figures, predictions, decision, before)

    def _figures(
        self,
        split: str,
        chances: npt.NDArray[np.float64],
        decision: Decision,
        targets: Targets,
    ) -> dict[str, Any]:
        labels, groups = self.labels[split], self.test_groups if split == "test" else ()
        if isinstance(targets, SeveralLabels):
            return evaluate_labels(labels, chances, self.classes, targets, groups)
        probabilities = decision.probabilities(chances)
        return evaluate_predictions(
            *(labels, probabilities, self.classes, self.positive),
            self.weights[split],
            groups,
            targets.answers(probabilities, decision),
            self.costs,
        )


@dataclass(frozen=True)
class Classified:
    """What the classifier of a seed says of the messages that it is measured on.

    Attributes:
        chances: Its own probabilities.
        labels: For each split the right classes' indices, shape (n,), or labels, shape (n, k).
        test: The columns of its test split: Text, and Group where there are groups.
        targets: What the probabilities are of.
    """

    chances: Chances
    labels: Truth
    test: Mapping[str, Sequence[str]]
    targets: Targets = ONE_CLASS


def measure_all(
    seeds: Mapping[int, Classified],
    classes: Sequence[str],
    params: Params,
    in_folds: bool = False,
    decides: bool = True,
    balanced: bool = False,
) -> tuple[dict[int, Results], dict[str, Any]]:
    """Return the results of the classifier of each seed, and the figures of all together.

    The latter are those of `over_seeds`. Where each seed is of a fold of its own, the figures of
    the test split are of all messages, each answered by the one classifier that has not seen it:
    `n` are all of them, and the spreads are between folds. `auroc` and `average_precision` stay
    means over the folds, since they rank scores, which of two models need not be comparable.

    Args:
        seeds: What the classifier of each says.
        classes: Names of the classes.
        params: Positive class (None: the rarer in the test splits of all seeds), prior, costs, and
            what is chosen on validation.
        in_folds: Whether each seed is of a fold of its own.
        decides: Whether anything is chosen; not of a classifier that has learnt nothing.
        balanced: As of `Measuring.decide`.

    Raises:
        ParamsError: The classes can have no such costs, threshold or positive class.
        DataError: A split is empty, or lacks a class that a threshold needs.

    Source: Forman and Scholz 2010, SIGKDD Explorations 12:49, doi 10.1145/1882471.1882479.
    """
    tested = np.concatenate([own.labels["test"] for own in seeds.values()])
    results, measuring = {}, None
    for seed, own in seeds.items():
        groups = own.test.get(GROUP, ())
        measuring = Measuring(own.labels, own.test["Text"], classes, params, groups, tested)
        decision = measuring.decide(own.chances, balanced) if decides else None
        results[seed] = measuring.measure(own.chances, decision, own.targets)
    assert measuring is not None, "there is no seed"
    figures = over_seeds(results)
    if in_folds:
        chances = [results[s].decided(own.chances)["test"] for s, own in seeds.items()]
        predicted = [results[s].decision.answers(c) for s, c in zip(seeds, chances, strict=True)]
        pooled = evaluate_predictions(
            *(tested, np.concatenate(chances), classes, measuring.positive),
            prior_weights(tested, classes, params.data.prior),
            [group for own in seeds.values() for group in own.test.get(GROUP, ())],
            np.concatenate(predicted),
            measuring.costs,
        )
        figures["test"] = _pooled(figures["test"], pooled)
    return results, figures


def _pooled(mean: Mapping[str, Any], pooled: Mapping[str, Any]) -> dict[str, Any]:
    """Return pooled figures, but for the means of what ranks and the spreads."""
    figures = {k: v if k in RANKING else pooled.get(k, v) for k, v in mean.items()}
    if by_class := mean.get("per_class"):
        own = {name: _pooled(by_class[name], pooled["per_class"][name]) for name in by_class}
        figures |= {"per_class": own}
    return figures
