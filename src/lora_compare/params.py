"""Typed, frozen and strict models of params.yaml; the only reader of YAML."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    field_validator,
    model_validator,
)

from lora_compare.errors import ParamsError

RESERVED_METHOD_NAMES = frozenset(
    {"base", "baseline", "comparison", "split", "tfidf", "unused", "untuned"}
)
"""Names whose metrics or model files would overwrite those of another stage."""

METHOD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[FiniteFloat, Field(gt=0.0, lt=1.0)]
Probability = Annotated[FiniteFloat, Field(ge=0.0, lt=1.0)]
Positive = Annotated[FiniteFloat, Field(gt=0.0)]
NotNegative = Annotated[FiniteFloat, Field(ge=0.0)]


class Section(BaseModel):
    """A part of params.yaml: no unknown key, no conversion, no change after reading."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DataParams(Section):
    """Where the labelled text comes from.

    Attributes:
        source: `bundled`, `uci`, or a path or URL of .zip, .tsv, .csv, .jsonl or .parquet.
        text_column: Column of the text; a .tsv without a header has label and text.
        label_column: Column of the class.
        sha256: Expected SHA-256 of the source file; null accepts any and records it.
    """

    source: Annotated[str, Field(min_length=1)]
    text_column: Annotated[str, Field(min_length=1)]
    label_column: Annotated[str, Field(min_length=1)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None


class SplitParams(Section):
    """How messages become train, validation and test.

    Attributes:
        mode: `stratified`, or `appendix_e` for the exact split of the book's notebook.
        deduplicate: `exact` drops repeated messages before splitting, `none` keeps them.
        balance: `undersample` cuts every class to the smallest, `none` keeps the prior.
        train: Fraction of the balanced messages.
        validation: Fraction of the balanced messages; the test split gets the rest.
        seed: Seed of every random choice of the split.
    """

    mode: Literal["stratified", "appendix_e"] = "stratified"
    deduplicate: Literal["exact", "none"]
    balance: Literal["undersample", "none"]
    train: Fraction
    validation: Fraction
    seed: Seed

    @model_validator(mode="after")
    def _leave_room_for_test(self) -> Self:
        if self.train + self.validation > 0.999:
            raise ValueError("train + validation must leave room for a test split (at most 0.999)")
        if self.mode == "appendix_e" and (self.deduplicate, self.balance) != (
            "none",
            "undersample",
        ):
            raise ValueError("mode appendix_e needs deduplicate: none and balance: undersample")
        return self


class PretrainingParams(Section):
    """How `gpt2-nano` is pre-trained on the messages that no evaluation uses.

    Attributes:
        vocabulary_size: Tokens of the byte-level BPE, at least 257.
        steps: Optimizer steps.
        batch_tokens: Positions a step, padding included.
        sequence_length: Tokens after which a message is cut into another sequence.
        learning_rate: Peak of the cosine schedule.
        weight_decay: AdamW's decoupled weight decay.
        seed: Seed of the initial weights and of the batches.
    """

    vocabulary_size: Annotated[int, Field(ge=257, le=50_257)] = 2048
    steps: Count = 600
    batch_tokens: Count = 1024
    sequence_length: Annotated[int, Field(ge=2, le=256)] = 128
    learning_rate: Positive = 3.0e-3
    weight_decay: NotNegative = 0.1
    seed: Seed = 123


ModelName = Literal["gpt2-nano", "gpt2-small", "gpt2-medium", "gpt2-large", "gpt2-xl"]


class ModelParams(Section):
    """The network before fine-tuning.

    Attributes:
        name: `gpt2-nano` is pre-trained here; the others are OpenAI's checkpoints.
        weights: `pretrained` or `random`.
        seed: Seed of random weights.
        pretraining: Settings of the pre-training of `gpt2-nano`.
    """

    name: ModelName
    weights: Literal["pretrained", "random"]
    seed: Seed = 123
    pretraining: PretrainingParams = PretrainingParams()


Position = Literal["last_token", "last_position", "first", "mean"]


class ClassifierParams(Section):
    """The classification head.

    Attributes:
        position: Whose hidden state is classified: the `last_token` of the message, the
            `last_position` of a batch padded to the longest training message, the `first`
            token, or the `mean` over the message's tokens.
        bias: Whether the head has a bias.
    """

    position: Position
    bias: bool


class TrainingParams(Section):
    """What every method's training shares.

    Attributes:
        epochs: Passes over the training split.
        batch_size: Messages a forward pass.
        seed: Seed of the head's initial weights, of the batches, adapters and dropout.
        gradient_accumulation_steps: Forward passes an optimizer step.
        drop_last: Leave out an epoch's last batch where it is smaller than the others.
        max_length: Longest message in tokens; longer ones are cut. null: the model's limit.
        max_grad_norm: Clip the gradient's norm to this; null does not clip.
        lr_scheduler: `constant`, or `linear` or `cosine` decay to zero.
        warmup_ratio: Fraction of the steps in which the learning rate rises from zero.
        eval_every: Optimizer steps between two evaluations.
        eval_examples: Messages of each split in these evaluations; null takes all.
        device: `auto` (cuda, mps, cpu in this order) or one of these.
        threads: CPU threads; null: one for gpt2-nano, else torch's default (all cores).
            Results repeat for equal numbers.
    """

    epochs: Count
    batch_size: Count
    seed: Seed
    gradient_accumulation_steps: Count = 1
    drop_last: bool = False
    max_length: Annotated[int, Field(ge=1, le=1024)] | None = None
    max_grad_norm: Positive | None = None
    lr_scheduler: Literal["constant", "linear", "cosine"] = "constant"
    warmup_ratio: Probability = 0.0
    eval_every: Count = 50
    eval_examples: Count | None = None
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: Count | None = None


class LoraParams(Section):
    """A low-rank adapter, in the names of PEFT's LoraConfig.

    Attributes:
        r: Rank of the update, at most the larger side of every adapted matrix.
        lora_alpha: Numerator of the scale lora_alpha / r.
        lora_dropout: Probability of zeroing an input of the adapter while training.
        target_modules: `all-linear`, or names of Linear layers (the last parts of their
            dotted paths).
        bias: Which of the model's biases are trained: `none`, `all`, or `lora_only` (those
            of adapted layers).
    """

    r: Count
    lora_alpha: Positive
    lora_dropout: Probability
    target_modules: (
        Literal["all-linear"]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
    )
    bias: Literal["none", "all", "lora_only"]

    @field_validator("target_modules", mode="before")
    @classmethod
    def _ask_for_a_list(cls, value: Any) -> Any:
        if isinstance(value, str) and value != "all-linear":
            raise ValueError(f"write all-linear, or a list of names: [{value}]")
        return value


Trainable = Literal["all", "lora", "head", "last_block", "last_two_blocks"]


class MethodParams(Section):
    """One way to fine-tune; its optimizer settings are its own.

    Attributes:
        trainable: `all`, `lora`, `head`, or the head with the final norm and the
            `last_block` or `last_two_blocks`.
        learning_rate: AdamW's learning rate (the peak where there is a schedule).
        weight_decay: AdamW's decoupled weight decay, on every trained parameter.
        lora: The adapter; needed for `trainable: lora`, refused otherwise.
    """

    trainable: Trainable
    learning_rate: Positive
    weight_decay: NotNegative
    lora: LoraParams | None = None

    @model_validator(mode="after")
    def _pair_adapter_with_method(self) -> Self:
        if self.trainable == "lora" and self.lora is None:
            raise ValueError("trainable: lora needs a section lora with r, lora_alpha, ...")
        if self.trainable != "lora" and self.lora is not None:
            raise ValueError(f"a section lora goes with trainable: lora, not {self.trainable}")
        return self


class TrackingParams(Section):
    """Where runs are shown.

    Attributes:
        experiment: Name of the MLflow experiment.
    """

    experiment: Annotated[str, Field(min_length=1)]


class Params(Section):
    """The whole of params.yaml."""

    data: DataParams
    split: SplitParams
    model: ModelParams
    classifier: ClassifierParams
    training: TrainingParams
    methods: Annotated[dict[str, MethodParams], Field(min_length=1)]
    tracking: TrackingParams

    @field_validator("methods")
    @classmethod
    def _name_methods_as_files(cls, methods: dict[str, MethodParams]) -> dict[str, MethodParams]:
        for name in methods:
            if not METHOD_NAME.fullmatch(name):
                raise ValueError(
                    f"the method name {name!r} must be a letter, then letters, digits, _ or -, "
                    "64 characters at most: it becomes a file name"
                )
            if name in RESERVED_METHOD_NAMES or name.endswith("_cost"):
                raise ValueError(f"the method name {name!r} is taken by a file of the pipeline")
        lowered = [name.lower() for name in methods]
        if len(set(lowered)) < len(lowered):
            raise ValueError("method names must differ in more than upper and lower case")
        return methods

    @property
    def threads(self) -> int | None:
        """CPU threads to compute with; None takes torch's default.

        The operations of gpt2-nano are so short that threads wait longer than they work; one
        thread also gives the same bits whatever the number of cores (docs/decisions/0005).
        """
        return self.training.threads or (1 if self.model.name == "gpt2-nano" else None)

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
            )
        return self.methods[name]


def load_params(path: Path) -> Params:
    """Return the parameters that `path` holds.

    Raises:
        ParamsError: The file is missing, is not YAML, or breaks a rule; every broken rule is
            listed with its key, its value and what is allowed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ParamsError(
            "There is no params.yaml here.",
            where=str(path),
            next="run the command in the project's folder, or git checkout params.yaml",
        ) from None
    except UnicodeDecodeError as error:
        raise ParamsError(
            "params.yaml is not UTF-8.", where=str(path), actual=str(error), next="save it as UTF-8"
        ) from None
    return parse_params(text, str(path.name))


def parse_params(text: str, name: str = "params.yaml") -> Params:
    """Return the parameters that YAML `text` holds; `name` stands for it in errors.

    Raises:
        ParamsError: As `load_params`.
    """
    try:
        values = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506
    except yaml.YAMLError as error:
        raise ParamsError(
            "The parameters are not valid YAML.", where=name, actual=str(error)
        ) from None
    except RecursionError:
        raise ParamsError("The parameters are nested too deeply.", where=name) from None
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        problems = [_describe(problem) for problem in error.errors(include_url=False)]
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        raise ParamsError(
            f"{name} has {count}; no stage was started.",
            where="\n".join(problems),
            next=f"correct {name}; README.md lists every parameter with its range",
        ) from None


def _describe(problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"]) or "the file"
    value, kind = problem["input"], problem["type"]
    if kind == "missing":
        return f"{key}: missing"
    if kind == "extra_forbidden":
        return f"{key}: unknown key"
    message = problem["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
    if isinstance(value, str) and _reads_as_float(value):
        return f"{key}: {value!r} is text in YAML; write {_as_yaml_float(value)}"
    shown = repr(value) if not isinstance(value, dict | BaseModel) else ""
    return f"{key}: {message}" + (f", not {_shorten(shown)}" if shown else "")


def _reads_as_float(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _as_yaml_float(value: str) -> str:
    mantissa, exponent, power = value.lower().partition("e")
    if "." not in mantissa:
        mantissa += ".0"
    sign = "" if power.startswith(("+", "-")) or not exponent else "+"
    return f"{mantissa}{exponent}{sign}{power}"


def _shorten(text: str, length: int = 80) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML's safe loader, but a key that stands twice is an error, not the last one's value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping of `node`; refuse repeated and unhashable keys."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue
            key = self.construct_object(key_node)
            if key in seen and key != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file of DVC (dvc.yaml, dvc.lock); empty if there is none."""
    if not path.is_file():
        return {}
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
