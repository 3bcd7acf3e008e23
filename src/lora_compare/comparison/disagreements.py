"""The test messages on which methods differ, and those that all of them get wrong."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lora_compare.comparison.evidence import Evidence, Outcome
from lora_compare.comparison.verdict import TESTED_BASELINE

MOST_MESSAGES = 200
"""Messages in one table of the page; the files of predictions hold all."""


@dataclass(frozen=True)
class Answer:
    """What a method said of one message.

    Attributes:
        predicted: The class.
        confidence: Its probability, in 0..1.
        right: Whether it is the message's class.
    """

    predicted: str
    confidence: float
    right: bool


@dataclass(frozen=True)
class Case:
    """A test message that some method got wrong, or to which two gave different answers.

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
    def disputed(self) -> bool:
        """Whether two methods gave different answers."""
        return len({answer.predicted for answer in self.answers}) > 1

    @property
    def surest(self) -> float:
        """The confidence of the surest wrong answer, in 0..1."""
        return max(answer.confidence for answer in self.answers if not answer.right)


@dataclass(frozen=True)
class Cases:
    """The cases that are shown, and how many there are.

    Attributes:
        shown: At most MOST_MESSAGES: disputed ones first, the surest mistake first.
        disputed: Test messages to which two methods gave different answers.
        shared: Test messages that every method took for the same wrong class.
        wrong: For each method, the number of its wrong answers.
    """

    shown: tuple[Case, ...]
    disputed: int
    shared: int
    wrong: tuple[int, ...]

    @property
    def total(self) -> int:
        """All cases, shown or not."""
        return self.disputed + self.shared


def find_cases(evidence: Evidence, leaked: Sequence[bool]) -> Cases:
    """Return the test messages that at least one method got wrong.

    Args:
        evidence: What the methods and baselines did.
        leaked: Whether each test message has a twin in the training split.
    """
    answers = [_answers(method) for method in evidence.methods]
    tfidf = _answers(next(b for b in evidence.baselines if b.name == TESTED_BASELINE))
    labels = evidence.methods[0].predictions["label"].tolist()
    places = {name: place for place, name in enumerate(evidence.classes)}
    messages = zip(evidence.texts, labels, zip(*answers, strict=True), tfidf, leaked, strict=True)
    cases = [
        Case(text, label, places[label], given, baseline, bool(twin))
        for text, label, given, baseline, twin in messages
        if not all(answer.right for answer in given)
    ]
    # Sorting keeps the order of the split among equals.
    cases.sort(key=lambda case: (not case.disputed, -case.surest))
    disputed = sum(case.disputed for case in cases)
    wrong = tuple(sum(not answer.right for answer in given) for given in answers)
    return Cases(tuple(cases[:MOST_MESSAGES]), disputed, len(cases) - disputed, wrong)


@dataclass(frozen=True)
class Confusion:
    """A class that methods took for another one.

    Attributes:
        label: The class of the messages.
        taken: What they were taken for.
        counts: How many, of each method.
    """

    label: str
    taken: str
    counts: tuple[int, ...]


def find_confusions(evidence: Evidence) -> list[Confusion]:
    """Return every confusion of two classes in the test messages, the most frequent first."""
    frames = [method.predictions for method in evidence.methods]
    counts = [Counter(zip(f["label"], f["predicted"], strict=True)) for f in frames]
    places = {name: place for place, name in enumerate(evidence.classes)}
    found = {pair for count in counts for pair in count if pair[0] != pair[1]}
    confusions = [
        Confusion(label, taken, tuple(count[label, taken] for count in counts))
        for label, taken in sorted(found, key=lambda pair: [places[name] for name in pair])
    ]
    # Sorting keeps the order of the classes among equals.
    return sorted(confusions, key=lambda one: -sum(one.counts))


def _answers(outcome: Outcome) -> list[Answer]:
    frame = outcome.predictions
    chances = frame[[f"p_{name}" for name in outcome.classes]].max(axis=1)
    return [
        Answer(str(predicted), float(chance), bool(right))
        for predicted, chance, right in zip(
            frame["predicted"], chances, outcome.correct, strict=True
        )
    ]
