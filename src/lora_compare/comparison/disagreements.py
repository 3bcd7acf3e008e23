"""The test messages on which methods or their seeds differ, and those that all get wrong."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from lora_compare.comparison.evidence import Evidence
from lora_compare.comparison.outcomes import Outcome
from lora_compare.comparison.verdict import TESTED_BASELINE

MOST_MESSAGES = 200
"""Messages in one table of the page; the files of predictions hold all."""

Kind = Literal["disputed", "shared", "unsteady"]

KINDS: tuple[Kind, ...] = ("disputed", "shared", "unsteady")
"""What a case can be, in the order in which they are shown."""


@dataclass(frozen=True)
class Answer:
    """What the trainings of a method, one per seed, said of one message.

    Attributes:
        predicted: The answer that most of them gave; of equally many, the likelier.
        confidence: Its mean probability, in 0..1.
        right: Whether it is the message's class.
        wrong: How many of them gave a wrong class.
        seeds: How many there are.
        mistake: The mean probability of the wrong classes that they gave, in 0..1; a right answer
            counts 0.
    """

    predicted: str
    confidence: float
    right: bool
    wrong: int
    seeds: int
    mistake: float

    @property
    def unsteady(self) -> bool:
        """Whether some, but not all, were wrong."""
        return 0 < self.wrong < self.seeds


@dataclass(frozen=True)
class Case:
    """A test message that some seed of a method got wrong, or on which methods differ.

    Attributes:
        text: The message.
        label: Its class.
        place: The class's place among the classes.
        answers: Every method's.
        baseline: That of TF-IDF.
        leaked: Whether the message has a twin in the training split.
    """

    text: str
    label: str
    place: int
    answers: tuple[Answer, ...]
    baseline: Answer
    leaked: bool

    @property
    def kind(self) -> Kind:
        """What it is: methods differ, all are wrong alike, or some seeds alone are wrong."""
        if len({answer.predicted for answer in self.answers}) > 1:
            return "disputed"
        return "unsteady" if self.answers[0].right else "shared"

    @property
    def surest(self) -> float:
        """How sure the method was that was wrong most surely, in 0..1."""
        return max(answer.mistake for answer in self.answers)


@dataclass(frozen=True)
class Cases:
    """The cases that are shown, and how many there are.

    Attributes:
        shown: At most MOST_MESSAGES, in the order of `KINDS`, the surest mistake first.
        disputed: Test messages to which two methods gave different answers.
        shared: Test messages that every method took for the same wrong class.
        unsteady: Test messages that methods got right, but for some of their seeds.
    """

    shown: tuple[Case, ...]
    disputed: int
    shared: int
    unsteady: int

    @property
    def total(self) -> int:
        """All cases, shown or not."""
        return self.disputed + self.shared + self.unsteady


def find_cases(evidence: Evidence, leaked: Sequence[bool]) -> Cases:
    """Return the test messages that at least one method got wrong with at least one seed.

    Args:
        evidence: What the methods and baselines did.
        leaked: Whether each test message has a twin in the training split.
    """
    answers = [_answers(method) for method in evidence.methods]
    tfidf = _answers(next(b for b in evidence.baselines if b.name == TESTED_BASELINE))
    places = {name: place for place, name in enumerate(evidence.answers)}
    columns = (evidence.texts, evidence.labels, zip(*answers, strict=True), tfidf, leaked)
    cases = [
        Case(text, label, places[label], given, baseline, bool(twin))
        for text, label, given, baseline, twin in zip(*columns, strict=True)
        if any(answer.wrong for answer in given)
    ]
    # Sorting keeps the order of the split among equals.
    cases.sort(key=lambda case: (KINDS.index(case.kind), -case.surest))
    counts = Counter(case.kind for case in cases)
    return Cases(tuple(cases[:MOST_MESSAGES]), *(counts[kind] for kind in KINDS))


@dataclass(frozen=True)
class Confusion:
    """A class that methods took for another one.

    Attributes:
        label: The class of the messages.
        taken: What they were taken for.
        counts: How often, of each method; its seeds are summed.
    """

    label: str
    taken: str
    counts: tuple[int, ...]


def find_confusions(evidence: Evidence) -> list[Confusion]:
    """Return every confusion of two classes in the test messages, the most frequent first."""
    counts = [_confusion(method) for method in evidence.methods]
    names = evidence.answers
    pairs = np.argwhere(np.sum(counts, axis=0)).tolist()
    confusions = [
        Confusion(names[i], names[j], tuple(int(count[i, j]) for count in counts)) for i, j in pairs
    ]
    # Sorting keeps the order of the classes among equals.
    return sorted(confusions, key=lambda one: -sum(one.counts))


def _confusion(outcome: Outcome) -> npt.NDArray[np.int64]:
    """Return how often each answer was given for each other one, of all seeds, shape (A, A)."""
    counts = np.zeros((len(outcome.answers),) * 2, dtype=np.int64)
    for predicted in outcome.predicted:
        np.add.at(counts, (outcome.labels, predicted), 1)
    np.fill_diagonal(counts, 0)
    return counts


def _answers(outcome: Outcome) -> list[Answer]:
    right, names = outcome.right, outcome.answers
    messages, seeds = np.arange(len(outcome.labels)), len(right)
    votes = np.zeros((len(messages), len(names)))
    mean, of_given = np.zeros_like(votes), np.zeros(right.shape)
    for s, (predicted, chances) in enumerate(
        zip(outcome.predicted, outcome.answer_chances(), strict=True)
    ):
        votes[messages, predicted] += 1
        mean += chances / seeds
        of_given[s] = chances[messages, predicted]
    # Votes are whole numbers, and a mean probability decides between equally many.
    given = (votes + mean / 2).argmax(axis=1)
    mistakes = np.where(right, 0.0, of_given).mean(axis=0)
    return [
        Answer(names[i], float(mean[n, i]), i == label, seeds - int(hits), seeds, float(mistake))
        for n, (i, label, hits, mistake) in enumerate(
            zip(given.tolist(), outcome.labels.tolist(), right.sum(axis=0), mistakes, strict=True)
        )
    ]
