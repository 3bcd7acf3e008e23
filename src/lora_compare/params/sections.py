"""The sections of params.yaml that all methods share."""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationInfo,
    field_validator,
)

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[FiniteFloat, Field(gt=0.0, lt=1.0)]
Probability = Annotated[FiniteFloat, Field(ge=0.0, lt=1.0)]
Positive = Annotated[FiniteFloat, Field(gt=0.0)]
NotNegative = Annotated[FiniteFloat, Field(ge=0.0)]


def _require_different(seeds: list[int]) -> list[int]:
    if twice := [seed for seed in seeds if seeds.count(seed) > 1]:
        raise ValueError(f"the seed {twice[0]} stands twice")
    return seeds


Seeds = Annotated[list[Seed], Field(min_length=1), AfterValidator(_require_different)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Section(BaseModel):
    """A part of params.yaml: no unknown key, no conversion, no change after reading.

    What several settings must fulfil together is checked with the last of them, not with the
    whole section, which is only looked at when nothing else in it is wrong.

    The text under a field is its row in docs/params.md: meaning, unit and range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def flat(self, defaults: bool = True) -> dict[str, Any]:
        """Return every setting by its key, those of sections within joined with dots.

        Lists, and mappings of anything but sections, stay whole.

        Args:
            defaults: Whether to return the settings that have their default value, too.
        """
        settings: dict[str, Any] = {}
        for key, info in type(self).model_fields.items():
            value = getattr(self, key)
            inner = _sections(key, value)
            for prefix, section in inner.items():
                flat = section.flat(defaults)
                settings |= {f"{prefix}.{name}": setting for name, setting in flat.items()}
            if not inner and (defaults or value != info.get_default(call_default_factory=True)):
                settings[key] = value
        return settings


def _sections(key: str, value: Any) -> dict[str, Section]:
    """Return the sections that `value` is or holds, by their dotted keys; none for a setting."""
    if isinstance(value, Section):
        return {key: value}
    if isinstance(value, dict) and all(isinstance(v, Section) for v in value.values()):
        return {f"{key}.{name}": section for name, section in value.items()}
    return {}


class PretrainingParams(Section):
    """How `gpt2-nano` is pre-trained on the messages that no evaluation uses."""

    vocabulary_size: Annotated[int, Field(ge=257, le=50_257)] = 2048
    """Tokens of the byte-level BPE: 257 to 50257."""

    steps: Count = 700
    """Optimizer steps: 1 or more."""

    batch_tokens: Count = 512
    """Positions a step, padding included: 1 or more."""

    sequence_length: Annotated[int, Field(ge=2, le=1024)] = 1024
    """Tokens after which a message is cut into another sequence: 2 to 1024. Positions behind are
    not trained."""

    learning_rate: Positive = 3.0e-3
    """AdamW's rate for embeddings, biases and norms, at the cosine's peak (unitless): above 0."""

    matrix_learning_rate: Positive = 0.02
    """Muon's rate for the matrices in the blocks, at the cosine's peak (unitless): above 0."""

    weight_decay: NotNegative = 0.1
    """Decoupled weight decay of both (unitless): 0 or more."""

    seed: Seed = 123
    """Seed of the initial weights and of the batches: 0 to 4294967295."""


Position = Literal["last_token", "last_position", "first", "mean"]


class ClassifierParams(Section):
    """The classification head."""

    position: Position
    """Whose hidden state is classified: the `last_token` of the message, the `last_position` of a
    batch padded to the longest training message (as in the book), the `first` token, or the
    `mean` over the message's tokens. Of a model on the hub or in a folder: `last_token`, which
    stands for what its architecture does."""

    bias: bool
    """Whether the head has a bias. Of a model on the hub or in a folder: true, which stands for
    what its architecture has."""

    positive: Annotated[str, Field(min_length=1)] | None = None
    """Class that precision, recall, false alarms and misses are of, where there are two; null: the
    rarer in the test split, of equally frequent ones the last by name."""

    threshold: Literal["argmax", "best_f1", "cost"] = "argmax"
    """From which probability of the positive class on a message is taken for it, where there are
    two: `argmax`: where it is the likelier; `best_f1`, `cost`: from the one that gives validation
    the highest F1, or the lowest expected cost by `comparison.costs`. Changing it trains
    nothing."""


class EvaluationParams(Section):
    """What is done with a trained classifier's probabilities before they are looked at."""

    temperature: bool = False
    """Divide the logits by a temperature that gives validation the lowest log loss (Guo et al.
    2017): probabilities become as sure as they are right, the likeliest class stays. It goes with
    the model into `classify`, serving and exports. Changing it trains nothing."""


class TrainingParams(Section):
    """What every method's training shares."""

    epochs: Count
    """Passes over the training split: 1 or more."""

    batch_size: Count
    """Messages a forward pass: 1 or more."""

    seeds: Seeds
    """Every method is trained once with each: seeds of the head's initial weights, of batches,
    adapters and dropout, each 0 to 4294967295, none twice."""

    gradient_accumulation_steps: Count = 1
    """Forward passes an optimizer step: 1 or more."""

    drop_last: bool = False
    """Leave out an epoch's last batch where it is smaller than the others."""

    max_length: Count | None = None
    """Longest message in tokens, with those that the model's tokenizer puts around it: 1 or more;
    longer ones are cut. null: the model's limit, the most that it takes (1024 for GPT-2 and
    `gpt2-nano`)."""

    truncation: Literal["head", "tail", "head_tail"] = "head"
    """What is kept of a longer message: its first tokens, its last, or both, of `head_tail` a
    quarter from its head."""

    max_grad_norm: Positive | None = None
    """Clip the gradient's norm to this (unitless): above 0; null does not clip."""

    lr_scheduler: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate falls: not at all, or by a line or a cosine to zero."""

    warmup_ratio: Probability = 0.0
    """Fraction of the steps in which the learning rate rises from zero: 0 or more, below 1."""

    eval_every: Count = 50
    """Optimizer steps between two evaluations: 1 or more."""

    eval_examples: Count | None = None
    """Messages of each split in these evaluations: 1 or more; null takes all."""

    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    """Type of the arithmetic. `bfloat16` multiplies matrices in it, while what is trained, norms,
    attention on a CPU and the head stay float32; `auto` takes bfloat16 where the device has it in
    hardware, from `gpt2-small` on."""

    gradient_checkpointing: bool = False
    """Keep only each block's input for the gradient and compute the rest anew: less memory, a
    third more work, the same gradient."""

    keep: Literal["last", "best"] = "last"
    """Which weights a training ends with: the `last`, or those of the evaluation with the lowest
    validation loss, `best` (of equal ones the earliest; the one before any step counts too)."""

    patience: Count | None = None
    """Evaluations without a lower validation loss after which a training ends early, but not in its
    first epoch: 1 or more; null: never."""

    class_weights: Literal["none", "balanced"] = "none"
    """`balanced` weights a message's loss by n / (k n_c), of n training messages, k classes and
    n_c messages of its class, so that rare classes count as much; evaluations stay unweighted."""

    checkpoint_every: Annotated[float, Field(ge=0)] | None = 30.0
    """Seconds between two checkpoints, from which a training that was cut off goes on: 0 or more;
    longer where writing takes more than a fiftieth of the time. 0: after every step; null: none
    but where a signal ends it."""

    compile: bool = False
    """Train with compiled feed-forward layers where that can help, which needs a C++ compiler; on
    CUDA play each forward and backward pass from a recording, which pays for small batches (not
    with `gradient_checkpointing`). The time of compiling or recording counts as training."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """`auto` takes the first there is of cuda, mps and cpu."""

    threads: Count | None = None
    """CPU threads: 1 or more; null: 1 for `gpt2-nano`, else torch's default (all cores). Results
    repeat for equal numbers."""

    strategy: Literal["single", "ddp", "fsdp"] = "single"
    """How processes share a training: `single` is one alone; in `ddp` each has the whole model and
    a part of every batch; in `fsdp` each has a part of every weight, too, for a model that does not
    fit. Losses and gradients are the same but for rounding."""

    devices: Annotated[Count, Field(validate_default=True)] = 1
    """Processes that share a training with `ddp` or `fsdp`, each with a GPU of its own where it
    trains on GPUs: 1 or more, 1 with `single`."""

    @field_validator("devices")
    @classmethod
    def _belong_to_their_strategy(cls, devices: int, info: ValidationInfo) -> int:
        if info.data.get("strategy") == "single" and devices > 1:
            raise ValueError("should be 1 with strategy single; several need ddp or fsdp")
        if info.data.get("strategy") != "single" and info.data.get("compile"):
            raise ValueError("with strategy ddp or fsdp go with compile: false only")
        return devices

    def steps_per_epoch(self, n: int) -> int:
        """Return the optimizer steps of a pass over `n` texts."""
        drops = self.drop_last and n >= self.batch_size  # the only batch of an epoch stays
        passes = n // self.batch_size if drops else -(-n // self.batch_size)
        return -(-passes // self.gradient_accumulation_steps)


class ComparisonParams(Section):
    """What the verdict is about, and when two methods are as good as one another."""

    costs: dict[str, dict[str, NotNegative]] | None = None
    """What a mistake costs, by the class of the message and the class that it is taken for, in a
    unit of your own, 0 or more: of `{ham: {spam: 10}}` a ham that is taken for spam costs 10. Each
    mistake that is not named costs 1, a right answer nothing. null: mistakes have no costs."""

    metric: Literal[
        "accuracy",
        "balanced_accuracy",
        "macro_f1",
        "recall",
        "precision",
        "expected_cost",
        "jaccard",
        "micro_f1",
    ] = "accuracy"
    """What methods are compared by. `recall` and `precision` are those of `classifier.positive`;
    `expected_cost` is the mean cost of a message by `comparison.costs`. Where a message may have
    several labels, `accuracy` is the share of messages whose labels are all right, `jaccard` the
    mean share of right labels among those that a message has or was given, and `micro_f1` that of
    all labels together; these two are of such messages only."""

    reference: Annotated[str, Field(min_length=1)] | None = None
    """Method that every other one is compared with; null: the one that trains everything, of
    several the one called `full`, else the first by name."""

    margin: Positive = 0.02
    """Difference of the metric that does not matter, to be set before looking: above 0; 0.02 is 2
    points. It is a part of 1, but of `expected_cost` a cost of one message."""

    level: Fraction = 0.05
    """Probability of a false claim, shared out among the methods: above 0, below 1."""

    cost: Literal[
        "trainable_parameters", "training_state_bytes", "artifact_bytes", "step_cpu_seconds"
    ] = "trainable_parameters"
    """What makes a method cheaper than another that is as good. `step_cpu_seconds` is measured: of
    methods whose steps take about as long, another run may take the other for the cheaper."""

    @field_validator("costs")
    @classmethod
    def _are_of_mistakes(
        cls, costs: dict[str, dict[str, float]] | None
    ) -> dict[str, dict[str, float]] | None:
        if right := [name for name, row in (costs or {}).items() if name in row]:
            raise ValueError(f"a right answer costs nothing; leave {right[0]!r} out of its own row")
        return costs

    @field_validator("metric")
    @classmethod
    def _has_costs(cls, metric: str, info: ValidationInfo) -> str:
        if metric == "expected_cost" and info.data.get("costs", {}) is None:
            raise ValueError("expected_cost needs comparison.costs")
        return metric

    @field_validator("margin")
    @classmethod
    def _is_a_part_of_all(cls, margin: float, info: ValidationInfo) -> float:
        if margin >= 1 and info.data.get("metric", "expected_cost") != "expected_cost":
            raise ValueError(f"should be less than 1, not {margin:g}")
        return margin


class TrackingParams(Section):
    """Where runs are shown."""

    experiment: Annotated[str, Field(min_length=1)]
    """Name of the MLflow experiment."""
