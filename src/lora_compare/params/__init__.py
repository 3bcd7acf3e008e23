"""Typed, frozen and strict models of params.yaml; the only reader of YAML."""

from lora_compare.params.data import DataParams, SplitParams
from lora_compare.params.editing import with_method
from lora_compare.params.experiment import (
    METHOD_NAME,
    RESERVED_METHOD_NAMES,
    Params,
    describe_method_name,
)
from lora_compare.params.fit import MAX_CLASSES
from lora_compare.params.layers import Aliases, Layer, choose_layers
from lora_compare.params.methods import FROM_WEIGHT, LoraParams, MethodParams, Trainable
from lora_compare.params.network import (
    CONFIGS,
    DEFAULT_TARGETS,
    MODEL_FOLDERS,
    Architecture,
    GPTConfig,
    ModelKind,
    ModelParams,
    classifier_modules,
    customary,
    gpt2_paths,
    gpt_architecture,
)
from lora_compare.params.reading import (
    is_possible,
    load_params,
    parse_params,
    read_yaml,
    require_costs,
    require_fit,
    require_kind,
    require_positive,
    require_prior,
)
from lora_compare.params.search import Space, TuningParams, count_trials, is_whole
from lora_compare.params.sections import (
    ClassifierParams,
    ComparisonParams,
    EvaluationParams,
    PretrainingParams,
    Section,
    TrackingParams,
    TrainingParams,
)

__all__ = [
    "CONFIGS",
    "DEFAULT_TARGETS",
    "FROM_WEIGHT",
    "MAX_CLASSES",
    "METHOD_NAME",
    "MODEL_FOLDERS",
    "RESERVED_METHOD_NAMES",
    "Aliases",
    "Architecture",
    "ClassifierParams",
    "ComparisonParams",
    "DataParams",
    "EvaluationParams",
    "GPTConfig",
    "Layer",
    "LoraParams",
    "MethodParams",
    "ModelKind",
    "ModelParams",
    "Params",
    "PretrainingParams",
    "Section",
    "Space",
    "SplitParams",
    "TrackingParams",
    "Trainable",
    "TrainingParams",
    "TuningParams",
    "choose_layers",
    "classifier_modules",
    "count_trials",
    "customary",
    "describe_method_name",
    "gpt2_paths",
    "gpt_architecture",
    "is_possible",
    "is_whole",
    "load_params",
    "parse_params",
    "read_yaml",
    "require_costs",
    "require_fit",
    "require_kind",
    "require_positive",
    "require_prior",
    "with_method",
]
