"""The whole of params.yaml."""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, ValidationInfo, field_validator

from lora_compare.errors import ParamsError
from lora_compare.params.data import DataParams, SplitParams
from lora_compare.params.methods import MethodParams
from lora_compare.params.network import ModelParams
from lora_compare.params.search import TuningParams
from lora_compare.params.sections import (
    ClassifierParams,
    ComparisonParams,
    EvaluationParams,
    Section,
    TrackingParams,
    TrainingParams,
)

RESERVED_METHOD_NAMES = frozenset(
    {"base", "baseline", "comparison", "split", "summary", "tfidf", "unused", "untuned"}
)
"""Names whose metrics or model files would overwrite those of another stage."""

METHOD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


def describe_method_name(name: str) -> str:
    """Return what is wrong with the name of a method; empty if nothing is."""
    if not METHOD_NAME.fullmatch(name):
        return (
            f"the method name {name!r} must be a letter, then letters, digits, _ or -, "
            "64 characters at most: it becomes a file name"
        )
    if name in RESERVED_METHOD_NAMES or name.endswith("_cost"):
        return f"the method name {name!r} is taken by a file of the pipeline"
    return ""


def _require_file_name(name: str) -> str:
    if problem := describe_method_name(name):
        raise ValueError(problem)
    return name


MethodName = Annotated[str, AfterValidator(_require_file_name)]


class Params(Section):
    """The whole of params.yaml."""

    data: DataParams
    split: SplitParams
    model: ModelParams
    classifier: ClassifierParams
    evaluation: EvaluationParams = EvaluationParams()
    training: TrainingParams
    tuning: TuningParams = TuningParams()
    methods: dict[MethodName, MethodParams]
    comparison: ComparisonParams
    tracking: TrackingParams

    @field_validator("methods", mode="before")
    @classmethod
    def _ask_for_a_method(cls, methods: Any) -> Any:
        if methods is None or methods == {}:
            raise ValueError("name at least one method (recipes/default.yaml has two)")
        return methods

    @field_validator("comparison")
    @classmethod
    def _refer_to_a_method(
        cls, comparison: ComparisonParams, info: ValidationInfo
    ) -> ComparisonParams:
        methods, reference = info.data.get("methods"), comparison.reference
        if methods and reference is not None and reference not in methods:
            raise ValueError(
                f"reference should be one of the methods ({', '.join(methods)}), not {reference!r}"
            )
        return comparison

    @field_validator("comparison")
    @classmethod
    def _have_costs_to_decide_by(
        cls, comparison: ComparisonParams, info: ValidationInfo
    ) -> ComparisonParams:
        classifier = info.data.get("classifier")
        if classifier and classifier.threshold == "cost" and comparison.costs is None:
            raise ValueError("costs should be given, since classifier.threshold is cost")
        return comparison

    @property
    def decides(self) -> bool:
        """Whether answers are more than the likeliest class by the model's own probabilities."""
        return (
            self.classifier.threshold != "argmax"
            or self.evaluation.temperature
            or self.data.prior is not None
        )

    @property
    def threads(self) -> int | None:
        """CPU threads to compute with; None takes torch's default.

        The operations of gpt2-nano are so short that threads wait longer than they work; one
        thread also gives the same bits whatever the number of cores (docs/decisions/0005).
        """
        return self.training.threads or (1 if self.model.name == "gpt2-nano" else None)

    @property
    def trained(self) -> dict[int, int | None]:
        """The trainings of each method: the seed of each and its fold; None: there is one split."""
        seeds, folds = self.training.seeds, self.split.fold_numbers
        return dict(zip(seeds, folds, strict=True) if len(folds) > 1 else dict.fromkeys(seeds))

    def with_choices(self, choices: Mapping[str, Mapping[str, Any]]) -> "Params":
        """Return the parameters with what the searches of methods have come to.

        Args:
            choices: For a method its values by dotted key; they replace its search. What is not
                that of its search, and so of an earlier one, changes nothing.
        """
        chosen = {
            name: method.with_settings(choices[name])
            for name, method in self.methods.items()
            if method.search and {*choices.get(name, ())} == {*method.search}
        }
        return self.model_copy(update={"methods": self.methods | chosen})

    def method(self, name: str) -> MethodParams:
        """Return the settings of one method.

        Raises:
            ParamsError: params.yaml has no such method; the message lists those it has.
        """
        if name not in self.methods:
            raise ParamsError(
                f"There is no method {name!r}.",
                where="params.yaml: methods",
                expected=", ".join(self.methods),
                actual=name,
                next="name one of these, or add it to params.yaml",
            )
        return self.methods[name]
