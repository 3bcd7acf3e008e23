"""The sections of params.yaml that all methods share."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationInfo, field_validator

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[FiniteFloat, Field(gt=0.0, lt=1.0)]
Probability = Annotated[FiniteFloat, Field(ge=0.0, lt=1.0)]
Positive = Annotated[FiniteFloat, Field(gt=0.0)]
NotNegative = Annotated[FiniteFloat, Field(ge=0.0)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Section(BaseModel):
    """A part of params.yaml: no unknown key, no conversion, no change after reading.

    What several settings must fulfil together is checked with the last of them, not with the
    whole section, which is only looked at when nothing else in it is wrong.
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
    sha256: Sha256 | None = None


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

    @field_validator("deduplicate", "balance")
    @classmethod
    def _follow_the_book(cls, value: str, info: ValidationInfo) -> str:
        needed = {"deduplicate": "none", "balance": "undersample"}[info.field_name or ""]
        if info.data.get("mode") == "appendix_e" and value != needed:
            raise ValueError(f"mode appendix_e needs {info.field_name}: {needed}")
        return value

    @field_validator("validation")
    @classmethod
    def _leave_room_for_test(cls, validation: float, info: ValidationInfo) -> float:
        if info.data.get("train", 0.0) + validation > 0.999:
            raise ValueError("train + validation must leave room for a test split (at most 0.999)")
        return validation


class PretrainingParams(Section):
    """How `gpt2-nano` is pre-trained on the messages that no evaluation uses.

    Attributes:
        vocabulary_size: Tokens of the byte-level BPE, at least 257.
        steps: Optimizer steps.
        batch_tokens: Positions a step, padding included.
        sequence_length: Tokens after which a message is cut into another sequence.
        learning_rate: AdamW's rate for embeddings, biases and norms, at the cosine's peak.
        matrix_learning_rate: Muon's rate for the matrices in the blocks, likewise.
        weight_decay: Decoupled weight decay of both.
        seed: Seed of the initial weights and of the batches.
    """

    vocabulary_size: Annotated[int, Field(ge=257, le=50_257)] = 2048
    steps: Count = 700
    batch_tokens: Count = 512
    sequence_length: Annotated[int, Field(ge=2, le=256)] = 128
    learning_rate: Positive = 3.0e-3
    matrix_learning_rate: Positive = 0.02
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
        precision: Type of the arithmetic: `float32`; `bfloat16` multiplies matrices in it,
            while what is trained, norms, attention on a CPU and the head stay float32; `auto`
            takes bfloat16 where the device has it in hardware, from `gpt2-small` on.
        gradient_checkpointing: Keep only each block's input for the gradient and compute the
            rest anew: less memory, a third more work, the same gradient.
        checkpoint_every: Seconds between two checkpoints of a training, at least, so that one
            that is cut off goes on from there; longer where writing takes more than a fiftieth
            of the time. 0: after every step; null: none but where a signal ends it.
        compile: Train with compiled code where that can help: the feed-forward part of each
            block. The time that the compilation takes counts as training.
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
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    gradient_checkpointing: bool = False
    checkpoint_every: Annotated[float, Field(ge=0)] | None = 30.0
    compile: bool = False
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: Count | None = None


class TrackingParams(Section):
    """Where runs are shown.

    Attributes:
        experiment: Name of the MLflow experiment.
    """

    experiment: Annotated[str, Field(min_length=1)]
