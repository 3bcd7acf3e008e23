"""One way to fine-tune, and its adapter."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
)
from pydantic_core import PydanticCustomError

from lora_compare.params.search import Space
from lora_compare.params.sections import (
    Count,
    NotNegative,
    Positive,
    Probability,
    Section,
    Sha256,
)

Name = Annotated[str, Field(min_length=1)]
Names = Annotated[list[Name], Field(min_length=1)]
LayerIndex = Annotated[int, Field(ge=0)]

FROM_WEIGHT = ("pissa", "olora")
"""Starts that take the factors out of the weight; their rank is at most its smaller side."""

ALL_LINEAR, DEFAULT = "all-linear", "default"
"""Words for layers in `target_modules`; every other text is a regular expression."""


class LoraParams(Section):
    """A low-rank adapter, in the names and with the meaning of PEFT's LoraConfig.

    Modules are named as PEFT names them: by the end of their dotted path (`q_proj`,
    `mlp.c_proj`), or by a regular expression that matches the whole path. GPT-2's own names
    (`transformer.h.0.attn.c_attn`) work too; `c_attn` means q_proj, k_proj and v_proj.
    docs/adapters.md tells where a setting differs from PEFT's.
    """

    r: Count
    """Rank of the update: 1 or more, at most the larger side of every adapted matrix (for `pissa`
    and `olora` the smaller side)."""

    lora_alpha: Positive
    """Numerator of the scale `lora_alpha / r` (unitless): above 0."""

    lora_dropout: Probability
    """Probability of zeroing an input of the adapter while training: 0 or more, below 1."""

    target_modules: Name | Names
    """What is adapted: `all-linear`, a list of names, a regular expression, or `default`, which is
    PEFT's choice for the architecture. GPT-2 has `q_proj`, `k_proj`, `v_proj` (together `c_attn`),
    `c_proj`, `c_fc`, `score`, and the embeddings `wte`, `wpe`, which are adapted where they are
    named; a name that a model does not have is refused with those that it has."""

    bias: Literal["none", "all", "lora_only"]
    """Which of the model's biases are trained; `lora_only`: those of adapted layers."""

    exclude_modules: Name | Names | None = None
    """What is not adapted although `target_modules` matches it."""

    modules_to_save: Names | None = None
    """Modules trained in full and saved with the adapter, such as the head, `score`; they are not
    adapted. The head of every model but GPT-2 is one of them without being named, as in PEFT."""

    layers_to_transform: LayerIndex | Annotated[list[LayerIndex], Field(min_length=1)] | None = None
    """Indices of the blocks to adapt: 0 or more; null adapts all, and what is outside of the
    blocks."""

    rank_pattern: dict[Name, Count] = Field(default_factory=dict)
    """Another `r` for the modules that a name or regular expression matches: 1 or more. Patterns
    that give one layer different values are refused."""

    alpha_pattern: dict[Name, Positive] = Field(default_factory=dict)
    """Another `lora_alpha`, likewise: above 0."""

    use_rslora: bool = False
    """Scale by `lora_alpha / sqrt(r)` instead (Kalajdzievski 2023, arXiv:2312.03732)."""

    use_dora: bool = False
    """Train each output's magnitude apart from its direction (Liu et al. 2024,
    arXiv:2402.09353)."""

    init_lora_weights: Literal[True, "gaussian", "pissa", "olora"] = True
    """How A and B start: true (A uniform, B zero), `gaussian` (A normal with standard deviation
    1/r, B zero), `pissa` (the largest singular vectors, Meng et al. 2024, arXiv:2404.02948) or
    `olora` (a QR decomposition, Büyükakyüz 2024, arXiv:2406.01775)."""

    loraplus_lr_ratio: Positive | None = None
    """B's learning rate over A's (unitless): above 0 (LoRA+, Hayou et al. 2024, arXiv:2402.12354);
    null: the same."""

    quantization: Literal["nf4"] | None = None
    """`nf4` holds the frozen linear layers but the head in 4 bit (QLoRA, Dettmers et al. 2023,
    arXiv:2305.14314); needs the extra `qlora`."""

    @field_validator("target_modules", "exclude_modules")
    @classmethod
    def _compile(cls, value: Any) -> Any:
        if isinstance(value, str):
            require_pattern(value)
        return value

    @field_validator("rank_pattern", "alpha_pattern")
    @classmethod
    def _compile_keys(cls, patterns: dict[str, Any]) -> dict[str, Any]:
        for pattern in patterns:
            require_pattern(pattern)
            require_pattern(ending(pattern))
        return patterns

    @field_validator("quantization")
    @classmethod
    def _keep_exact_weights(cls, quantization: Any, info: ValidationInfo) -> Any:
        start = info.data.get("init_lora_weights")
        if quantization and start in FROM_WEIGHT:
            raise ValueError(
                f"init_lora_weights: {start} needs the exact weights, "
                f"quantization: {quantization} does not keep them; choose one"
            )
        return quantization

    @field_validator("layers_to_transform")
    @classmethod
    def _name_blocks_once(cls, blocks: Any, info: ValidationInfo) -> Any:
        targets = info.data.get("target_modules")
        if blocks is not None and isinstance(targets, str) and targets not in (ALL_LINEAR, DEFAULT):
            raise ValueError(
                "layers_to_transform goes with a list in target_modules, all-linear or default; "
                "a regular expression names the blocks itself"
            )
        return blocks


def ending(pattern: str) -> str:
    """Return the regular expression for a whole path that ends as `pattern` says."""
    return rf"(.*\.)?({pattern})"


def require_pattern(text: str) -> None:
    """Refuse what is no regular expression.

    Raises:
        ValueError: It is none, or one that Python cannot compile.
    """
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from None


Trainable = Literal["all", "lora", "head", "last_block", "last_two_blocks", "imported"]

OF_TRAINING = ("learning_rate", "weight_decay")
"""What every method needs that is trained here."""

OF_IMPORTED = ("adapter", "sha256", "config_sha256")
"""What an imported method needs: no stage depends on its folder, its checksums say what it is."""

ONLY_TRAINED = (*OF_TRAINING, "lora", "search")
ONLY_IMPORTED = (*OF_IMPORTED, "classes")


def _contradiction(message: str) -> PydanticCustomError:
    return PydanticCustomError("contradiction", "{message}", {"message": message})


class MethodParams(Section):
    """One way to fine-tune; its optimizer settings are its own."""

    trainable: Trainable
    """What is trained: `all`, `lora`, the `head`, or the head with the final norm and the last
    block or two; `imported` is an adapter of PEFT, which is not trained here."""

    learning_rate: Positive | None = Field(default=None, validate_default=True)
    """AdamW's learning rate, at the peak where there is a schedule (unitless): above 0. Every
    method that is trained needs it."""

    weight_decay: NotNegative | None = Field(default=None, validate_default=True)
    """AdamW's decoupled weight decay, on every trained parameter (unitless): 0 or more. Every
    method that is trained needs it."""

    lora: LoraParams | None = Field(default=None, validate_default=True)
    """The adapter; needed for `trainable: lora`, refused otherwise."""

    adapter: Name | None = Field(default=None, validate_default=True)
    """Folder of an imported adapter, from the project's folder."""

    sha256: Sha256 | None = Field(default=None, validate_default=True)
    """SHA-256 of the imported adapter's weights, 64 hex digits."""

    config_sha256: Sha256 | None = Field(default=None, validate_default=True)
    """SHA-256 of the imported adapter's settings, 64 hex digits."""

    classes: Names | None = None
    """The classes in the order of the imported head's rows; null: the data's order."""

    search: dict[Name, Space] | None = Field(default=None, validate_default=True)
    """What the stage tune tries, by the setting's dotted key; null: the values above are taken."""

    @field_validator("search", mode="before")
    @classmethod
    def _search_something(cls, search: Any) -> Any:
        if search == {}:
            raise ValueError("name at least one setting, or write null")
        return search

    @field_validator(*ONLY_TRAINED, *ONLY_IMPORTED)
    @classmethod
    def _go_with_trainable(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what such a method does not have, and ask for what it needs."""
        trainable, name = info.data.get("trainable"), info.field_name
        imported = trainable == "imported"
        if value is None and name in (OF_IMPORTED if imported else OF_TRAINING):
            raise PydanticCustomError("missing", "Field required")
        if value is None and name == "lora" and trainable == "lora":
            raise _contradiction("trainable: lora needs a section lora with r, lora_alpha, ...")
        if value is None or trainable is None:
            return value
        if imported and name in ONLY_TRAINED:
            raise _contradiction(f"trainable: imported trains nothing; remove {name}")
        if not imported and name in ONLY_IMPORTED:
            raise _contradiction("only for trainable: imported")
        if name == "lora" and trainable != "lora":
            raise _contradiction(f"a section lora goes with trainable: lora, not {trainable}")
        return value

    def flat(self, defaults: bool = True) -> dict[str, Any]:
        """Return every setting that applies to such a method by its dotted key."""
        return self._applying(super().flat(defaults))

    @property
    def searchable(self) -> list[str]:
        """The dotted keys of the settings that a search can change; what is trained is none."""
        keys = self.model_copy(update={"search": None}).flat()
        return [key for key in keys if key not in ("trainable", "search")]

    def with_settings(self, settings: Mapping[str, Any]) -> "MethodParams":
        """Return the method with other values of some settings, and without a search.

        Args:
            settings: The values by dotted key, of `searchable`.

        Raises:
            pydantic.ValidationError: Such a method cannot be.
        """
        values = self.model_dump(exclude={"search"})
        for key, value in settings.items():
            *path, last = key.split(".")
            section = values
            for part in path:
                section = section[part]
            section[last] = value
        return MethodParams.model_validate(values)

    @model_serializer(mode="wrap")
    def _dump(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return self._applying(dump(self))

    def _applying(self, settings: dict[str, Any]) -> dict[str, Any]:
        foreign = ONLY_TRAINED if self.trainable == "imported" else ONLY_IMPORTED
        return {key: value for key, value in settings.items() if key not in foreign}
