"""What page and Markdown show beyond the comparison itself, computed once for both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lora_compare.comparison import leaks
from lora_compare.comparison.disagreements import Cases, find_cases
from lora_compare.comparison.evidence import Evidence
from lora_compare.comparison.verdict import differing_settings, shown_settings
from lora_compare.data.twins import Twin
from lora_compare.evaluation.noise import Suspect, find_suspects, is_installed
from lora_compare.params import Params
from lora_compare.project.paths import TFIDF
from lora_compare.report import versions


@dataclass(frozen=True)
class Contents:
    """The contents of a report.

    Attributes:
        params: The experiment, for the settings.
        evidence: What the methods and baselines did.
        comparison: The content of metrics/comparison.json.
        twins: Of the test messages in the training split, from `leaks.find_leaks`.
        leaks: Accuracies with and without these messages, from `leaks.accuracies`.
        cases: The messages that methods got wrong.
        differing: Every setting in which two methods differ, as YAML shows it, by method.
        suspects: The messages whose label may be wrong; None where cleanlab is not installed, or a
            message may have several labels.
        environments: Where every method was trained and evaluated, from `versions.environments`.
    """

    params: Params
    evidence: Evidence
    comparison: Mapping[str, Any]
    twins: Sequence[Twin]
    leaks: Sequence[Mapping[str, Any]]
    cases: Cases
    differing: Mapping[str, Mapping[str, str]]
    suspects: Sequence[Suspect] | None
    environments: Mapping[str, Mapping[str, versions.Row]]


def gather(params: Params, evidence: Evidence, comparison: Mapping[str, Any]) -> Contents:
    """Return the contents of the report on a comparison.

    Args:
        params: The experiment.
        evidence: What the methods and baselines did.
        comparison: The content of metrics/comparison.json.
    """
    twins = leaks.find_leaks(evidence)
    tuned = {o.name: o.tuning.choice["settings"] for o in evidence.methods if o.tuning}
    return Contents(
        params,
        evidence,
        comparison,
        twins,
        leaks.accuracies(evidence, twins),
        find_cases(evidence, leaks.leaked(evidence, twins).tolist()),
        shown_settings(differing_settings(params.with_choices(tuned), evidence.names)),
        _find_suspects(evidence) if is_installed() and not evidence.several else None,
        versions.environments(evidence),
    )


def _find_suspects(evidence: Evidence) -> list[Suspect]:
    """Return the messages of the splits train and test whose label may be wrong."""
    tfidf = next(outcome for outcome in evidence.baselines if outcome.name == TFIDF)
    train = evidence.training["Text"], evidence.training["Label"], evidence.out_of_sample
    test = evidence.texts, tfidf.labels.tolist(), tfidf.chances[0]
    return [
        suspect
        for split, own in {"train": train, "test": test}.items()
        for suspect in find_suspects(split, *own, evidence.classes)
    ]
