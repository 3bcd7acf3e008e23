"""The networks that `model.name` means: their sizes and modules, known without torch."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from lora_compare.params.layers import Aliases, Choice, Layer, choose_layers
from lora_compare.params.methods import DEFAULT, LoraParams
from lora_compare.params.sections import PretrainingParams, Section, Seed


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT.

    Attributes:
        vocab_size: Tokens that the embedding knows.
        context_length: Longest sequence in tokens.
        n_layer: Transformer blocks.
        n_head: Attention heads a block; divides n_embd.
        n_embd: Width of the residual stream.
    """

    vocab_size: int
    context_length: int
    n_layer: int
    n_head: int
    n_embd: int

    def to_dict(self) -> dict[str, int]:
        """Return the fields by name, for config.json."""
        return asdict(self)


CONFIGS = {
    "gpt2-nano": GPTConfig(2048, 1024, 4, 4, 128),
    "gpt2-small": GPTConfig(50_257, 1024, 12, 12, 768),
    "gpt2-medium": GPTConfig(50_257, 1024, 24, 16, 1024),
    "gpt2-large": GPTConfig(50_257, 1024, 36, 20, 1280),
    "gpt2-xl": GPTConfig(50_257, 1024, 48, 25, 1600),
}
"""The sizes by name; the vocabulary of `gpt2-nano` may be set smaller or larger.

Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", table 2;
`gpt2-nano` is this project's own.
"""

ModelKind = Literal["gpt", "hub", "folder"]

MODEL_FOLDERS = PurePosixPath("inputs/models")
"""The folder that the stage base_model depends on."""

_HUB_NAME = re.compile(
    r"(?!.*(--|\.\.)) \b[\w.-]{1,96}\b / \b[\w.-]{1,96}\b (?<!\.git)", re.ASCII | re.VERBOSE
)
_REVISION = re.compile(r"(?!.*(\.\.|//|/$|\.lock$))\w[\w./+-]*", re.ASCII)


def _require_model_name(name: str) -> str:
    """Return the name of a model, that of a folder as a plain path.

    What the hub allows is that of huggingface_hub.utils.validate_repo_id.
    """
    if name in CONFIGS:
        return name
    parts = name.split("/")
    if parts[0] in ("inputs", "", ".", "..", "~") or len(parts) > 2 or "\\" in name:
        return _require_model_folder(name)
    if len(parts) == 1:
        close = difflib.get_close_matches(name, CONFIGS, n=1)
        meant = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(
            f"should be {', '.join(CONFIGS)}, org/name of a model on the hub such as "
            f"google-bert/bert-base-uncased, or {MODEL_FOLDERS}/NAME{meant}"
        )
    if not _HUB_NAME.fullmatch(name):
        raise ValueError(
            "a model on the hub is named org/name, each of letters, digits, _, - and ., beginning "
            "and ending with a letter, a digit or _, without -- and .., 96 characters at most"
        )
    return name


def _require_model_folder(name: str) -> str:
    path = PurePosixPath(name)
    within = path.is_relative_to(MODEL_FOLDERS) and path != MODEL_FOLDERS
    if not within or ".." in path.parts or not name.isprintable():
        raise ValueError(
            f"a model's folder should be in {MODEL_FOLDERS}/, where DVC sees its changes: "
            f"copy it there and name it {MODEL_FOLDERS}/NAME"
        )
    return str(path)


class ModelParams(Section):
    """The network before fine-tuning."""

    name: Annotated[str, AfterValidator(_require_model_name)]
    """`gpt2-nano` is pre-trained here; `gpt2-small`, `gpt2-medium`, `gpt2-large` and `gpt2-xl` are
    OpenAI's checkpoints; `org/name` is a model on the Hugging Face hub, and `inputs/models/NAME` a
    folder as transformers' `save_pretrained` writes it, both with a fast tokenizer and weights in
    safetensors."""

    revision: Annotated[str | None, Field(validate_default=True)] = None
    """Which version of a model on the hub: the commit's 40 hex digits; a branch or tag is looked up
    anew each time and its commit recorded. null for every other model."""

    weights: Literal["pretrained", "random"]
    """`random` starts from no checkpoint and no pre-training."""

    seed: Seed = 123
    """Seed of random weights: 0 to 4294967295."""

    pretraining: PretrainingParams = PretrainingParams()
    """Settings of the pre-training of `gpt2-nano`."""

    @field_validator("revision")
    @classmethod
    def _name_a_version_on_the_hub(cls, revision: str | None, info: ValidationInfo) -> str | None:
        name = info.data.get("name")
        if name is None:
            return revision
        if _kind(name) != "hub":
            if revision is not None:
                raise ValueError(f"only a model on the hub has one; null goes with {name}")
        elif revision is None:
            raise ValueError(
                f"{name} on the hub needs one: a commit of https://huggingface.co/{name}/commits"
            )
        elif not _REVISION.fullmatch(revision):
            raise ValueError("should be a commit's 40 hex digits, or a branch or tag")
        return revision

    @property
    def learns_from_messages(self) -> bool:
        """Whether it is pre-trained here, so that folds, which test all messages, need one each."""
        return self.name == "gpt2-nano"

    @property
    def kind(self) -> ModelKind:
        """Where the network comes from: this project's own GPT, the hub, or a folder."""
        return _kind(self.name)


def _kind(name: str) -> ModelKind:
    if name in CONFIGS:
        return "gpt"
    return "folder" if PurePosixPath(name).is_relative_to(MODEL_FOLDERS) else "hub"


def classifier_modules(config: GPTConfig, n_classes: int) -> dict[str, Layer | None]:
    """Return every module of a `gpt.Classifier` by its dotted path, in the model's order.

    Checked by tests/unit/params/test_network.py::test_the_modules_are_those_of_the_network.
    """
    d = config.n_embd
    modules: dict[str, Layer | None] = {
        "gpt": None,
        "gpt.wte": Layer("embedding", (config.vocab_size, d)),
        "gpt.wpe": Layer("embedding", (config.context_length, d)),
        "gpt.h": None,
    }
    square = Layer("linear", (d, d))
    block = {
        "ln_1": None,
        "attn": None,
        **{f"attn.{name}": square for name in ("q_proj", "k_proj", "v_proj", "c_proj")},
        "ln_2": None,
        "mlp": None,
        "mlp.c_fc": Layer("linear", (d, 4 * d)),
        "mlp.c_proj": Layer("linear", (4 * d, d)),
    }
    for index in range(config.n_layer):
        modules[f"gpt.h.{index}"] = None
        modules |= {f"gpt.h.{index}.{name}": layer for name, layer in block.items()}
    return modules | {"gpt.ln_f": None, "score": Layer("linear", (d, n_classes))}


def gpt2_paths(path: str) -> list[str]:
    """Return the dotted path that a module of `gpt.Classifier` has in transformers, if any.

    `gpt.h.0.attn.q_proj` is a third of `transformer.h.0.attn.c_attn`.
    """
    inside = path.removeprefix("gpt.")
    if inside == path:
        return []
    return ["transformer." + re.sub(r"\b[qkv]_proj\b", "c_attn", inside)]


_TARGETS: dict[str | tuple[str, ...], str] = {
    ("q_proj", "v_proj"): "bart opt gptj gpt_neo llama llama4 mistral mixtral stablelm gemma "
    "gemma2 gemma3_text qwen2 qwen3",
    ("query", "value"): "bert roberta xlm-roberta electra layoutlm",
    ("query_proj", "value_proj"): "deberta-v2",
    ("in_proj",): "deberta",
    ("q", "v"): "t5 mt5",
    ("q", "v", "q_proj", "v_proj"): "blip-2",
    ("c_attn",): "gpt2 gpt_bigcode",
    ("query_key_value",): "bloom gpt_neox chatglm RefinedWebModel RefinedWeb falcon",
    ("Wqkv",): "mpt",
    ("c_proj", "c_attn"): "btlm",
    ("qkv_proj",): "codegen",
    ("q_proj", "v_proj", "fc1", "fc2"): "phi",
    ("q_proj", "k_proj", "v_proj", "o_proj"): "nemotron_h",
    ("key", "value", "receptance", "output"): "rwkv",
    ("r_proj", "k_proj", "v_proj", "o_proj", "key", "value"): "rwkv7",
    r".*language_model\..*\.(q_proj|v_proj)": "gemma4",
}

DEFAULT_TARGETS = {
    model_type: targets if isinstance(targets, str) else list(targets)
    for targets, model_types in _TARGETS.items()
    for model_type in model_types.split()
}
"""What `target_modules: default` adapts, by transformers' `model_type`.

Source: PEFT 0.21, TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING in peft/utils/constants.py.
Checked by tests/parity/test_peft_architectures.py.
"""


def customary(settings: LoraParams, model_type: str, head: Sequence[str] = ()) -> LoraParams:
    """Return settings with what PEFT adds to them for a classifier of an architecture.

    Args:
        settings: An adapter's.
        model_type: transformers' name of the architecture.
        head: Dotted paths of the modules that are trained in full whatever the settings say.

    Returns:
        Settings with the architecture's default targets in place of `default`, which stays where
        it has none, and with the head among `modules_to_save`.
    """
    changes: dict[str, Any] = {}
    if settings.target_modules == DEFAULT:
        changes["target_modules"] = DEFAULT_TARGETS.get(model_type, DEFAULT)
    if head:
        changes["modules_to_save"] = list(dict.fromkeys([*(settings.modules_to_save or ()), *head]))
    return settings.model_copy(update=changes)


@dataclass(frozen=True)
class Architecture:
    """A classifier as an adapter's settings see it.

    Attributes:
        modules: Every module by its dotted path, in the model's order.
        aliases: Other names of a module.
        model_type: transformers' name of the architecture.
        head: Paths of the modules that are trained in full beside every adapter.
    """

    modules: Mapping[str, Layer | None]
    aliases: Aliases
    model_type: str
    head: tuple[str, ...] = ()

    def choose(self, settings: LoraParams) -> Choice:
        """Return the layers that an adapter's settings mean, and the mistakes in them."""
        settings = customary(settings, self.model_type, self.head)
        return choose_layers(self.modules, settings, self.aliases)


def gpt_architecture(config: GPTConfig, n_classes: int) -> Architecture:
    """Return a `gpt.Classifier`, whose head an adapter on all linear layers is on, too."""
    return Architecture(classifier_modules(config, n_classes), gpt2_paths, "gpt2")
