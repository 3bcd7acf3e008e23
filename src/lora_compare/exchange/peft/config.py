"""The folder of an adapter that PEFT saved, and what its settings mean."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lora_compare.errors import CheckpointError, DataError
from lora_compare.exchange.peft.names import CONFIG_FILE, TENSORS_FILE, PeftAdapter, scale_of
from lora_compare.models.weights import load_any_state
from lora_compare.params import LoraParams
from lora_compare.params.methods import ending, require_pattern
from lora_compare.params.sections import Count, Positive, Probability
from lora_compare.project.files import read_json

SHOWN_DIFFERENCES = 20
"""Differences between an adapter and the model that an error lists before it only counts."""

WITHOUT_EFFECT = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "corda_config",
        "ensure_weight_tying",
        "eva_config",
        "fan_in_fan_out",
        "id2label",
        "inference_mode",
        "label2id",
        "layers_pattern",
        "loftq_config",
        "lora_ga_config",
        "megatron_core",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "task_type",
    }
)
"""Settings that do not change what a trained adapter computes: its tensors say the rest."""

INITIALISATIONS = (True, False, "gaussian", "eva", "orthogonal")
"""Starts that leave the base's weights alone."""


class PeftConfig(BaseModel):
    """The settings of adapter_config.json that change what an adapter computes.

    Attributes: as in PEFT's LoraConfig.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    r: Count
    lora_alpha: Positive
    lora_dropout: Probability = 0.0
    bias: Literal["none", "all", "lora_only"] = "none"
    rank_pattern: dict[str, Count] = Field(default_factory=dict)
    alpha_pattern: dict[str, Positive] = Field(default_factory=dict)
    use_rslora: bool = False
    use_dora: bool = False
    modules_to_save: list[str] = Field(default_factory=list)
    init_lora_weights: bool | str = True
    target_modules: str | list[str] | None = None
    exclude_modules: str | list[str] | None = None
    layers_to_transform: int | list[int] | None = None

    @property
    def targets(self) -> LoraParams | None:
        """Which layers have an adapter, in this project's settings; None where it is not said."""
        if not self.target_modules:
            return None
        blocks = None if self.layers_to_transform == [] else self.layers_to_transform
        return LoraParams(
            r=1,
            lora_alpha=1.0,
            lora_dropout=0.0,
            target_modules=self.target_modules,
            bias="none",
            exclude_modules=self.exclude_modules or None,
            layers_to_transform=blocks,
        )

    def rank(self, path: str) -> int:
        """Return the rank of the layer at `path`."""
        return _patterned(self.rank_pattern, path) or self.r

    def scale(self, path: str) -> float:
        """Return the unitless factor of the update of the layer at `path`."""
        alpha = _patterned(self.alpha_pattern, path) or self.lora_alpha
        return scale_of(alpha, self.rank(path), self.use_rslora)


def _patterned(patterns: Mapping[str, Any], path: str) -> Any:
    """Return the value of the first pattern that matches `path` in PEFT's way, or None."""
    return next((v for p, v in patterns.items() if re.match(_whole(p), path)), None)


def _whole(pattern: str) -> str:
    return f"{ending(pattern)}$"


FETCH = "save the adapter again with save_pretrained of PEFT, or fetch it again"


def read_adapter(folder: Path) -> PeftAdapter:
    """Return the content of an adapter's folder; nothing is unpickled.

    Raises:
        CheckpointError: A file is missing, is a pickle, or cannot be read.
    """
    for name in (CONFIG_FILE, TENSORS_FILE):
        if not (folder / name).is_file():
            raise _missing(folder, name)
    path = folder / CONFIG_FILE
    try:
        config = read_json(path)
    except DataError as error:
        raise CheckpointError(
            "The adapter's settings are no JSON.", where=str(path), actual=error.actual, next=FETCH
        ) from None
    if not isinstance(config, dict):
        raise CheckpointError(
            "The adapter's settings are no JSON object.", where=str(path), next=FETCH
        )
    return PeftAdapter(config, load_any_state(folder / TENSORS_FILE))


def _missing(folder: Path, name: str) -> CheckpointError:
    error = CheckpointError(
        f"There is no {name}.",
        where=str(folder),
        expected=f"a folder with {CONFIG_FILE} and {TENSORS_FILE},\n"
        "as save_pretrained of PEFT writes it",
        actual="a folder without it" if folder.is_dir() else "no such folder",
        next="an adapter on the hub has to be fetched first:\n"
        "  hf download REPOSITORY --local-dir FOLDER",
    )
    if (folder / "adapter_model.bin").exists():
        error.actual = "adapter_model.bin, a pickle, which is never opened here"
        error.next = "load it with PEFT where you trust it, and save it with save_pretrained again"
    return error


def parse_config(values: Mapping[str, Any]) -> PeftConfig:
    """Return the settings of adapter_config.json that matter.

    Raises:
        CheckpointError: One of them is not valid, or changes what the adapter computes in a way
            that is not supported; all of these are named.
    """
    problems = _unsupported(values)
    # Older versions of PEFT write null where newer ones write an empty object.
    given = {k: v for k, v in values.items() if k in PeftConfig.model_fields and v is not None}
    try:
        config = PeftConfig.model_validate(given)
        for pattern in (*config.rank_pattern, *config.alpha_pattern):
            require_pattern(pattern)
            require_pattern(_whole(pattern))
        _ = config.targets
    except ValidationError as error:
        problems += [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
    except ValueError as error:
        problems.append(f"rank_pattern, alpha_pattern: {error}")
    if problems:
        raise refusal(problems)
    return config


def _unsupported(values: Mapping[str, Any]) -> list[str]:
    problems = []
    if values.get("peft_type") != "LORA":
        problems.append(f"peft_type: {values.get('peft_type')}, supported is LORA")
    if values.get("task_type") not in (None, "SEQ_CLS"):
        problems.append(f"task_type: {values['task_type']}, supported is SEQ_CLS")
    if values.get("init_lora_weights") not in (None, *INITIALISATIONS):
        problems.append(
            f"init_lora_weights: {values['init_lora_weights']!r} changes the base's weights; "
            "save it as plain LoRA (path_initial_model_for_weight_conversion of save_pretrained)"
        )
    known = WITHOUT_EFFECT | set(PeftConfig.model_fields)
    return problems + [
        f"{key}: {value!r} is not supported; where it has no effect, remove it from {CONFIG_FILE}"
        for key, value in values.items()
        if value and key not in known
    ]


ADVICE = (
    f"correct {CONFIG_FILE} where it is wrong, or set model.name in params.yaml to the\n"
    "model that the adapter was trained on"
)


def refusal(problems: Sequence[str], advice: str = ADVICE) -> CheckpointError:
    """Return the error that names what keeps an adapter from being imported, and the way out."""
    shown = list(problems[:SHOWN_DIFFERENCES])
    if len(problems) > len(shown):
        shown.append(f"... and {len(problems) - len(shown)} more")
    return CheckpointError(
        f"The adapter cannot be imported: {len(problems)} difference"
        f"{'s' if len(problems) > 1 else ''}.",
        actual="\n".join(shown),
        kept="nothing was written",
        next=advice,
    )
